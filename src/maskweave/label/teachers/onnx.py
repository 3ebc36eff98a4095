"""Teachers in the ONNX format, with onnxruntime (extra `[onnx]`): `model: NAME.onnx`.

The model takes pictures (B, 3, H, W), prepared as `derive.picture` says, and one output gives the label:

| task | output | value type |
| --- | --- | --- |
| `depth-estimation`, `map-estimation` | numbers, (B, C, h, w) or (B, h, w) | `map` |
| `normal-estimation` | directions, (B, 3, h, w), x right, y up, z towards the viewer | `direction` |
| `semantic-segmentation` | logits of `derive.labels`, (B, K, h, w) | `classes` |
| `image-classification` | logits of `derive.labels`, (B, K) | `label` |
| `image-feature-extraction` | (B, C), or (B, C, h, w) | `vector`, `features` |

Options: `output`, the name of the output, by default the first. Other models, such as detectors, whose outputs differ widely, can be called from
a Python function.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError, reason
from maskweave.files import digest
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TaskTeacher, TeacherLabel
from maskweave.label.teachers.classes import ClassTable
from maskweave.label.teachers.transformers import check_reads, scaled_down
from maskweave.modality.derivation import TeacherDerivation
from maskweave.modality.entry import Modality
from maskweave.values.base import ValueType
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.features import Features
from maskweave.values.label import Label
from maskweave.values.map import Map
from maskweave.values.vector import Vector

TASKS: dict[str, tuple[type[ValueType], ...]] = {
    "depth-estimation": (Map,),
    "map-estimation": (Map,),
    "normal-estimation": (Direction,),
    "semantic-segmentation": (Classes,),
    "image-classification": (Label,),
    "image-feature-extraction": (Vector, Features),
}
"""Value types that can hold the labels of a task."""
ERRORS = 3
"""Severity from which onnxruntime prints: it warns of thousands of harmless facts of some models."""


class OnnxTeacher(TaskTeacher):
    """A model in the ONNX format.

    Raises:
        MaskweaveError: onnxruntime is not installed, the file cannot be opened, or the entry or the settings do not fit it.
    """

    def __init__(self, settings: TeacherDerivation, entry: Modality, source: Modality, device: torch.device):
        self.settings, self.entry, self.source = settings, entry, source
        self.notes, self.where = [], f"{entry.name!r}: {settings.model}"
        types = TASKS.get(settings.task)
        if types is None or not isinstance(entry.value, types):
            possible = ", ".join(f"{task} ({', '.join(t.type for t in found)})" for task, found in TASKS.items())
            raise MaskweaveError(
                f"{self.where}: found the task {settings.task!r} for values of type {entry.value.type!r}; expected one of {possible}; call other models "
                "from a function, model: python: package.module:function"
            )
        check_reads(source, "color pictures", self.where)
        if settings.picture is None:
            raise MaskweaveError(
                f"{self.where}: the key derive.picture is missing; expected {{size: [height, width], mean: …, std: …}}"
            )
        self.picture = settings.picture
        path = Path(settings.model)
        self.session, library = _session(path, device, self.where)
        (self.input, *others), outputs = (
            self.session.get_inputs(),
            [output.name for output in self.session.get_outputs()],
        )
        self.output = str(settings.options.get("output", outputs[0]))
        if others or len(self.input.shape) != 4 or self.output not in outputs or set(settings.options) - {"output"}:
            raise MaskweaveError(
                f"{self.where}: has the inputs {[i.name for i in self.session.get_inputs()]} and the outputs {outputs}; expected one input of pictures (B, 3, H, W), "
                f"and of options only 'output', one of these; found {dict(settings.options)}"
            )
        self.table = (
            ClassTable(dict(enumerate(settings.labels)), settings, entry, self.where)
            if isinstance(entry.value, (Classes, Label))
            else None
        )
        self.notes += self.table.notes if self.table else []
        self.provenance = {
            "model": settings.model,
            "task": settings.task,
            "revision": f"sha256:{digest(path)}",
            "license": settings.license or "unknown",
            "onnxruntime": library,
        }

    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel | None]:
        pictures = [np.asarray(sample[self.source.name])[..., :3] for sample in samples]
        batch = torch.cat([self._input(picture) for picture in pictures]).numpy()
        outputs = torch.from_numpy(self._run(batch)).float()
        return [
            self._label(output, scaled_down(picture.shape[:2], self.settings.side))
            for output, picture in zip(outputs, pictures, strict=True)
        ]

    def _input(self, picture: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float() / 255
        x = F.interpolate(x, self.picture.size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (torch.tensor(c).view(3, 1, 1) for c in (self.picture.mean, self.picture.std))
        return ((x.flip(1) if self.picture.bgr else x) - mean) / std

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the model; one whose batch has a fixed size gets it filled up with zeros."""
        fixed = self.input.shape[0] if isinstance(self.input.shape[0], int) else len(batch)
        results = []
        for start in range(0, len(batch), fixed):
            some = batch[start : start + fixed]
            filled = np.concatenate([some, np.zeros((fixed - len(some), *some.shape[1:]), np.float32)])
            try:
                (output,) = self.session.run([self.output], {self.input.name: filled})
            except Exception as error:  # onnxruntime's exceptions have no common class
                raise MaskweaveError(
                    f"{self.where}: cannot compute pictures of {self.picture.size}: {reason(error)}"
                ) from error
            results.append(output[: len(some)])
        return np.concatenate(results)

    def _label(self, output: Tensor, size: tuple[int, int]) -> TeacherLabel | None:
        value = self.entry.value
        if isinstance(value, Label):
            assert self.table is not None
            shares = self._shaped(output, 1).softmax(0)
            name = self.table.name(int(shares.argmax()))
            return None if name is None else TeacherLabel(name, float(shares.max()))
        if isinstance(value, Vector):
            return TeacherLabel(self._shaped(output, 1).numpy())
        if isinstance(value, Features):
            return TeacherLabel(self._shaped(output, 3).movedim(0, -1).numpy())
        plane = self._shaped(output[None] if output.ndim == 2 else output, 3)
        plane = F.interpolate(plane[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        if isinstance(value, Classes):
            assert self.table is not None
            shares = plane.softmax(0)
            return TeacherLabel(self.table.map(shares.argmax(0).numpy()), shares.amax(0).numpy())
        if isinstance(value, Direction):
            plane = F.normalize(plane, dim=0)
        return TeacherLabel(plane.movedim(0, -1).numpy())

    def _shaped(self, output: Tensor, axes: int) -> Tensor:
        if output.ndim != axes or (self.table is not None and len(output) != len(self.settings.labels)):
            classes = f" for {len(self.settings.labels)} labels" if self.table else ""
            raise MaskweaveError(
                f"{self.where}: the output {self.output!r} has the shape {tuple(output.shape)} for each picture; expected {axes} axes{classes}; choose another "
                "with derive.options.output, or correct derive.labels"
            )
        return output


def _session(path: Path, device: torch.device, where: str) -> tuple[Any, str]:
    """Opens a model; returns it with the version of onnxruntime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MaskweaveError(f"{where}: needs onnxruntime; install it with: pip install 'maskweave[onnx]'") from error
    if not path.is_file():
        raise MaskweaveError(f"{where}: no such file; expected a model in the ONNX format")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    options.intra_op_num_threads = torch.get_num_threads()
    gpu = ("CUDAExecutionProvider", {"device_id": device.index or 0})
    wanted = [gpu] if device.type == "cuda" and gpu[0] in onnxruntime.get_available_providers() else []
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[*wanted, "CPUExecutionProvider"]
        ), onnxruntime.__version__
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise MaskweaveError(f"{where}: cannot be opened as a model in the ONNX format ({reason(error)})") from error
