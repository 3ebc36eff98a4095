"""Binary maps: yes or no at each point, such as edges or a cloud mask."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from maskweave.values.array import affine
from maskweave.values.base import Loss, TextLabels, refuse
from maskweave.values.dense import DenseIds
from maskweave.values.geometry import Geometry, resize_area, resize_axes
from maskweave.values.measures import canny
from maskweave.values.metrics import Metric, disagreement, f1_of_marks, frequent_marks, majority, matched_marks


def balanced_binary(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with targets -1 and 1.

    The rarer class is weighted by the fourth root of the ratio; full balance would thicken thin lines.
    """
    truth = (target > 0).float()
    share = truth.mean().clamp(1e-3, 1 - 1e-3)
    return F.binary_cross_entropy_with_logits(logits, truth, pos_weight=((1 - share) / share) ** 0.25)


@dataclass(frozen=True)
class Binary(DenseIds):
    """True or false at each point."""

    type: ClassVar[str] = "binary"
    python: ClassVar[str] = "bool (*size)"
    accepts: ClassVar[tuple[str, str]] = ("bui", "true or false")
    losses: ClassVar[Mapping[str, Loss]] = {"binary": balanced_binary}
    default_metrics = ("f1",)
    is_mask = True
    report_facts = ("tolerance",)
    derivations: ClassVar[Mapping[str, Callable[[Any, np.ndarray], Any]]] = {
        "canny": lambda value, picture: canny(picture)
    }

    tolerance: int = 1
    """A predicted mark counts if it is at most this many points off along each axis."""

    def describe_range(self) -> str:
        return "0 or 1"

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        if array.dtype != bool:
            highest = int(array.max())
            if highest not in (0, 1, 255) or not ((array == 0) | (array == highest)).all():
                raise refuse(
                    where, f"values from {int(array.min())} to {highest}", "0 and 1, 0 and 255, or true and false"
                )
        return array.astype(bool)

    def resize(self, plane: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Average, then threshold so that lines one point wide survive."""
        left, top, right, bottom = geometry.window(*plane.shape[:2])
        shrink = max((right - left) / self.size[1], (bottom - top) / self.size[0], 1.0)
        # A line one point wide covers 1/shrink of a target point, or half of that if it lies across two.
        return resize_area(plane.astype(np.float32), self.size, geometry, sharp=True) >= 0.5 / shrink - 1e-4

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        return resize_axes(value, self.size, largest=True) > 0.5

    def scale(self, array: np.ndarray) -> np.ndarray:
        """Scale to -1 and 1."""
        return affine(array, np.full(1, 2, np.float32), np.full(1, -1, np.float32))

    def from_network(self, output: Tensor) -> np.ndarray:
        """True where the logit is above 0."""
        return (output.detach()[:, 0] > 0).cpu().numpy()

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`f1`: over all points of the set, with the entry's tolerance."""
        marks = partial(matched_marks, tolerance=self.tolerance)
        return {"f1": Metric("F1", "higher", marks, f1_of_marks, partial(frequent_marks, marks))}

    def from_blend(self, mean: np.ndarray) -> np.ndarray:
        """Returns the votes of at least one half."""
        return np.nan_to_num(mean[..., 0]) >= 0.5

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        return majority(values)

    def spread(self, values: Sequence[np.ndarray]) -> np.ndarray | None:
        return disagreement(values)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        return np.where(array[..., None].astype(bool), np.uint8(245), np.uint8(24)).repeat(3, axis=-1)
