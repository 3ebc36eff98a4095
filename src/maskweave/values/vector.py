"""Vectors: one vector for the whole sample, such as a global embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.values.array import MAX_CHANNELS, NUMBERS, Array
from maskweave.values.base import Size, TextLabels, refuse
from maskweave.values.distribution import INTERVAL, VectorDistribution
from maskweave.values.metrics import (
    Metric,
    Weights,
    absolute_errors,
    mean,
    mean_explained_variance,
    mean_value,
    median,
    root_mean,
    squared_errors,
    variance_sums,
    weighable,
    weights_at,
)
from maskweave.values.variation import Variation

LEAST_STD = 1e-12
"""Smallest standard deviation of a distribution, relative to its mean; if that is 0, in the value's unit."""


@dataclass(frozen=True)
class Vector(Array):
    """One vector."""

    type: ClassVar[str] = "vector"
    python: ClassVar[str] = "float32 (channels,)"
    kinds: ClassVar[tuple[str, ...]] = ("grid",)
    losses = NUMBERS
    can_be_weighted: ClassVar[bool] = True
    is_embedding = True
    head: ClassVar[Any] = "numbers"
    default_metrics = ("mae",)

    channels: int = 1
    """Length of the vector."""
    unit: str = ""
    """Unit of the numbers, for figures and messages."""

    def check_settings(self, kind: str) -> None:
        self.check_array_names()
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise MaskweaveError(f"value.channels must be 1 to {MAX_CHANNELS:,}, found {self.channels}")

    def describe(self) -> str:
        return f"{self.type}, {self.channels} channels"

    def check(self, value: Any, where: str) -> np.ndarray:
        array = self.as_array(value, where)
        if array.shape != (self.channels,):
            raise refuse(where, f"shape {array.shape}", f"({self.channels},), one number per channel")
        return self.check_numbers(array, where)

    varied_by: ClassVar[tuple[str, ...]] = ("noise",)

    def vary(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        return self.with_noise(value, variation)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return torch.from_numpy(self.scale(np.stack(values))) if len(values) else torch.zeros(0, self.channels)

    def from_network(self, output: Tensor) -> np.ndarray:
        return self.unscale(output.detach().float().contiguous().cpu().numpy())

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`, `rmse`: over all channels. `r2`: the explained share of the variance of each channel, averaged over the channels. `nll`, the mean of
        -log of the predicted density at each number, in nats, and `coverage`, the share of numbers in their central 90% interval, for predictions with a
        distribution."""
        return {
            "mae": weighable("MAE", "lower", absolute_errors, mean, median),
            "rmse": weighable("RMSE", "lower", squared_errors, root_mean, mean_value),
            "r2": weighable("R²", "higher", variance_sums, mean_explained_variance, mean_value),
            "nll": weighable("NLL", "lower", _negative_log_densities, mean, self._typical),
            "coverage": weighable(f"coverage of {INTERVAL:.0%}", f"{INTERVAL:g}", _are_covered, mean, self._typical),
        }

    def gaussian_answers(self, mean_BK: np.ndarray, std_BK: np.ndarray) -> list[Any]:
        factor_C, shift_C = (np.asarray(x, np.float64) for x in self.factor_shift)
        means = (mean_BK - shift_C) / factor_C
        deviations = _above_zero(std_BK / np.abs(factor_C), means)
        return [VectorDistribution(m, s, self.unit) for m, s in zip(means, deviations, strict=True)]

    def _typical(self, values: Sequence[Any], weights: Weights = None) -> VectorDistribution:
        """The mean and the standard deviation of each number of training values."""
        center = mean_value(values, weights)
        squares = mean_value([np.square(np.asarray(value, np.float64) - center) for value in values], weights)
        return VectorDistribution(center, _above_zero(np.sqrt(squares), center), self.unit)

    @property
    def curve(self) -> bool:
        return True

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing import curves

        return curves(np.asarray(value, dtype=np.float64).reshape(-1, 1), size, span, self.unit)

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        from maskweave.values.drawing import span_of

        return span_of(values, (0, 100))


def _above_zero(std: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns standard deviations that are not 0, whatever the unit."""
    std = np.maximum(std, LEAST_STD * np.abs(mean))
    return np.where(std > 0, std, LEAST_STD)


def _negative_log_densities(prediction: Any, truth: Any, weight: np.ndarray | None = None) -> np.ndarray:
    if not isinstance(prediction, VectorDistribution):
        return np.zeros(2)
    t = np.asarray(truth, np.float64)
    counted = weights_at(np.isfinite(t), weight)
    return np.array([-(prediction.log_densities(np.nan_to_num(t)) * counted).sum(), counted.sum()])


def _are_covered(prediction: Any, truth: Any, weight: np.ndarray | None = None) -> np.ndarray:
    if not isinstance(prediction, VectorDistribution):
        return np.zeros(2)
    t = np.asarray(truth, np.float64)
    counted = weights_at(np.isfinite(t), weight)
    low, high = prediction.intervals(INTERVAL)
    return np.array([(((low <= t) & (t <= high)) * counted).sum(), counted.sum()])
