"""Batches as pure functions of their number: batch i of seed s is always the same, which makes resuming exact without any loader state."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from maskweave.data.mixing import apportion, interleave
from maskweave.data.permutation import Permutation

BLOCK = 1000
"""Samples over which the data sets of a mix have their shares exactly, rounded to a thousandth."""

LISTED = 2**20
"""Most samples of a data set whose order is listed, 8 MB an epoch; that of more is computed place by place."""


class Batches(Protocol):
    """Batches by index. Must be a pure function of the index: that is what makes resuming exact."""

    def __getitem__(self, index: int, /) -> Any: ...


class SizedBatches(Batches, Protocol):
    """A fixed number of batches, for validation."""

    def __len__(self) -> int: ...


class Order:
    """Which samples each batch has: `order[i]` are the indices of batch i, (batch_size,), a pure function of seed and i.

    Shuffled, epoch follows epoch, each a permutation of its own of all samples. Several data sets have each their own epochs, and take their
    places by weight: of every block of `BLOCK` places each has its share, in an order drawn for the block.
    Otherwise one pass in order, the data sets evenly among each other; the last batch may be short.

    Args:
        counts: samples of each data set; indices run through them one data set after the other.
        weights: of each data set, relative to the others.
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
        """Raises IndexError past the one pass in order."""
        first, last = i * self.batch_size, (i + 1) * self.batch_size
        if not self.shuffle:
            if i >= len(self):
                raise IndexError(i)
            return self._pass[first:last]
        set_of, rank = self._ranks(np.arange(first, last))
        indices = np.empty(self.batch_size, np.int64)
        for d in np.unique(set_of).tolist():
            here = np.flatnonzero(set_of == d)
            epoch, place = np.divmod(rank[here], self.counts[d])
            for e in np.unique(epoch).tolist():
                indices[here[epoch == e]] = self._starts[d] + self._permutation(d, e)[place[epoch == e]]
        return indices

    def _ranks(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each place its data set, and how many samples of that data set come before it."""
        set_of, rank = np.empty_like(places), np.empty_like(places)
        for block in np.unique(places // BLOCK).tolist():
            drawn = np.random.default_rng([self.seed, 4, block]).permutation(
                np.repeat(np.arange(len(self.counts)), self._per_block)
            )
            before = np.empty_like(drawn)
            for d, share in enumerate(self._per_block):
                before[drawn == d] = block * share + np.arange(share)
            here = places // BLOCK == block
            set_of[here], rank[here] = drawn[places[here] % BLOCK], before[places[here] % BLOCK]
        return set_of, rank

    def _permutation(self, d: int, epoch: int) -> np.ndarray | Permutation:
        """Of data set d; those of the last two epochs asked for are remembered."""
        held = self._epochs[d]
        if epoch not in held:
            while len(held) > 1:
                held.pop(next(iter(held)))
            count, rng = self.counts[d], np.random.default_rng([self.seed, 0, epoch, d] if d else [self.seed, 0, epoch])
            held[epoch] = rng.permutation(count) if count <= LISTED else Permutation(count, rng)
        return held[epoch]
