"""Batches as pure functions of their number: batch i of seed s is always the same, so resuming is exact without loader state."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from maskweave.data.mixing import apportion, interleave
from maskweave.data.permutation import Permutation

BLOCK = 1000
"""Number of consecutive samples in which each data set of a mix has exactly its share, rounded to a thousandth."""

LISTED = 2**20
"""Largest data set whose order is stored as a list (8 MB per epoch). For larger ones it is computed position by position."""


class Batches(Protocol):
    """Batches by index. Must be a pure function of the index, so that resuming is exact."""

    def __getitem__(self, index: int, /) -> Any: ...


class SizedBatches(Batches, Protocol):
    """A fixed number of batches, for validation."""

    def __len__(self) -> int: ...


class Order:
    """The samples of each batch: `order[i]` are the indices of batch i, (batch_size,), a pure function of seed and i.

    With shuffle, each epoch is a new permutation of all samples. Each data set of a mix has its own epochs. Positions are assigned by weight: each
    data set has its share of every block of `BLOCK` positions, in a random order per block.
    Without shuffle, there is one pass in order, with the data sets evenly interleaved; the last batch may be smaller.

    Args:
        counts: number of samples of each data set; indices count through the data sets one after the other.
        weights: weight of each data set, relative to the others.
    """

    def __init__(
        self,
        counts: Sequence[int],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        weights: Sequence[float] = (1.0,),
    ):
        self.counts, self.batch_size, self.seed, self.shuffle = counts, batch_size, seed, shuffle
        self._starts = np.cumsum([0, *counts])
        self._pass = np.empty(0, np.int64) if shuffle else interleave(counts)
        self._per_block = apportion(weights, BLOCK)
        self._epochs: list[dict[int, np.ndarray | Permutation]] = [{} for _ in counts]

    def __len__(self) -> int:
        """Batches of one pass over all samples."""
        return -(-int(self._starts[-1]) // self.batch_size)

    def __getitem__(self, i: int) -> np.ndarray:
        """Raises IndexError after the end of the pass if not shuffled."""
        first, last = i * self.batch_size, (i + 1) * self.batch_size
        if not self.shuffle:
            if i >= len(self):
                raise IndexError(i)
            return self._pass[first:last]
        set_of, rank = self._ranks(np.arange(first, last))
        indices = np.empty(self.batch_size, np.int64)
        for d in np.unique(set_of).tolist():
            here = np.flatnonzero(set_of == d)
            epoch, position = np.divmod(rank[here], self.counts[d])
            for e in np.unique(epoch).tolist():
                indices[here[epoch == e]] = self._starts[d] + self._permutation(d, e)[position[epoch == e]]
        return indices

    def _ranks(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the data set of each position, and the number of samples of that data set before it."""
        set_of, rank = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(positions // BLOCK).tolist():
            sets = np.random.default_rng([self.seed, 4, block]).permutation(
                np.repeat(np.arange(len(self.counts)), self._per_block)
            )
            before = np.empty_like(sets)
            for d, share in enumerate(self._per_block):
                before[sets == d] = block * share + np.arange(share)
            here = positions // BLOCK == block
            set_of[here], rank[here] = sets[positions[here] % BLOCK], before[positions[here] % BLOCK]
        return set_of, rank

    def _permutation(self, d: int, epoch: int) -> np.ndarray | Permutation:
        """Permutation of data set d in an epoch. The two epochs computed last are cached."""
        cached = self._epochs[d]
        if epoch not in cached:
            while len(cached) > 1:
                cached.pop(next(iter(cached)))
            count, rng = self.counts[d], np.random.default_rng([self.seed, 0, epoch, d] if d else [self.seed, 0, epoch])
            cached[epoch] = rng.permutation(count) if count <= LISTED else Permutation(count, rng)
        return cached[epoch]
