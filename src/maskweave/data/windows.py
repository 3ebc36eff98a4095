"""Block-wise shuffling: shards in random order, and samples in random order within windows of consecutive shards.

A data set that is larger than memory is then read shard by shard: at any time only the shards of one window are in use. Each epoch is still a
permutation of all samples, and a sample's place is computed on demand.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from maskweave.data.permutation import LISTED, Permutation, random_order

SAMPLES = 2**17
"""About as many samples has a window, where a recipe does not say its number of shards."""
FEWEST, MOST = 8, 64
"""Bounds of the number of shards that follows from it."""


class ShardWindows(NamedTuple):
    """How the samples of a data set are shuffled."""

    starts: np.ndarray
    """(S + 1,) index of each shard's first sample, and the number of samples."""
    size: int
    """Shards of a window."""
    prefetch: Callable[[np.ndarray], None] | None = None
    """Called with shards that are needed now or next, in order."""


def window_size(starts: np.ndarray, wanted: int | None) -> int:
    """Returns the number of shards of a window; 0: all samples of the data set are shuffled together.

    Args:
        starts: as in `ShardWindows`.
        wanted: shards of a window, or 0. None: 0 for data sets of up to `LISTED` samples; for larger ones, shards with about `SAMPLES`.
    """
    shards, count = len(starts) - 1, int(starts[-1])
    if wanted is None:
        wanted = min(max(SAMPLES * shards // count, FEWEST), MOST) if count > LISTED else 0
    return wanted if wanted < shards else 0


class WindowPermutation:
    """`permutation[positions]` are the samples at these positions of an epoch, both int64. Each sample has exactly one position.

    Args:
        key: numbers that select the order of the shards and those of the windows.
    """

    def __init__(self, windows: ShardWindows, key: Sequence[int]):
        self.windows, self.key = windows, key
        self.shards = np.random.default_rng([*key, 0]).permutation(len(windows.starts) - 1)
        sizes = np.diff(windows.starts)[self.shards]
        self._shard_edges = np.cumsum([0, *sizes])  # positions at which the shards begin, in their random order
        self._edges = np.append(self._shard_edges[: -1 : windows.size], self._shard_edges[-1])
        self._orders: dict[int, np.ndarray | Permutation] = {}

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        samples = np.empty(len(positions), np.int64)
        window = self._window(positions)
        for w in np.unique(window).tolist():
            here = np.flatnonzero(window == w)
            place = self._edges[w] + self._order(w)[positions[here] - self._edges[w]]
            rank = np.searchsorted(self._shard_edges, place, side="right") - 1
            samples[here] = self.windows.starts[self.shards[rank]] + place - self._shard_edges[rank]
        return samples

    def shards_from(self, position: int) -> np.ndarray:
        """Returns the shards of the window at a position and of the next window, in order."""
        first = int(self._window(np.array([position]))[0]) * self.windows.size
        return self.shards[first : first + 2 * self.windows.size]

    def _window(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._edges, positions, side="right") - 1

    def _order(self, w: int) -> np.ndarray | Permutation:
        """The order of the samples in a window. Those of the two windows used last are cached."""
        if w not in self._orders:
            while len(self._orders) > 1:
                self._orders.pop(next(iter(self._orders)))
            rng = np.random.default_rng([*self.key, 1, w])
            self._orders[w] = random_order(int(self._edges[w + 1] - self._edges[w]), rng)
        return self._orders[w]
