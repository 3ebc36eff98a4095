"""Batches as pure functions of their number: batch i of seed s is always the same, so resuming is exact without loader state."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from maskweave.data.mixing import apportion, interleave
from maskweave.data.permutation import Permutation, random_order
from maskweave.data.windows import ShardWindows, WindowPermutation

BLOCK = 1000
"""Number of consecutive samples in which each data set of a mix has exactly its share, rounded to a thousandth."""


class Batches(Protocol):
    """Batches by index. Must be a pure function of the index, so that resuming is exact."""

    def __getitem__(self, index: int, /) -> Any: ...


class SizedBatches(Batches, Protocol):
    """A fixed number of batches, for validation."""

    def __len__(self) -> int: ...


class Order:
    """The samples of each batch: `order[i]` are the indices of batch i, (batch_size,), a pure function of seed and i.

    With shuffle, each epoch is a new permutation of all samples, block-wise if the data set has `windows`. Each data set of a mix has its own epochs. Positions are assigned by weight: each
    data set has its share of every block of `BLOCK` positions, in a random order per block.
    Without shuffle, there is one pass in order, with the data sets evenly interleaved; the last batch may be smaller.

    Args:
        counts: number of samples of each data set; indices count through the data sets one after the other.
        weights: weight of each data set, relative to the others.
        windows: windows of shards in which the samples of each data set are shuffled; None: all are shuffled together.
    """

    def __init__(
        self,
        counts: Sequence[int],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        weights: Sequence[float] = (1.0,),
        windows: Sequence[ShardWindows | None] = (),
    ):
        self.counts, self.batch_size, self.seed, self.shuffle = counts, batch_size, seed, shuffle
        self._starts = np.cumsum([0, *counts])
        self.windows = windows or [None] * len(counts)
        self._per_block = apportion(weights, BLOCK)
        self._epochs: list[dict[int, np.ndarray | Permutation | WindowPermutation]] = [{} for _ in counts]

    def __len__(self) -> int:
        """Batches of one pass over all samples."""
        return -(-int(self._starts[-1]) // self.batch_size)

    def __getitem__(self, i: int) -> np.ndarray:
        """Raises IndexError after the end of the pass if not shuffled."""
        first, last = i * self.batch_size, (i + 1) * self.batch_size
        if not self.shuffle:
            if i >= len(self):
                raise IndexError(i)
            return interleave(self.counts, first, last)
        set_of, rank = self._ranks(np.arange(first, last))
        indices = np.empty(self.batch_size, np.int64)
        for d in np.unique(set_of).tolist():
            here = np.flatnonzero(set_of == d)
            epoch, position = np.divmod(rank[here], self.counts[d])
            for e in np.unique(epoch).tolist():
                permutation, at = self._permutation(d, e), position[epoch == e]
                indices[here[epoch == e]] = self._starts[d] + permutation[at]
                if isinstance(permutation, WindowPermutation):
                    self._prefetch(d, e, permutation, int(at[-1]))
        return indices

    def _prefetch(self, d: int, epoch: int, permutation: WindowPermutation, position: int) -> None:
        """Ask for the shards of this window and the next, which at the end of an epoch is the first of the next epoch."""
        prefetch = permutation.windows.prefetch
        if prefetch is not None:
            shards = permutation.shards_from(position)
            if len(shards) <= permutation.windows.size:
                following = self._permutation(d, epoch + 1)
                assert isinstance(following, WindowPermutation)
                shards = np.concatenate([shards, following.shards_from(0)[: permutation.windows.size]])
            prefetch(shards)

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

    def _permutation(self, d: int, epoch: int) -> np.ndarray | Permutation | WindowPermutation:
        """Permutation of data set d in an epoch. The two epochs computed last are cached."""
        cached = self._epochs[d]
        if epoch not in cached:
            while len(cached) > 1:
                cached.pop(next(iter(cached)))
            if (windows := self.windows[d]) is not None:
                cached[epoch] = WindowPermutation(windows, [self.seed, 5, epoch, d])
            else:
                rng = np.random.default_rng([self.seed, 0, epoch, d] if d else [self.seed, 0, epoch])
                cached[epoch] = random_order(self.counts[d], rng)
        return cached[epoch]
