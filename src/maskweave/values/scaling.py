"""Robust statistics that scale numbers for a network, learned from training values, and channels with names and units.

Numbers are brought to a scale (linear, log or asinh), then standardized by their median and a robust standard deviation of each channel. What is
more than `KNEE` deviations from the median is compressed logarithmically, so that rare extremes neither set the range nor are cut off.

Shapes: n points, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskweave.config import build
from maskweave.errors import MaskweaveError, shown
from maskweave.values.scales import Scale, from_scale, to_scale

KNEE = 4.0
"""Deviations from the median up to which the scaling is linear."""
MARGIN = 1.0
"""Decoded numbers reach this many deviations beyond the extremes of the training values."""
SIGMA = (0.1587, 0.8413)
"""Quantiles at one standard deviation around the median of a normal distribution."""
TAILS = (0.005, 0.995)
TAIL_DEVIATIONS = 8.0
"""A deviation is at least this part of the distance between the `TAILS`, for numbers that are nearly constant but for rare peaks."""
SAME = 1e-9
"""Numbers that deviate by less than this part of the largest one are all equal but for rounding, and are not scaled."""
SMALL = 0.1
"""Scale asinh: this quantile of the absolute numbers separates the linear from the logarithmic part."""
POINTS = 2**20
"""Most points that quantiles are computed from."""


@dataclass(frozen=True)
class Statistics:
    """Learned statistics of each channel, on the scale of `scaling`. Training sets them; catalogs do not have them."""

    center: tuple[float, ...]
    """Median."""
    spread: tuple[float, ...]
    """Robust standard deviation."""
    low: tuple[float, ...]
    """Smallest training value after scaling."""
    high: tuple[float, ...]
    """Largest training value after scaling."""
    softening: tuple[float, ...] = ()
    """Scale asinh: numbers below it are on a nearly linear scale."""

    def scale(self, array: np.ndarray, scale: Scale) -> np.ndarray:
        """Scales numbers (..., C) for a network, float32; NaN stays NaN."""
        on_scale = to_scale(array, scale, self._softening)
        return _compressed((on_scale - np.asarray(self.center)) / np.asarray(self.spread)).astype(np.float32)

    def unscale(self, array: np.ndarray, scale: Scale) -> np.ndarray:
        """The reverse of `scale`, float64, at most `MARGIN` deviations beyond the training values."""
        z = np.clip(np.asarray(array, np.float64), np.asarray(self.low) - MARGIN, np.asarray(self.high) + MARGIN)
        return from_scale(_expanded(z) * np.asarray(self.spread) + np.asarray(self.center), scale, self._softening)

    @property
    def _softening(self) -> Any:
        return np.asarray(self.softening) if self.softening else 1.0


def fit_statistics(values: np.ndarray, scale: Scale, channels: int) -> Statistics:
    """Returns the statistics of training values (S, *size[, C]), NaN at unknown points.

    Channels without any known point are not scaled.
    """
    rows = values.reshape(-1, channels)
    chosen = rows
    if len(rows) > POINTS:
        chosen = rows[np.sort(np.random.default_rng(0).integers(0, len(rows), POINTS))]
    numbers: list[tuple[float, ...]] = []
    for c in range(channels):
        x = np.asarray(chosen[:, c], np.float64)
        x = x[np.isfinite(x)]
        soft = _softening_of(x) if scale == "asinh" else 1.0
        y = to_scale(x, scale, soft)
        middle, width = (float(np.median(y)), _robust_deviation(y)) if len(y) else (0.0, 1.0)
        ends = _extremes(rows[:, c])
        ends = _compressed((to_scale(ends, scale, soft) - middle) / width) if ends is not None else np.zeros(2)
        numbers.append((middle, width, float(ends[0]), float(ends[1]), soft))
    center, spread, low, high, softening = zip(*numbers, strict=True)
    return Statistics(center, spread, low, high, softening if scale == "asinh" else ())


def _robust_deviation(y: np.ndarray) -> float:
    (a, b), (first, last) = np.quantile(y, SIGMA), np.quantile(y, TAILS)
    width = max((b - a) / 2, (last - first) / TAIL_DEVIATIONS)
    if width <= 1e-6 * max(abs(first), abs(last)):  # nearly all numbers are equal
        width = float(np.std(y))
    return float(width) if width > SAME * np.abs(y).max() else 1.0


def _softening_of(x: np.ndarray) -> float:
    sizes = np.abs(x[x != 0])
    return float(np.quantile(sizes, SMALL)) if len(sizes) else 1.0


def _extremes(column: np.ndarray) -> np.ndarray | None:
    """Smallest and largest finite number; None if there is none."""
    low, high = np.inf, -np.inf
    for start in range(0, len(column), POINTS):
        part = np.asarray(column[start : start + POINTS], np.float64)
        part = part[np.isfinite(part)]
        if len(part):
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return np.array([low, high]) if low <= high else None


def _compressed(z: np.ndarray) -> np.ndarray:
    """z up to `KNEE` on both sides, and KNEE · (1 + ln(|z| / KNEE)) beyond; value and slope are continuous."""
    size = np.abs(z)
    return np.where(size > KNEE, np.sign(z) * KNEE * (1 + np.log(np.maximum(size, KNEE) / KNEE)), z)


def _expanded(z: np.ndarray) -> np.ndarray:
    """The reverse of `_compressed`."""
    size = np.abs(z)
    return np.where(size > KNEE, np.sign(z) * KNEE * np.exp(np.maximum(size, KNEE) / KNEE - 1), z)


@dataclass(frozen=True)
class Channel:
    """A channel with its name and unit."""

    name: str
    unit: str = ""


def expand_channels(content: dict[str, Any], where: str, key: str) -> dict[str, Any]:
    """Returns an entry's settings with a list of `channels` written as their number, `channel_names` and `channel_units`.

    Raises:
        MaskweaveError: an item is neither a name nor {name, unit}, or the names are also given in `channel_names`.
    """
    listed = content.get("channels")
    if not isinstance(listed, (list, tuple)):
        return content
    at = f"{key}.channels" if key else "channels"
    if not listed:
        raise MaskweaveError(f"{where}: {at} is an empty list; expected names, or the number of channels")
    if content.get("channel_names"):
        raise MaskweaveError(f"{where}: {at} lists names, and so does channel_names; keep one of them")
    items = [
        Channel(item) if isinstance(item, str) else build(Channel, item, where, f"{at}.{i}")
        for i, item in enumerate(listed)
    ]
    out = {**content, "channels": len(items), "channel_names": [item.name for item in items]}
    if any(item.unit for item in items):
        if content.get("channel_units"):
            raise MaskweaveError(f"{where}: {at} lists units, and so does channel_units; keep one of them")
        out["channel_units"] = [item.unit for item in items]
    return out


def check_channel_words(names: Sequence[str], units: Sequence[str], channels: int) -> None:
    """Raise MaskweaveError unless there are as many names and units as channels, or none, and no name twice."""
    for key, words in (("channel_names", names), ("channel_units", units)):
        if words and len(words) != channels:
            raise MaskweaveError(f"value.{key} needs {channels} {key[8:]}, found {len(words)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MaskweaveError(f"value.channel_names must differ, found {shown(twice[0])} twice")
