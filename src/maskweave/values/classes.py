"""Class maps: an index into a list of names at each point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values.base import Loss, TextLabels, refuse
from maskweave.values.dense import DenseIds
from maskweave.values.geometry import Geometry, nearest_along_axes, resize_nearest
from maskweave.values.metrics import Metric, class_ious, confusion, majority, majority_class, mean_iou

MAX_CLASSES = 2**16


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of (B, K, *size). Classes are weighted by the inverse root of their frequency in the batch, so that small objects count."""
    frequency_K = torch.bincount(target.flatten(), minlength=logits.shape[1]).float() / target.numel()
    weight_K = frequency_K.clamp_min(1e-4).rsqrt()
    return F.cross_entropy(logits, target, weight=weight_K)


@dataclass(frozen=True)
class Classes(DenseIds):
    """One class of a list at each point."""

    type: ClassVar[str] = "classes"
    python: ClassVar[str] = "integers (*size), indices into `classes`"
    accepts: ClassVar[tuple[str, str]] = ("ui", "whole numbers")
    losses: ClassVar[Mapping[str, Loss]] = {"cross_entropy": balanced_cross_entropy}
    can_add_noise = False
    head = "points"
    default_metrics = ("miou",)

    classes: tuple[str, ...] = ()
    """Names by index."""

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        check_classes(self.classes)
        if kind == "patches":
            raise MaskweaveError("class maps are categorical and cannot be raw patches; make it a grid")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def describe(self) -> str:
        return f"{super().describe()}, {len(self.classes)} classes"

    def describe_range(self) -> str:
        return f"0 to {len(self.classes) - 1}"

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        most = len(self.classes) - 1
        lowest, highest = int(array.min()), int(array.max())
        if lowest < 0 or highest > most:
            share = np.mean((array < 0) | (array > most))
            raise refuse(
                where,
                f"class ids from {lowest} to {highest}, {share:.2%} of them outside",
                f"0 to {most} ({len(self.classes)} classes)",
                "renumber them, or extend the entry's value.classes",
            )
        return array.astype(np.uint8 if most < 256 else np.int32)

    def resize(self, plane: np.ndarray, geometry: Geometry) -> np.ndarray:
        return resize_nearest(plane, self.size, geometry)

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        return nearest_along_axes(value, self.size)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return torch.from_numpy(self.stack(values)[..., 0].astype(np.int64))

    def from_network(self, output: Tensor) -> np.ndarray:
        """Returns the arg-max of the logits, in the smallest integer type that holds all classes."""
        return output.detach().argmax(1).cpu().numpy().astype(np.min_scalar_type(len(self.classes) - 1))

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        raise MaskweaveError("class maps are categorical and cannot be raw patches; make it a grid")

    def task_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean cross-entropy over the points, and the share of correct points (`accuracy`)."""
        logits_NK, target_N = output.movedim(1, -1).flatten(0, -2), target.flatten()
        accuracy = (logits_NK.argmax(dim=-1) == target_N).float().mean()
        return F.cross_entropy(logits_NK.float(), target_N), {"accuracy": accuracy}

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`miou`: mean intersection over union over the whole set, and that of each class; classes in neither truth nor predictions are skipped."""
        count = len(self.classes)
        statistics, constant = partial(confusion, num_classes=count), partial(majority_class, count)
        return {
            "miou": Metric(
                "mIoU",
                "higher",
                statistics,
                mean_iou,
                constant,
                names=self.classes,
                finish_parts=class_ious,
                part="IoU",
            )
        }

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        return majority(values)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        from maskweave.values.drawing import VOID, class_color

        table = np.array([*map(class_color, range(len(self.classes))), VOID], dtype=np.uint8)
        known = (array >= 0) & (array < len(self.classes))
        return table[np.where(known, array, len(self.classes))]

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import class_color, swatches

        shown = (
            range(len(self.classes))
            if values is None
            else sorted({int(i) for value in values for i in np.unique(value)})
        )
        return swatches([(self.classes[i], class_color(i)) for i in shown if 0 <= i < len(self.classes)], width)


def check_classes(classes: Sequence[str]) -> None:
    """Raise MaskweaveError unless there are classes and no duplicates."""
    if not classes:
        raise MaskweaveError("value.classes is missing: a list of names")
    if len(classes) > MAX_CLASSES:
        raise MaskweaveError(f"value.classes has {len(classes):,} names, expected at most {MAX_CLASSES:,}")
    if len(set(classes)) < len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise MaskweaveError(f"value.classes has {shown(twice)} twice; give each class its own name")
