"""Batches as pure functions of their number: batch i of seed s is always the same, which makes resuming exact without any loader state."""

import numpy as np

from maskweave.batch import TokenBatch, ValueBatch
from maskweave.data.masking import Drawer
from maskweave.data.tokens import TokenData
from maskweave.modality import Modality
from maskweave.tokenizers.values import to_tensor


def batch_indices(count: int, batch_size: int, number: int, seed: int, shuffle: bool) -> np.ndarray:
    """Indices of the samples of batch `number`.

    Shuffled, epoch follows epoch, each a permutation of all `count` samples of its own. Otherwise one pass in order, the last batch may be short.

    Raises:
        IndexError: past the one pass in order.
    """
    if not shuffle:
        if number * batch_size >= count:
            raise IndexError(number)
        return np.arange(number * batch_size, min((number + 1) * batch_size, count))
    places = np.arange(number * batch_size, (number + 1) * batch_size)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(places // count):
        here = places // count == epoch
        indices[here] = _permutation(count, seed, int(epoch))[places[here] % count]
    return indices


_last: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Of the current epoch, remembered."""
    key = (count, seed, epoch)
    if key not in _last:
        while len(_last) > 4:
            _last.pop(next(iter(_last)))
        _last[key] = np.random.default_rng([seed, 0, epoch]).permutation(count)
    return _last[key]


class DrawnBatches:
    """`batches[i]`: the i-th drawn batch, a pure function of seed and i.

    Args:
        shuffle: otherwise samples come in order and every pass draws the same tokens, for validation.
    """

    def __init__(self, data: TokenData, drawer: Drawer, batch_size: int, seed: int = 0, shuffle: bool = True):
        self.data, self.drawer, self.batch_size, self.seed, self.shuffle = data, drawer, batch_size, seed, shuffle

    def __len__(self) -> int:
        """Batches of one pass over the data."""
        return -(-len(self.data) // self.batch_size)

    def __getitem__(self, i: int) -> TokenBatch:
        indices = batch_indices(len(self.data), self.batch_size, i, self.seed, self.shuffle)
        return self.drawer(self.data.columns(indices), np.random.default_rng([self.seed, 1, i]))


class ValueBatches:
    """Batches of one modality's values, for training its tokenizer.

    Args:
        values: (S, *size[, C]) checked values, memory-mapped if they are many.
    """

    def __init__(self, modality: Modality, values: np.ndarray, batch_size: int, seed: int = 0, shuffle: bool = True):
        self.modality, self.values, self.batch_size, self.seed, self.shuffle = (
            modality,
            values,
            batch_size,
            seed,
            shuffle,
        )

    def __len__(self) -> int:
        """Batches of one pass over the values."""
        return -(-len(self.values) // self.batch_size)

    def __getitem__(self, i: int) -> ValueBatch:
        indices = batch_indices(len(self.values), self.batch_size, i, self.seed, self.shuffle)
        return ValueBatch(self.modality.name, to_tensor(self.modality, self.values[indices]))
