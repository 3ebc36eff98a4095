"""Predicted distributions of a value: what a model says about a number or a class, beyond its single best answer.

Metrics accept a distribution wherever they accept a value.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, Self

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.values.scales import Scale, from_scale, to_scale

INTERVAL = 0.9
"""Share of the probability in the interval whose coverage is scored."""
GAUSSIAN_BINS, GAUSSIAN_SPAN = 256, 8.0
"""Bins of a normal distribution, and standard deviations that they reach to each side."""
TAIL = 5.0
"""Density of the bin next to a tail beyond the outer quantiles, relative to the tail."""


class Distribution(ABC):
    """A predicted distribution of a value."""

    @property
    @abstractmethod
    def value(self) -> Any:
        """The best single answer, in the Python form of the value type."""

    @classmethod
    @abstractmethod
    def mixture(cls, members: Sequence[Self]) -> Self:
        """Returns the average of several distributions of the same value."""

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Returns the distribution as content for a JSON file."""


def point(prediction: Any) -> Any:
    """Returns a prediction's single value, whether it is a distribution or a value."""
    return prediction.value if isinstance(prediction, Distribution) else prediction


@dataclass(frozen=True, eq=False)
class NumberDistribution(Distribution):
    """A distribution of a number, constant within each of K bins."""

    edges: np.ndarray
    """(K + 1,) ascending, in `unit`."""
    centers: np.ndarray
    """(K,) typical value of each bin."""
    probabilities: np.ndarray
    """(K,) they add up to 1."""
    unit: str = ""
    scale: Scale = "linear"
    """On which `value` is the mean."""
    softening: float = 1.0
    """Of scale `asinh`."""

    @classmethod
    def gaussian(
        cls, mean: float, std: float, unit: str = "", scale: Scale = "linear", softening: float = 1.0
    ) -> "NumberDistribution":
        """Returns the normal distribution with this mean and standard deviation, both on the scale, in 256 bins from -8 to 8 standard deviations."""
        edges = np.linspace(-GAUSSIAN_SPAN, GAUSSIAN_SPAN, GAUSSIAN_BINS + 1)
        reached = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in edges])
        on_scale = mean + std * edges
        centers = (on_scale[1:] + on_scale[:-1]) / 2
        at = [from_scale(x, scale, softening) for x in (on_scale, centers)]
        p = np.diff(reached)
        return cls(at[0], at[1], p / p.sum(), unit, scale, softening)

    @classmethod
    def of_bins(
        cls,
        edges: Any,
        centers: Any,
        probabilities: Any,
        unit: str = "",
        scale: Scale = "linear",
        softening: float = 1.0,
    ) -> "NumberDistribution":
        """Returns the distribution with these bins, whose edges and centers are on the scale."""
        at = [from_scale(x, scale, softening) for x in (edges, centers)]
        return cls(at[0], at[1], np.asarray(probabilities, np.float64), unit, scale, softening)

    @classmethod
    def from_quantiles(
        cls, levels: Any, numbers: Any, unit: str = "", scale: Scale = "linear", softening: float = 1.0
    ) -> "NumberDistribution":
        """Returns the distribution with these quantiles, which is constant between them on the unit.

        Args:
            levels: (Q,) ascending shares within 0 to 1, Q ≥ 2. Each tail is as dense as a fifth of the bin next to it.
            numbers: (Q,) the quantiles on the scale; they are sorted, and equal ones are set apart.
        """
        levels, inner = np.asarray(levels, np.float64), np.sort(np.asarray(numbers, np.float64))
        least = 1e-6 * max(float(inner[-1] - inner[0]), 1e-6 * max(1.0, float(np.abs(inner).max())))
        inner = inner[0] + np.concatenate([[0.0], np.cumsum(np.maximum(np.diff(inner), least))])
        gaps, shares = np.diff(inner), np.diff(levels)
        low = inner[0] - TAIL * gaps[0] * levels[0] / shares[0]
        high = inner[-1] + TAIL * gaps[-1] * (1 - levels[-1]) / shares[-1]
        on_scale = np.concatenate([[low] if levels[0] > 0 else [], inner, [high] if levels[-1] < 1 else []])
        p = np.diff(np.concatenate([[0.0] if levels[0] > 0 else [], levels, [1.0] if levels[-1] < 1 else []]))
        at = [from_scale(x, scale, softening) for x in (on_scale, (on_scale[1:] + on_scale[:-1]) / 2)]
        return cls(at[0], at[1], p / p.sum(), unit, scale, softening)

    @property
    def value(self) -> float:
        """The mean on the scale; for `log`, the geometric mean."""
        on_scale = self.probabilities @ to_scale(self.centers, self.scale, self.softening)
        return float(from_scale(on_scale, self.scale, self.softening))

    @property
    def mean(self) -> float:
        return float(self.probabilities @ self.centers)

    @property
    def std(self) -> float:
        """Standard deviation, in `unit`."""
        variance = self.probabilities @ ((self.centers - self.mean) ** 2 + np.diff(self.edges) ** 2 / 12)
        return float(np.sqrt(variance))

    @property
    def median(self) -> float:
        return float(self.quantile(0.5))

    @property
    def densities(self) -> np.ndarray:
        """(K,) probability per unit in each bin; bin k reaches from `edges[k]` to `edges[k + 1]`."""
        return self.probabilities / np.diff(self.edges)

    def density(self, x: Any) -> np.ndarray:
        """Returns the probability per unit at `x`, of the same shape; 0 outside the bins."""
        x = np.asarray(x, np.float64)
        inside = (x >= self.edges[0]) & (x <= self.edges[-1])
        return np.where(inside, self.densities[self._bin(x)], 0.0)

    def log_density(self, x: float) -> float:
        """Returns the log of the probability per unit at `x`, in nats; values outside the bins count as in the nearest bin."""
        density = float(self.densities[self._bin(np.asarray(x))])
        return math.log(density) if density > 0 else -math.inf

    def cumulative(self, x: Any) -> np.ndarray:
        """Returns the probability of numbers up to `x`, of the same shape."""
        return np.interp(x, self.edges, self._reached)

    def quantile(self, share: Any) -> np.ndarray:
        """Returns the number below which this share of the probability lies, of the same shape as `share`, 0 to 1.

        Raises:
            MaskweaveError: a share is not from 0 to 1.
        """
        share = np.asarray(share, np.float64)
        if share.size and not (share.min() >= 0 and share.max() <= 1):
            raise MaskweaveError(f"quantile: expected shares from 0 to 1, found {share.min():g} to {share.max():g}")
        reached = self._reached
        # The first bin that reaches the share; bins without probability never do, except for a share of 0.
        k = np.searchsorted(reached[1:], np.maximum(share, 1e-12)).clip(max=len(self.centers) - 1)
        within = (share - reached[k]) / np.maximum(self.probabilities[k], 1e-300)
        return self.edges[k] + within.clip(0, 1) * np.diff(self.edges)[k]

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Returns the central interval that holds this share of the probability, in `unit`."""
        low, high = self.quantile([(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)

    @classmethod
    def mixture(cls, members: Sequence["NumberDistribution"]) -> "NumberDistribution":
        return replace(members[0], probabilities=np.mean([m.probabilities for m in members], axis=0))

    def to_plain(self) -> dict[str, Any]:
        low, high = self.interval()
        return {
            "value": self.value,
            "mean": self.mean,
            "std": self.std,
            "median": self.median,
            "interval_90": [low, high],
            "unit": self.unit,
            "bin_edges": self.edges.tolist(),
            "probabilities": self.probabilities.tolist(),
        }

    @property
    def _reached(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(self.probabilities)]).clip(max=1.0)

    def _bin(self, x: np.ndarray) -> np.ndarray:
        return np.clip(np.searchsorted(self.edges, x, "right") - 1, 0, len(self.centers) - 1)


@dataclass(frozen=True, eq=False)
class VectorDistribution(Distribution):
    """Independent normal distributions of the numbers of a vector. As an array, it is their means."""

    mean: np.ndarray
    """(C,) in `unit`."""
    std: np.ndarray
    """(C,) standard deviations, above 0."""
    unit: str = ""

    @property
    def value(self) -> np.ndarray:
        return np.asarray(self.mean, np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.mean, dtype or np.float64)

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """Returns the log of the probability per unit of each number at `x`, (C,) in nats."""
        return -0.5 * np.square((x - self.mean) / self.std) - np.log(self.std * math.sqrt(2 * math.pi))

    def intervals(self, share: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ends, (C,) each, of the central intervals that hold this share of the probability."""
        reach = NormalDist().inv_cdf((1 + share) / 2) * np.asarray(self.std)
        return self.mean - reach, self.mean + reach

    @classmethod
    def mixture(cls, members: Sequence["VectorDistribution"]) -> "VectorDistribution":
        mean = np.mean([m.mean for m in members], axis=0)
        variance = np.mean([np.square(m.std) + np.square(m.mean - mean) for m in members], axis=0)
        return replace(members[0], mean=mean, std=np.sqrt(variance))

    def to_plain(self) -> dict[str, Any]:
        return {"value": self.value.tolist(), "std": np.asarray(self.std).tolist(), "unit": self.unit}


@dataclass(frozen=True, eq=False)
class ClassDistribution(Distribution, Mapping[str, float]):
    """The probability of each class; a mapping from names to probabilities that add up to 1."""

    classes: tuple[str, ...]
    probabilities: np.ndarray
    """(K,)"""
    _index: dict[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._index.update({name: i for i, name in enumerate(self.classes)})

    def __getitem__(self, name: str) -> float:
        return float(self.probabilities[self._index[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def value(self) -> Any:
        """The most probable class."""
        return self.classes[int(np.argmax(self.probabilities))]

    @classmethod
    def mixture(cls, members: Sequence[Self]) -> Self:
        return cls(members[0].classes, np.mean([m.probabilities for m in members], axis=0))

    def to_plain(self) -> dict[str, Any]:
        return {"value": self.value, "probabilities": dict(self)}


class TagDistribution(ClassDistribution):
    """The probability of each tag; they are independent of each other and need not add up to 1."""

    @property
    def value(self) -> list[str]:
        """The tags with a probability of at least one half."""
        return [name for name, p in self.items() if p >= 0.5]
