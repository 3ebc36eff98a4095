"""A bundle: a trained model with its tokenizers and modality entries, ready to predict any modality from any others."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskweave.catalogues import Catalogue
from maskweave.data import codecs, transforms
from maskweave.data.values import check_content
from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.decode import generate_tokens
from maskweave.generate.known import Known, check_request
from maskweave.generate.result import Generated
from maskweave.modality import STRUCTURED_TYPES, Decoding, Modality
from maskweave.model.fourm import FourM
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.train import saving

Sample = Mapping[str, Any]


class Bundle:
    """A model, its tokenizers and its modalities.

    Args:
        folder: where it was loaded from, for messages.
    """

    def __init__(
        self, catalogue: Catalogue, tokenizers: Mapping[str, Tokenizer], model: FourM, folder: Path | None = None
    ):
        self.catalogue, self.tokenizers, self.model, self.folder = catalogue, dict(tokenizers), model.eval(), folder

    def __repr__(self) -> str:
        return f"Bundle({self.folder}, modalities: {', '.join(self.catalogue)})"

    def to(self, device: torch.device | str) -> "Bundle":
        """Move the model and the tokenizers' networks; returns itself."""
        for part in (self.model, *self.tokenizers.values()):
            if isinstance(part, torch.nn.Module):
                part.to(device)
        return self

    def generate(
        self,
        inputs: Sample,
        targets: Sequence[str],
        *,
        seed: int = 0,
        chain: bool = True,
        decoding: Mapping[str, Decoding] | None = None,
    ) -> Generated:
        """Predict `targets` from `inputs`.

        Args:
            inputs: value by modality: an array, a PIL image, a string, or the path of a file. Pictures of other sizes are cropped to
                the centre and resized. Text modalities take text; a path only as a `pathlib.Path`.
            targets: in the order of generation. An input-only modality stands for the grid made from the same values.
            seed: fixes the result.
            chain: each finished target joins the inputs of the next; otherwise every target is predicted from `inputs` alone.
            decoding: scheme, steps, temperature and cuts of single targets, in place of the entries' own.

        Returns:
            values by modality, in their units.

        Raises:
            MaskweaveError: an unknown modality, a target that cannot be predicted, or an input that does not fit; before any work.
        """
        return self.generate_batch([inputs], targets, seeds=[seed], chain=chain, decoding=decoding)[0]

    def generate_batch(
        self,
        inputs: Sequence[Sample],
        targets: Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        chain: bool = True,
        decoding: Mapping[str, Decoding] | None = None,
        batch_size: int = 64,
    ) -> list[Generated]:
        """`generate` for many samples, which may have different inputs, `batch_size` at a time.

        Args:
            seeds: one per sample; 0, 1, 2, ... by default. A sample's result does not depend on its place in the batch.
        """
        seeds = range(len(inputs)) if seeds is None else seeds
        if len(seeds) != len(inputs):
            raise MaskweaveError(f"{len(inputs)} samples need as many seeds, found {len(seeds)}")
        if min(seeds, default=0) < 0:
            raise MaskweaveError(f"a seed must be 0 or more, found {min(seeds)}")
        resolved = check_request(self.catalogue, list({name: None for sample in inputs for name in sample}), targets)
        for name in decoding or {}:
            if name not in resolved:
                raise MaskweaveError(f"decoding names {name!r}, which is not among the targets {', '.join(resolved)}")
            if self.catalogue[name].kind == "grid" and decoding[name].scheme == "autoregressive":  # type: ignore[index]
                raise MaskweaveError(
                    f"decoding of {name!r}: scheme 'autoregressive' is for sequences; a grid takes 'maskgit' or 'roar'"
                )
        read = [self.read(sample) for sample in inputs]
        results: list[Generated] = []
        for start in range(0, len(read), batch_size):
            chunk = slice(start, start + batch_size)
            results += self._generate(read[chunk], targets, resolved, seeds[chunk], chain, decoding or {})
        return results

    def read(self, inputs: Sample) -> dict[str, Any]:
        """Inputs in any accepted form as checked values of their entries' sizes.

        Raises:
            MaskweaveError: a value does not fit its entry; says what was found and what is expected.
        """
        values = {}
        for name, value in inputs.items():
            modality = self.catalogue[name]
            is_path = isinstance(value, os.PathLike) or (isinstance(value, str) and modality.value.type != "text")
            if is_path:
                path = Path(value)
                if not _is_file(path):
                    raise MaskweaveError(f"input {name!r}: {str(path)[:200]}: no such file")
                value = codecs.decode(path.read_bytes(), path.suffix[1:].lower(), modality, f"input {name!r}: {path}")
            else:
                if modality.value.type not in STRUCTURED_TYPES:
                    value = _as_array(value, modality)
                value = check_content(value, modality, f"input {name!r}")
            values[name] = value
        try:
            return transforms.fit(values, self.catalogue)
        except BadSample as error:
            raise MaskweaveError(f"inputs: {error}") from error

    @torch.inference_mode()
    def _generate(
        self,
        samples: Sequence[Sample],
        targets: Sequence[str],
        resolved: Sequence[str],
        seeds: Sequence[int],
        chain: bool,
        decoding: Mapping[str, Decoding],
    ) -> list[Generated]:
        given = Known.from_values(self.catalogue, samples, self.tokenizers)
        generators = [np.random.default_rng(seed) for seed in seeds]
        known = given
        results = [Generated(self.catalogue, dict(sample)) for sample in samples]
        for target, name in zip(targets, resolved, strict=True):
            known = known if chain else given.copy()
            known.forget(name)
            generate_tokens(self.model, known, name, decoding.get(name, self.catalogue[name].decoding), generators)
            tokenizer = self.tokenizers[name]
            ids = [row[mask] for row, mask in zip(known.ids[name], known.mask[name], strict=True)]
            if isinstance(tokenizer, SequenceTokenizer):
                decoded = tokenizer.decode_with_problems(ids)
                for result, item in zip(results, decoded, strict=True):
                    result.values[target] = item.value
                    if item.problems:
                        result.problems[target] = item.problems
            else:
                for result, value in zip(results, tokenizer.decode(np.stack(ids)), strict=True):
                    result.values[target] = value
            for result, row in zip(results, ids, strict=True):
                result.tokens[name] = row
        return results


