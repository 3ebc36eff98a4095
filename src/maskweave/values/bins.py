"""Bins of numbers that hold equal shares of the training values.

A value that is frequent gets a bin of its own, and so does every value if there are no more of them than bins, as for counts. Otherwise a
bin holds at least about ten training values: with fewer, the widths of the bins, and so densities, would be mostly noise.
"""

from typing import NamedTuple

import numpy as np

from maskweave.values.scales import Scale, from_scale, to_scale

LEAST_VALUES, LEAST_BINS = 10, 8
"""Training values that a bin should hold, and bins that there are in any case."""


class FittedBins(NamedTuple):
    """Bins in ascending order, in the unit of the values."""

    edges: np.ndarray
    """(K + 1,) float64"""
    centers: np.ndarray
    """(K,) float64, the median of the training values in each bin."""


def fit_bins(values: np.ndarray, bins: int, scale: Scale, softening: float = 1.0) -> FittedBins:
    """Fits at most `bins` bins to values (S,), S ≥ 1; edges between bins are midpoints on the scale."""
    y = np.sort(to_scale(values, scale, softening))
    distinct, first, counts = np.unique(y, return_index=True, return_counts=True)
    repeated = len(distinct) <= bins and 2 * len(distinct) <= len(y)
    starts = bin_starts(counts, bins if repeated else min(bins, max(LEAST_BINS, len(y) // LEAST_VALUES)))
    ends = np.append(starts[1:], len(distinct))
    inner = (distinct[starts[1:]] + distinct[starts[1:] - 1]) / 2
    if len(inner):  # the outer bins reach as far beyond the first and last value as the inner edges from theirs
        low = distinct[0] - (inner[0] - distinct[ends[0] - 1])
        high = distinct[-1] + (distinct[starts[-1]] - inner[-1])
    else:
        margin = max(1.0, abs(float(distinct[0]))) * 1e-3 if len(distinct) == 1 else 0.0
        low, high = distinct[0] - margin, distinct[-1] + margin
    last = np.append(first[1:], len(y))[ends - 1]
    centers = np.array([np.median(y[first[a] : b]) for a, b in zip(starts, last, strict=True)])
    edges = from_scale(np.concatenate([[low], inner, [high]]), scale, softening)
    return FittedBins(edges, from_scale(centers, scale, softening))


def bin_starts(counts: np.ndarray, bins: int) -> np.ndarray:
    """Returns the index of each bin's first distinct value, for at most `bins` bins that are as equal as possible.

    The number of values that a bin may hold is the smallest for which the bins suffice; a single value may exceed it.

    Args:
        counts: how often each distinct value occurs, in ascending order of the values.
    """
    before = np.concatenate([[0], np.cumsum(counts)])

    def starts(most: int) -> list[int]:
        found = [0]
        while len(found) <= bins:
            start = found[-1]
            end = max(int(np.searchsorted(before, before[start] + most, "right")) - 1, start + 1)
            if end >= len(counts):
                break
            found.append(end)
        return found

    low, high = 1, int(before[-1])
    while low < high:
        middle = (low + high) // 2
        if len(starts(middle)) <= bins:
            high = middle
        else:
            low = middle + 1
    return np.array(starts(low))
