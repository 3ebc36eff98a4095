"""Published tokenizers, most as networks of the libraries transformers and diffusers: which files are read, and what they must agree with.

Only safetensors weights are read: pickles (.bin, .pt, .ckpt) and TorchScript (.jit, as of the Cosmos tokenizers) run code when they are read. No code of a
repository runs.
"""

import importlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from maskweave.errors import MaskweaveError, reason
from maskweave.modality.entry import Modality
from maskweave.modality.external import ExternalSpec
from maskweave.nn.weights import fingerprint
from maskweave.tokenizers.external.base import ExternalTokenizer
from maskweave.values.base import ValueType


class PublishedTokenizer(nn.Module, ExternalTokenizer):
    """A published tokenizer.

    Args:
        modality: the entry.
        spec: its `tokenizer`.
        folder: folder of the model, with `config.json` and weights.

    Raises:
        MaskweaveError: the library is missing, the files are not such a tokenizer, or the entry does not fit it; the message says what to set.
    """

    architecture: ClassVar[str]
    """Name of the class in the library, or of the network."""
    library: ClassVar[str] = "transformers"
    extra: ClassVar[str] = "hf"

    def __init__(self, modality: Modality, spec: ExternalSpec, folder: Path):
        super().__init__()
        self.value, self.spec = modality.value, spec
        self.where = f"{modality.name!r}: {spec.external}"
        self.vocabulary_size = spec.size
        self.model: Any = self._open(folder)
        self.config: Any = self.model.config
        self.check_value(modality.value)
        codes, depth = self.sizes()
        if spec.codes != codes:
            raise MaskweaveError(
                f"{self.where}: its codebook has {codes} codes, but tokenizer.codes is {spec.codes}; set it to {codes}"
            )
        if spec.depth > depth:
            raise MaskweaveError(
                f"{self.where}: it has {depth} levels of codes, but tokenizer.depth is {spec.depth}; set it to at most {depth}"
            )
        latents = self.latents()
        self.grid = (spec.depth, *latents) if spec.tokens == "separate" else latents
        if modality.grid != self.grid:
            raise MaskweaveError(
                f"{self.where}: values of this entry's size have the grid {list(self.grid)}, but the entry's is {list(modality.grid)}; set grid: {list(self.grid)}"
            )

    def _open(self, folder: Path) -> nn.Module:
        try:
            library = importlib.import_module(self.library)
        except ImportError as error:
            raise MaskweaveError(
                f"{self.where}: needs {self.library}; install it with: pip install 'maskweave[{self.extra}]'"
            ) from error
        utils = library.utils.logging
        bars = utils.is_progress_bar_enabled()
        utils.disable_progress_bar()
        try:
            network = getattr(library, self.architecture)
            options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
            if self.library == "transformers":
                # given, because the attention of a config.json may be the name of a repository with kernels
                attention = "sdpa" if network._supports_sdpa else "eager"
                options = {"dtype": torch.float32, "trust_remote_code": False, "attn_implementation": attention}
            model, report = network.from_pretrained(
                folder,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                **options,
            )
        except Exception as error:  # the libraries have no common class
            raise MaskweaveError(
                f"{self.where}: cannot be opened as {self.architecture} of {self.library}; expected its config.json and safetensors weights ({reason(error)})"
            ) from error
        finally:
            if bars:
                utils.enable_progress_bar()
        lost = [*report["missing_keys"], *(str(key) for key in report.get("mismatched_keys", ()))]
        if lost:
            raise MaskweaveError(
                f"{self.where}: its weights lack {', '.join(sorted(lost)[:5])} ({len(lost)} in all) of {self.architecture}; choose a complete tokenizer"
            )
        return model.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "PublishedTokenizer":
        """Stays in evaluation mode: it is used as it is."""
        return super().train(False)

    @abstractmethod
    def check_value(self, value: ValueType) -> None:
        """Refuses an entry whose values the network does not take."""

    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Codes of a codebook, and levels."""

    @abstractmethod
    def latents(self) -> tuple[int, ...]:
        """Grid of the latents of a value."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.model.state_dict(), self.architecture)