def _as_array(value: Any, modality: Modality) -> np.ndarray:
    """A PIL image, an array, or whatever NumPy makes one of."""
    if modality.value.type == "image" and isinstance(value, Image.Image):
        value = value.convert({1: "L", 3: "RGB", 4: "RGBA"}[modality.value.channels])
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise MaskweaveError(
            f"input {modality.name!r}: found {type(value).__name__}, expected an array, a PIL image or a path ({error})"
        ) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # text that is too long to be a name
        return False


def load(folder_or_hub_id: str | os.PathLike[str], device: torch.device | str = "cpu") -> Bundle:
    """Open a bundle: the folder of a finished run, or the id of one on the Hugging Face Hub (`owner/name`).

    Raises:
        MaskweaveError: no such folder, an unfinished run, damaged files, or parts that do not belong together.
    """
    folder = Path(folder_or_hub_id)
    if (
        not folder.exists()
        and str(folder_or_hub_id).count("/") == 1
        and not str(folder_or_hub_id).startswith((".", "/", "~", "runs/"))
    ):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            folder = Path(
                snapshot_download(
                    str(folder_or_hub_id),
                    allow_patterns=[
                        "modalities.yaml",
                        "recipe.yaml",
                        "model/*",
                        "tokenizers/*/*.json",
                        "tokenizers/*/*.safetensors",
                    ],
                )
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise MaskweaveError(
                f"{folder_or_hub_id}: neither a folder here nor a bundle on the Hub that can be reached ({error})"
            ) from error
    catalogue = saving.load_saved_catalogue(folder)
    model = saving.load_model(folder, catalogue)
    return Bundle(catalogue, saving.load_tokenizers(folder / "tokenizers", catalogue), model, folder).to(device)
