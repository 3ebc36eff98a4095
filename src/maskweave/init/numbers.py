"""Statistics of arrays, and what they say about the kind of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

POINTS = 20_000
"""Points of one file that quantiles are computed from."""
MOST_CLASSES = 64
"""Class ids are whole numbers from 0 with at most this many different values."""
LARGEST_ID = 254
FLAT = 0.5
"""Share of neighbors that are equal in class maps, at least; pictures are noisier."""
QUANTILE = 0.005
NEAR = 0.25
"""The range reaches to the extreme numbers if they are beyond the quantiles by at most this share of their distance."""
UNEQUAL = 10.0
"""Ratio of the channels' ranges from which each has its own."""
TAILS = 4.5
"""Numbers span powers of ten if the distance of their extreme quantiles is this many times that of the quantiles around the middle; it is 2.6 if they are
normally distributed, 4.0 by Laplace, and 5.6 if their natural logarithms have a deviation of 1."""
FAR = 3.0
"""A mark of missing points lies this many ranges outside of the other numbers."""
MARKS = (
    -9999.0,
    -99999.0,
    -999.0,
    -99.0,
    -32768.0,
    -32767.0,
    9999.0,
    99999.0,
    65535.0,
    32767.0,
    -3.4028234663852886e38,
    1e20,
)
"""Numbers that often mark missing points."""


@dataclass(frozen=True)
class NumberFacts:
    """Facts about the numbers of several arrays of the same channels."""

    low: float
    high: float
    """The range without rare extremes."""
    smallest: float
    largest: float
    missing: tuple[str | float, ...]
    """Marks of missing points: `nan` or numbers, such as infinity."""
    unknown: float
    """Share of points that are missing."""
    ranges: tuple[tuple[float, float], ...]
    """Lowest and highest number of each channel without rare extremes, if the ranges differ strongly; empty if they do not."""
    is_constant: bool = False
    """Whether no channel ever changes."""
    has_tails: bool = False
    """Whether the numbers are floats that span powers of ten, on one or both sides of their median."""


