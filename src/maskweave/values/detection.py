"""Values that are sets of boxes, as a fine-tuned head predicts them: the contract between their types, the head, its loss and the scores.

Dimension letters: M boxes, P numbers of a box.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.values.base import ValueType
from maskweave.values.bootstrap import Interval


@dataclass(frozen=True)
class Detected(ValueType):
    """A value type whose head in fine-tuning is `boxes`."""

    head = "boxes"
    box_numbers: ClassVar[int]
    """Numbers of a box for the network, all from 0 to 1 but for the last `free_numbers`. The first two are where its center appears in the picture."""
    free_numbers: ClassVar[int] = 0
    """Numbers of a box that are about −1 to 1."""

    @abstractmethod
    def box_rows(self, value: Any) -> np.ndarray:
        """Returns the boxes of a checked value for the network, float32 (M, 1 + P): the index of the class, and the numbers."""

    @abstractmethod
    def detections(self, rows: np.ndarray, names: Sequence[str], scores: Sequence[float]) -> Any:
        """Returns the value of predicted numbers (M, P); each box also has its `score`."""

    @abstractmethod
    def box_distance(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Returns the distance (…) of the numbers (…, P) of boxes."""

    @abstractmethod
    def box_overlap(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Returns the generalized intersection over union (…), −1 to 1, of boxes given by their numbers (…, P)."""

    @abstractmethod
    def detection_scores(self, found: Sequence[Any], truth: Sequence[Any]) -> dict[str, float]:
        """Returns the average precisions by name of values with scores, one for each sample."""

    @abstractmethod
    def detection_intervals(self, found: Sequence[Any], truth: Sequence[Any], seed: int = 0) -> dict[str, Interval]:
        """Returns the 95% intervals of `detection_scores`, by bootstrap over the samples."""

    def constant_detections(self, seen: Sequence[Any], found: Sequence[Any], truth: Sequence[Any]) -> list[Any] | None:
        """Returns the same detections with constants in place of what they should know better, one value for each sample; None: there is no such
        comparison.

        Args:
            seen: values of training examples.
            found: detections of the scored samples.
            truth: values of the scored samples.
        """
        return None


def box_corners(boxes: Tensor) -> Tensor:
    """Converts (…, 2 k) centers and sizes along k axes to the lowest and the highest coordinates."""
    center, half = boxes.chunk(2, dim=-1)
    half = half / 2
    return torch.cat([center - half, center + half], dim=-1)


def generalized_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Generalized intersection over union of boxes (…, 2 k) along k axes, given as corners, from -1 to 1 (https://arxiv.org/abs/1902.09630)."""

    def volume(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(dim=-1)

    (a_low, a_high), (b_low, b_high) = a.chunk(2, dim=-1), b.chunk(2, dim=-1)
    inner = volume(torch.maximum(a_low, b_low), torch.minimum(a_high, b_high))
    outer = volume(torch.minimum(a_low, b_low), torch.maximum(a_high, b_high))
    union = volume(a_low, a_high) + volume(b_low, b_high) - inner
    return inner / union.clamp(min=1e-9) - (outer - union) / outer.clamp(min=1e-9)
