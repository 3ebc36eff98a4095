"""Weights of numbers, such as inverse variances, in losses and scores.

Raw weights may have any unit. They are clipped at a high quantile, so that a few huge ones do not decide everything, and divided by their mean, channel by
channel. Both are taken over the weights above 0 of the values at hand: the training values of a tokenizer, or the values that are scored. A weight of 0 makes
a point unknown; a vector has no unknown points, so a number of weight 0 adds nothing to a loss, which is the mean over all numbers.

Shapes: S values; *size points, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskweave.values.formats.numpy_rows import NpyRows

CLIPPED_AT = 0.99
"""Weights above this quantile of the positive ones count as much as it."""
POINTS = 2**20
"""Most weights of a channel that quantile and mean are computed from."""


@dataclass(frozen=True)
class Weighting:
    """How raw weights (…, C) are scaled, channel by channel."""

    most: tuple[float, ...]
    """(C,) largest raw weight; larger ones are clipped to it."""
    mean: tuple[float, ...]
    """(C,) mean of the clipped weights above 0."""

    @classmethod
    def fit(cls, weights: np.ndarray | Sequence[np.ndarray] | NpyRows, channels: int) -> "Weighting":
        """Returns the scaling of raw weights (S, *size[, C]): 0 at unknown points, and NaN in values without weights."""
        rows = _some(weights, channels)
        most, means = [], []
        for column in rows.T:
            positive = column[column > 0].astype(np.float64)
            highest = float(np.quantile(positive, CLIPPED_AT)) if len(positive) else 1.0
            most.append(highest)
            means.append(float(np.minimum(positive, highest).mean()) if len(positive) else 1.0)
        return cls(tuple(most), tuple(means))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Scales raw weights (…[, C]) so that those above 0 are 1 on average, float32; NaN, where there is no weight, becomes 1."""
        rows = np.asarray(weights, np.float64).reshape(-1, len(self.most))
        scaled = np.minimum(rows, self.most) / self.mean
        return np.where(np.isnan(scaled), 1, scaled).astype(np.float32).reshape(np.shape(weights))


def _some(weights: np.ndarray | Sequence[np.ndarray] | NpyRows, channels: int) -> np.ndarray:
    """Returns weights of some or all points, evenly spread over the values, (points, C)."""
    count = len(weights)
    if not count:
        return np.zeros((0, channels), np.float32)
    each = max(np.size(weights[0]) // channels, 1)
    chosen = np.linspace(0, count - 1, min(count, max(POINTS // each, 1))).astype(int)
    rows = np.concatenate([np.asarray(weights[i]).reshape(-1, channels) for i in chosen])
    return rows[:: max(len(rows) // POINTS, 1)]
