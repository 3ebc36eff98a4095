"""Teachers of the transformers library (extra `[hf]`): opening a model from a folder or the Hub, and batches of its inputs.

Only safetensors weights are read, and no code of a repository runs. Pictures are prepared by the model's own processor, one by one; those of
equal shape are computed together.
"""

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import yaml

from maskweave.errors import MaskweaveError, reason, shown
from maskweave.generate.request import Sample
from maskweave.hub import folder_of
from maskweave.label.teachers.base import TaskTeacher, TeacherLabel
from maskweave.modality.derivation import TeacherDerivation
from maskweave.modality.entry import Modality
from maskweave.values.audio import Audio
from maskweave.values.base import ValueType

MAY_LACK = ("pooler", "masked_spec_embed")
"""Parts of names of weights that checkpoints may lack, as they are not used then."""
FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")
"""Files of a repository that a model needs."""


class TransformersTeacher(TaskTeacher):
    """A model and its processor.

    Args:
        settings: the entry's `derive`.
        entry: what is labeled.
        source: the entry of the model's inputs.

    Raises:
        MaskweaveError: transformers is not installed, the model cannot be opened or is of another task, or the entry cannot hold its labels.
    """

    auto_classes: ClassVar[tuple[str, ...]]
    """Classes of transformers for its task; the first that knows the architecture opens the model."""
    processor_class: ClassVar[str] = "AutoImageProcessor"
    reads: ClassVar[str] = "color pictures"
    values: ClassVar[tuple[type[ValueType], ...]]
    """Value types that can hold its labels."""

    def __init__(self, settings: TeacherDerivation, entry: Modality, source: Modality, device: torch.device):
        self.settings, self.entry, self.source, self.device = settings, entry, source, device
        self.where = f"{entry.name!r}: {settings.model}"
        self.notes = []
        self.check_entry()
        folder = folder_of(
            settings.model,
            FILES,
            "a folder or Hub id of a model of the transformers library",
            settings.revision or None,
        )
        transformers = _library(settings.model)
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self.processor: Any = self.load_processor(transformers, folder)
            model: Any
            model, report = self._class_for(transformers, config).from_pretrained(
                folder,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:  # transformers, safetensors and huggingface_hub have no common class
            raise MaskweaveError(
                f"{self.where}: cannot be opened for the task {settings.task!r}; expected a model of transformers for it, with safetensors weights ({reason(error)})"
            ) from error
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()
        if lost := lost_weights(report):
            raise MaskweaveError(
                f"{self.where}: its weights lack {', '.join(lost[:5])} ({len(lost)} in all), so it was not trained for {settings.task!r}; choose a model of this task"
            )
        self.model = model.eval().to(device)
        self.provenance = {
            "model": settings.model,
            "task": settings.task,
            "revision": _revision(folder),
            "license": settings.license or _license(folder) or "unknown",
            "architecture": type(model).__name__,
            "transformers": transformers.__version__,
        }
        self.prepare()

    def _class_for(self, transformers: Any, config: Any) -> Any:
        for name in self.auto_classes:
            found = getattr(transformers, name)
            if type(config) in getattr(found, "_model_mapping", ()) or isinstance(
                config, getattr(found, "config_class", ())
            ):
                return found
        raise ValueError(f"models of type {config.model_type!r} are not for it")

    def check_entry(self) -> None:
        """Refuse an entry that cannot hold the labels, or whose source the model cannot read."""
        if not isinstance(self.entry.value, self.values):
            types = ", ".join(value.type for value in self.values)
            raise MaskweaveError(
                f"{self.where}: the task {self.settings.task!r} gives values of type {types}, but the entry's type is {self.entry.value.type!r}"
            )
        check_reads(self.source, self.reads, self.where)

    def load_processor(self, transformers: Any, folder: Path) -> Any:
        options = {"backend": "pil"} if self.processor_class == "AutoImageProcessor" else {}
        return getattr(transformers, self.processor_class).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )

    def prepare(self) -> None:
        """Work out once what the labels need, such as classes."""

    def check_processor(self, function: str, option: str) -> None:
        """Refuse a model whose processor does not make the labels, or not with this option."""
        process = getattr(self.processor, function, None)
        if process is None or option not in inspect.signature(process).parameters:
            raise MaskweaveError(
                f"{self.where}: models of type {self.model.config.model_type!r} are not for {self.settings.task} here; choose a Mask2Former or MaskFormer"
            )

    def check_width(self, width: int) -> None:
        """Refuse an entry whose vectors have another length than the model's."""
        if width != self.entry.value.channels:
            raise MaskweaveError(
                f"{self.where}: its vectors have {width} channels, but the entry's have {self.entry.value.channels}; set value.channels: {width}"
            )

    def option(self, name: str, default: Any) -> Any:
        """Returns an option of the task, which must have the type of its default."""
        given = self.settings.options.get(name, default)
        if isinstance(default, float) and isinstance(given, int) and not isinstance(given, bool):
            given = float(given)
        if type(given) is not type(default):
            raise MaskweaveError(
                f"{self.where}: derive.options.{name} is {shown(given)}; expected one like {default!r}"
            )
        return given

    def pictures(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Returns the pictures, uint8 (H, W, 3)."""
        return [np.asarray(sample[self.source.name])[..., :3] for sample in samples]

    def groups(self, inputs: Sequence[Any]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yields the model's inputs, on its device, in groups of equal shape, each with the numbers of its samples.

        Args:
            inputs: what the processor returned for each sample, tensors of a batch of one.
        """
        alike: dict[Any, list[int]] = {}
        tensors = [{k: v for k, v in item.items() if isinstance(v, torch.Tensor)} for item in inputs]
        for i, item in enumerate(tensors):
            alike.setdefault(tuple((k, tuple(v.shape)) for k, v in item.items()), []).append(i)
        for numbers in alike.values():
            yield (
                numbers,
                {k: torch.cat([tensors[i][k] for i in numbers]).to(self.device) for k in tensors[numbers[0]]},
            )

    def compute(self) -> Any:
        """Context in which the model runs."""
        low = self.settings.precision == "bfloat16" and self.device.type == "cuda"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    def generate(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        """Returns the most probable tokens, one after the other, with their logits. What transformers warns of then is about its own arguments."""
        log = _library(self.settings.model).utils.logging
        verbosity = log.get_verbosity()
        log.set_verbosity_error()
        try:
            with self.compute():
                return self.model.generate(
                    **inputs, do_sample=False, num_beams=1, output_logits=True, return_dict_in_generate=True, **options
                )
        finally:
            log.set_verbosity(verbosity)

    def label_size(self, picture: np.ndarray) -> tuple[int, int]:
        """Height and width of a dense label."""
        return scaled_down(picture.shape[:2], self.settings.side)


class PictureTeacher(TransformersTeacher):
    """A model that is called with pictures and whose outputs have one row for each."""

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        pictures = self.pictures(samples)
        found: dict[int, TeacherLabel] = {}
        for numbers, inputs in self.groups([self.processor(images=p, return_tensors="pt") for p in pictures]):
            with self.compute():
                outputs = self.model(**inputs)
            tensors = {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
            for j, i in enumerate(numbers):
                one = SimpleNamespace(**{name: value[j : j + 1].float() for name, value in tensors.items()})
                found[i] = self.label(one, pictures[i])
        return [found[i] for i in range(len(samples))]

    @abstractmethod
    def label(self, outputs: Any, picture: np.ndarray) -> TeacherLabel:
        """Returns the label of one picture.

        Args:
            outputs: the model's tensors, float32, as a batch of one.
            picture: uint8 (H, W, 3), as it was given.
        """


def lost_weights(report: Mapping[str, Any]) -> list[str]:
    """Returns the names of weights that a checkpoint lacks, which are random therefore.

    Args:
        report: what `from_pretrained` tells with `output_loading_info`.
    """
    return sorted(name for name in report["missing_keys"] if not any(part in name for part in MAY_LACK))


def scaled_down(shape: Sequence[int], side: int) -> tuple[int, int]:
    """Returns a picture's height and width, scaled down so that the shorter one is `side`; 0: as they are."""
    height, width = shape
    scale = min(1.0, side / min(height, width)) if side else 1.0
    return max(1, round(height * scale)), max(1, round(width * scale))


def check_reads(source: Modality, reads: str, where: str) -> None:
    """Refuse a modality that a teacher cannot read: `color pictures`, `text` or `sounds`.

    Raises:
        MaskweaveError: names the modality and what was expected.
    """
    value = source.value
    if not {"color pictures": value.is_picture, "text": value.is_text, "sounds": isinstance(value, Audio)}[reads]:
        raise MaskweaveError(f"{where}: reads {reads}, but derive.from is {source.name!r} of type {value.type!r}")


def _library(model: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MaskweaveError(
            f"{model}: teachers need transformers; install it with: pip install 'maskweave[hf]'"
        ) from error
    return transformers


def _revision(folder: Path) -> str:
    """Returns the commit of a repository in the Hub's cache; otherwise a hash of the model's files."""
    if folder.parent.name == "snapshots":
        return folder.name
    content = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.json")):
        with open(path, "rb") as file:
            content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{content.hexdigest()[:16]}"


def _license(folder: Path) -> str:
    """Returns the license in the header of a repository's README; empty if there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    start, _, rest = path.read_text(encoding="utf-8", errors="replace")[: 2**16].partition("---\n")
    try:
        header = yaml.safe_load(rest.partition("\n---")[0]) if not start.strip() and rest else None
    except yaml.YAMLError:
        return ""
    return str(header.get("license_name") or header.get("license") or "") if isinstance(header, dict) else ""
