"""An axis with coordinates, such as wavelength or time, and resampling onto it.

Shapes: n points of a file, T points of the axis, C channels.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.values.array import as_numbers
from maskweave.values.base import refuse
from maskweave.values.unknown import MOSTLY

NEARBY = 11
"""Steps of which the median is the usual step of their part of a file."""
REACH = 0.75
"""A point stands for at most so many usual steps on each side; wider gaps are unknown."""


@dataclass(frozen=True)
class CoordinateAxis:
    """Coordinates of the points along the one axis of a value: evenly spaced from `from` to `to`, both included."""

    aliases: ClassVar[dict[str, str]] = {"from": "start", "to": "stop"}

    start: float
    """Coordinate of the first point."""
    stop: float
    """Coordinate of the last point."""
    name: str = ""
    """What the axis is, for figures: wavelength, time."""
    unit: str = ""
    """Unit of the coordinates, for figures and messages."""
    scale: Literal["linear", "log"] = "linear"
    """`log`: the logarithms of the coordinates are evenly spaced."""
    array: str = ""
    """Array or column that holds the coordinates in files that have their own: values are then resampled onto the axis. Of a table without names, the
    column's number from 1. Without it, values of files have the entry's size and lie on the axis."""
    array_scale: Literal["linear", "log10"] = "linear"
    """`log10`: files hold the logarithms of the coordinates, such as `loglam` of SDSS."""
    resample: Literal["mean", "sum"] = "mean"
    """`mean`: a point is the mean over its part of the axis, or is interpolated where files have wider steps than the axis; this suits flux densities,
    temperatures, angles. `sum`: numbers are totals of their part of the axis, such as counts, and their sum is kept."""

    def check(self, axes: int, points: int) -> None:
        """Raise MaskweaveError if the settings contradict each other or the value's size."""
        if axes != 1 or points < 2:
            raise MaskweaveError("value.axis is for values over one axis with two points or more")
        if not (np.isfinite([self.start, self.stop]).all() and self.start < self.stop):
            raise MaskweaveError(
                f"value.axis needs from below to, both finite, found {self.start:g} and {self.stop:g}; values in descending order are turned"
            )
        if self.scale == "log" and self.start <= 0:
            raise MaskweaveError(f"value.axis.scale log needs from above 0, found {self.start:g}")

    @property
    def label(self) -> str:
        """Name and unit, for figures."""
        return f"{self.name} ({self.unit})" if self.name and self.unit else self.name or self.unit

    def points(self, count: int) -> np.ndarray:
        """Returns the coordinates of the entry's points (T,)."""
        if self.scale == "log":
            return np.geomspace(self.start, self.stop, count)
        return np.linspace(self.start, self.stop, count)

    def resampled(self, values: np.ndarray, coordinates: np.ndarray, count: int, where: str) -> np.ndarray:
        """Returns values (n[, C]) with coordinates (n,) at the `count` points of the axis, as floats, NaN where less than half of a point's part of
        the axis is known. Gaps, such as removed pixels, are not known.

        Raises:
            BadSample: the coordinates do not fit the values, are not finite, or repeat.
        """
        x, order = self._checked(coordinates, len(values), where)
        rows = np.asarray(values, np.float64).reshape(len(values), -1)[order]
        target = self._on_scale(self.points(count))
        if self.resample == "mean" and np.median(np.diff(x)) > np.median(np.diff(target)):
            out = np.stack([_interpolated(x, y, target) for y in rows.T], axis=1)
        else:
            out = _averaged(x, rows, target, total=self.resample == "sum")
        return out.reshape(count, *values.shape[1:])

    def _on_scale(self, coordinates: np.ndarray) -> np.ndarray:
        return np.log(coordinates) if self.scale == "log" else coordinates

    def _checked(self, coordinates: np.ndarray, count: int, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns ascending coordinates on the axis's scale, and the order of the points."""
        what = f"the coordinates {self.array!r}" if self.array else "the coordinates"
        x = as_numbers(coordinates, f"{where}: {what}").astype(np.float64)
        if x.ndim != 1 or len(x) != count:
            raise refuse(where, f"{what} of shape {x.shape}", f"({count},), one for each point of the values")
        if len(x) < 2 or not np.isfinite(x).all():
            bad = int((~np.isfinite(x)).sum())
            raise refuse(where, f"{bad} of {len(x)} of {what} not finite", "two finite coordinates or more")
        if self.array_scale == "log10":
            with np.errstate(over="ignore"):
                x = np.power(10.0, x)
        if self.scale == "log" and x.min() <= 0:
            raise refuse(
                where, f"{x.min():g} in {what}", f"{self.name or 'coordinates'} above 0, as the axis is logarithmic"
            )
        order = np.argsort(x, kind="stable")
        x = self._on_scale(x[order])
        if not np.isfinite(x).all() or (np.diff(x) <= 0).any():
            raise refuse(where, f"{int((np.diff(x) <= 0).sum())} coordinates twice in {what}", "each coordinate once")
        return x, order


def _cells(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns first and last ends (n,), (n,) of the cells around points: the middles between them, except at gaps, where a cell reaches `REACH`
    usual steps. The usual step is the median of the steps nearby, because steps may grow along the axis."""
    steps = np.diff(x)
    count = min(len(steps), NEARBY)
    usual = np.median(np.lib.stride_tricks.sliding_window_view(steps, count), axis=1)
    most = REACH * usual[(np.arange(len(steps)) - count // 2).clip(0, len(usual) - 1)]
    half, middles = np.minimum(steps / 2, most), (x[1:] + x[:-1]) / 2
    is_gap = steps / 2 > most
    first = np.where(is_gap, x[1:] - most, middles)
    last = np.where(is_gap, x[:-1] + most, middles)
    return np.r_[x[0] - half[0], first], np.r_[last, x[-1] + half[-1]]


def _edges(x: np.ndarray) -> np.ndarray:
    """Returns the ends (n + 1,) of the cells around evenly spaced points."""
    first, last = _cells(x)
    return np.append(first, last[-1])


def _averaged(x: np.ndarray, rows: np.ndarray, target: np.ndarray, total: bool) -> np.ndarray:
    """Returns the means over the cells around the target points; or the totals, if each number is the total of its own cell."""
    source, cells = np.stack(_cells(x), axis=1).reshape(-1), _edges(target)
    if total:  # half of an outer cell is beyond the axis; where the data end there, it lacks nothing
        cells[0] = max(cells[0], min(target[0], source[0]))
        cells[-1] = min(cells[-1], max(target[-1], source[-1]))
    known = np.isfinite(rows)
    width = (source[1::2] - source[::2])[:, None]
    amount = np.where(known, rows, 0) * (1 if total else width)
    sums, measure = (_between(source, part, cells) for part in (amount, known * width))
    share = measure / np.diff(cells)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        out = sums / share if total else sums / measure
    return np.where(share >= MOSTLY - 1e-9, out, np.nan)


def _between(edges: np.ndarray, amounts: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Returns the part of the amounts (n, C), each evenly spread over its own cell, that lies in each of the other cells.

    Args:
        edges: first and last end of each cell (2n,).
    """
    reached = np.cumsum(amounts, axis=0)
    reached = np.stack([reached - amounts, reached], axis=1).reshape(len(edges), -1)
    return np.diff(np.stack([np.interp(cells, edges, column) for column in reached.T], axis=1), axis=0)


def _interpolated(x: np.ndarray, y: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns a channel at the target points: linear between two known neighbors; NaN outside and in gaps, or where the nearer neighbor is unknown."""
    known = np.isfinite(y)
    out = np.interp(target, x[known], y[known]) if known.any() else np.full(len(target), np.nan)
    nearest = np.clip(np.searchsorted((x[1:] + x[:-1]) / 2, target), 0, len(x) - 1)
    first, last = _cells(x)
    rounding = 1e-9 * (last - first)[nearest]
    inside = (target >= first[nearest] - rounding) & (target <= last[nearest] + rounding)
    return np.where(known[nearest] & inside, out, np.nan)