def number_facts(arrays: Sequence[np.ndarray], known: Sequence[np.ndarray | None], channels: int) -> NumberFacts | None:
    """Returns the facts; None if there is no known number.

    Args:
        arrays: (..., channels), or without an axis of channels if there is one.
        known: False at points that a file marks as missing; None: it marks none.
    """
    table = np.concatenate([p[:: max(1, len(p) // POINTS)] for p in _points(arrays, known, channels)])
    extremes, infinite, has_nan = _extremes(arrays, known, channels)
    table[np.isinf(table)] = np.nan
    marks = [*infinite, *(m for m in MARKS if _is_mark(table, extremes, m))]
    if finite := [mark for mark in marks if np.isfinite(mark)]:
        extremes, _, _ = _extremes(arrays, known, channels, finite)
        table = _without(table, finite)
    if np.isnan(extremes).all():
        return None
    unknown = float(np.isnan(table).mean())
    if (lost := np.isnan(table).all(axis=0)).any():  # the few known points of a channel lie between those of the table
        table[: len(extremes), lost] = extremes[: len(table), lost]
    lost = np.isnan(extremes).all(axis=0)  # a channel that is missing everywhere
    table[0, lost] = extremes[0, lost] = np.nanmedian(table)
    low, high = np.nanquantile(table, QUANTILE, axis=0), np.nanquantile(table, 1 - QUANTILE, axis=0)
    smallest, largest = np.nanmin(extremes, axis=0), np.nanmax(extremes, axis=0)
    margin = NEAR * (high - low)
    low, high = np.where(smallest >= low - margin, smallest, low), np.where(largest <= high + margin, largest, high)
    widths = high - low
    unequal = len(widths) > 1 and widths.max() > UNEQUAL * max(widths.min(), 1e-12)
    flat = np.where(widths > 0, 0, 0.5 * max(float(np.median(widths)), 1e-6))  # of channels that are constant
    ranges = tuple(zip((low - flat).tolist(), (high + flat).tolist(), strict=True)) if unequal else ()
    lowest, highest = float(low.min()), float(high.max())
    if highest <= lowest:
        lowest, highest = lowest - 0.5, highest + 0.5
    missing: tuple[str | float, ...] = tuple(marks) or (("nan",) if has_nan else ())
    return NumberFacts(
        lowest,
        highest,
        float(smallest.min()),
        float(largest.max()),
        missing,
        unknown,
        ranges,
        bool((largest <= smallest).all()),
        all(a.dtype.kind == "f" for a in arrays) and _has_tails(table),
    )


def class_ids(arrays: Sequence[np.ndarray], known: Sequence[np.ndarray | None]) -> tuple[int, tuple[int, ...]] | None:
    """Returns the number of classes and the ids that mean unknown; None if the arrays do not look like class maps."""
    found: set[int] = set()
    hidden: set[int] = set()
    equal, pairs = 0, 0
    for array, mask in zip(arrays, known, strict=True):
        if array.dtype.kind not in "iu":
            return None
        known_ids = array if mask is None else array[mask]
        found |= set(np.unique(known_ids).tolist())
        if mask is not None:
            hidden |= set(np.unique(array[~mask]).tolist())
        if len(found) > MOST_CLASSES + 2:
            return None
        neighbors = array[..., 1:] == array[..., :-1]
        equal, pairs = equal + int(neighbors.sum()), pairs + neighbors.size
    ids = sorted(found - {255, -1})
    ignore = {255} if 255 in found or 255 in hidden else set()
    ignore |= {id for id in hidden if 0 <= id <= LARGEST_ID}
    if len(ids) < 2 or ids[0] < 0 or ids[-1] > LARGEST_ID or (pairs and equal < FLAT * pairs):
        return None
    if ids[-1] >= 2 * MOST_CLASSES and len(ids) * 4 < ids[-1]:
        return None  # levels such as 0, 128 and 254
    if -1 in found and not ignore:
        ignore = {255}  # the entry must name an id, and no class has this one
    return max([*ids, *(i for i in ignore if i <= LARGEST_ID)]) + 1, tuple(sorted(ignore))


def is_binary(arrays: Sequence[np.ndarray]) -> bool:
    """Whether all numbers are 0 and 1, or 0 and 255."""
    found: set[int] = set()
    for array in arrays:
        if array.dtype == bool:
            continue
        if array.dtype.kind not in "iu":
            return False
        found |= set(np.unique(array).tolist())
        if not found <= {0, 1} and not found <= {0, 255}:
            return False
    return all(a.dtype == bool for a in arrays) or len(found) == 2


def rounded_out(low: float, high: float, digits: int = 3) -> tuple[float, float]:
    """Returns a range of few digits that contains the given one."""
    step = 10.0 ** (np.floor(np.log10(high - low)) - digits + 1)
    return float(f"{np.floor(low / step + 1e-9) * step:.10g}"), float(f"{np.ceil(high / step - 1e-9) * step:.10g}")


def _has_tails(table: np.ndarray) -> bool:
    """Whether most channels of numbers (n, C) have long tails."""
    low, first, last, high = np.nanquantile(table, (QUANTILE, 0.16, 0.84, 1 - QUANTILE), axis=0)
    return bool(np.median((high - low) / np.maximum(last - first, 1e-30)) > TAILS and (last > first).all())


def _points(arrays: Sequence[np.ndarray], known: Sequence[np.ndarray | None], channels: int) -> Iterator[np.ndarray]:
    """Yields all points of each array, float64 (n, channels), NaN where they are marked as missing."""
    for array, mask in zip(arrays, known, strict=True):
        points = array.reshape(-1, channels).astype(np.float64)
        yield points if mask is None else np.where(mask.reshape(-1, channels), points, np.nan)


def _extremes(
    arrays: Sequence[np.ndarray], known: Sequence[np.ndarray | None], channels: int, marks: Sequence[float] = ()
) -> tuple[np.ndarray, list[float], bool]:
    """Returns the smallest and the largest finite number of each array, over all of its points, (2 · arrays, channels), NaN if there is none; the infinite
    numbers that occur; whether points are missing.

    Args:
        marks: numbers that count as missing.
    """
    rows: list[np.ndarray] = []
    infinite: set[float] = set()
    has_nan = any(mask is not None for mask in known)
    for points in _points(arrays, known, channels):
        has_nan |= bool(np.isnan(points).any())
        if (at := np.isinf(points)).any():
            infinite |= set(points[at].tolist())
            points[at] = np.nan
        points = _without(points, marks)
        rows += [ufunc.reduce(points, axis=0, initial=np.nan) for ufunc in (np.fmin, np.fmax)]
    return np.stack(rows), sorted(infinite, reverse=True), has_nan


def _without(points: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """Returns points with NaN at these marks."""
    for mark in marks:
        points[np.isclose(points, mark)] = np.nan
    return points


def _is_mark(table: np.ndarray, extremes: np.ndarray, mark: float) -> bool:
    """Whether a number occurs far outside of all others."""
    at = np.isclose(table, mark)
    if not at.any() and not np.isclose(extremes, mark).any():
        return False
    rest = table[~at & ~np.isnan(table)]
    if not rest.size:
        return False
    low, high = np.quantile(rest, (0.01, 0.99))
    distance = max(low - mark, mark - high)
    return bool(distance > FAR * max(high - low, 1e-9) and (np.ptp(rest) < distance))
