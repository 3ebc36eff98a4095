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
from maskweave.values.metrics import (
    Metric,
    class_ious,
    confusion,
    disagreement,
    majority,
    majority_class,
    mean_iou,
    mean_iou_of_truth,
)
from maskweave.values.unknown import UNKNOWN_ID

MAX_CLASSES = 2**16


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of (B, K, *size) over the points that are not −1. Classes are weighted by the inverse root of their frequency in the batch, so that small objects count."""
    counts_K = torch.bincount(target.flatten() + 1, minlength=logits.shape[1] + 1)[1:]
    weight_K = (counts_K.float() / counts_K.sum().clamp_min(1)).clamp_min(1e-4).rsqrt()
    return known_cross_entropy(logits, target, weight_K)


def known_cross_entropy(logits: Tensor, target: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """Weighted mean of the cross-entropy over the points that are not −1; 0 if there are none."""
    if not target.numel() or not bool((target >= 0).any()):
        return logits.sum() * 0
    return F.cross_entropy(logits, target, weight=weight_K, ignore_index=UNKNOWN_ID)


@dataclass(frozen=True)
class Classes(DenseIds):
    """One class of a list at each point."""

    type: ClassVar[str] = "classes"
    python: ClassVar[str] = "integers (*size), indices into `classes`, -1 at unknown points"
    one_or_list: ClassVar[tuple[str, ...]] = ("fit", "ignore")
    how_unknown: ClassVar[str] = "set value.ignore: 255, for instance"
    accepts: ClassVar[tuple[str, str]] = ("ui", "whole numbers")
    losses: ClassVar[Mapping[str, Loss]] = {"cross_entropy": balanced_cross_entropy}
    can_add_noise = False
    head = "points"
    default_metrics = ("miou",)

    classes: tuple[str, ...] = ()
    """Names by index."""
    ignore: tuple[int, ...] = ()
    """Points may be unknown: -1, and these ids, such as 255. Without this setting, they are refused. A value without any known point counts as
    missing."""

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        check_classes(self.classes)
        if len(self.ignore) > MAX_CLASSES or any(not 0 <= id < MAX_CLASSES for id in self.ignore):
            raise MaskweaveError(
                f"value.ignore must be ids from 0 to {MAX_CLASSES - 1:,}, found {shown(list(self.ignore))}"
            )
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
        most, least = len(self.classes) - 1, 0
        if self.ignore:
            least = UNKNOWN_ID
            array = np.where(np.isin(array, self.ignore), UNKNOWN_ID, array.astype(np.int64))
        lowest, highest = int(array.min()), int(array.max())
        if lowest < least or highest > most:
            share = np.mean((array < least) | (array > most))
            raise refuse(
                where,
                f"class ids from {lowest} to {highest}, {share:.2%} of them outside",
                f"0 to {most} ({len(self.classes)} classes)",
                "renumber them, extend the entry's value.classes, or list ids that mean unknown in value.ignore",
            )
        if lowest < 0:
            return array.astype(np.int16 if most < 2**15 else np.int32)
        return array.astype(np.uint8 if most < 256 else np.int32)

    @property
    def has_unknown(self) -> bool:
        return bool(self.ignore)

    @property
    def padding(self) -> Any:
        return UNKNOWN_ID if self.has_unknown else None

    @property
    def input_channels(self) -> int:
        """Ids of a tokenizer's input: the classes, and unknown."""
        return len(self.classes) + self.has_unknown

    def hide(self, value: np.ndarray, known: np.ndarray) -> np.ndarray:
        signed = value.astype(np.int16 if len(self.classes) <= 2**15 else np.int32)
        return np.where(known, signed, signed.dtype.type(UNKNOWN_ID))

    def is_missing(self, value: Any) -> bool:
        return self.has_unknown and not self.known(value).any()

    def write(self, value: Any) -> tuple[bytes, str]:
        if self.ignore:
            value = np.where(value < 0, self.ignore[0], value)
        return super().write(value)

    def known_loss(self, loss: Loss) -> Loss:
        return loss  # it skips −1

    def resize(self, plane: np.ndarray, geometry: Geometry) -> np.ndarray:
        return resize_nearest(plane, self.size, geometry)

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        return nearest_along_axes(value, self.size)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return torch.from_numpy(self.stack(values)[..., 0].astype(np.int64))  # −1 at unknown points

    def from_network(self, output: Tensor) -> np.ndarray:
        """Returns the arg-max of the logits, in the smallest integer type that holds all classes."""
        return output.detach().argmax(1).cpu().numpy().astype(np.min_scalar_type(len(self.classes) - 1))

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        raise MaskweaveError("class maps are categorical and cannot be raw patches; make it a grid")

    def task_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean cross-entropy over the points, and the share of correct points (`accuracy`)."""
        logits_NK, target_N = output.movedim(1, -1).flatten(0, -2), target.flatten()
        correct = (logits_NK.argmax(dim=-1) == target_N).sum()
        return known_cross_entropy(logits_NK.float(), target_N), {
            "accuracy": correct / (target_N >= 0).sum().clamp_min(1)
        }

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`miou`: mean intersection over union over the whole set, and that of each class; classes in neither truth nor predictions are skipped.
        `miou_of_truth`: the mean over the classes in the truth."""
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
            ),
            "miou_of_truth": Metric("mIoU of the truth's classes", "higher", statistics, mean_iou_of_truth, constant),
        }

    def to_blend(self, value: Any) -> np.ndarray:
        """One vote for each point's class."""
        ids = np.asarray(value)[..., None]
        return np.where(ids < 0, np.nan, ids == np.arange(len(self.classes))).astype(np.float32)

    def from_blend(self, mean: np.ndarray) -> np.ndarray:
        """Returns the class with the highest mean vote or probability."""
        unknown = np.isnan(mean).any(axis=-1)
        ids = np.nan_to_num(mean).argmax(axis=-1)
        return self.check_numbers(np.where(unknown, UNKNOWN_ID, ids) if self.has_unknown else ids, "blended")

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        if not self.has_unknown:
            return majority(values)
        votes = np.stack([np.sum([value == k for value in values], axis=0) for k in range(len(self.classes))])
        return np.where(votes.any(axis=0), votes.argmax(axis=0), UNKNOWN_ID).astype(np.result_type(*values))

    def spread(self, values: Sequence[np.ndarray]) -> np.ndarray | None:
        return disagreement(values)

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
