"""A random order of many samples without a list of it: each place's sample is computed when it is asked for.

A generalized Feistel network over two digits, with cycle walking: Black and Rogaway, Ciphers with arbitrary finite domains,
https://eprint.iacr.org/2001/012.
"""

import math

import numpy as np

ROUNDS = 4
"""Each changes both digits. After two, chi-square tests of places, of differences and of pairs find no order any more."""


class Permutation:
    """`permutation[places]` are the samples at these places, both int64 and from 0 to count - 1; each sample has one place.

    Args:
        count: 1 to 2 ** 62.
        rng: gives the keys.
    """

    def __init__(self, count: int, rng: np.random.Generator):
        self.count = count
        # A number is high · columns + low, of which there are rows · columns, hardly more than the count.
        self.columns = math.isqrt(count - 1) + 1
        self.rows = -(-count // self.columns)
        self.keys = rng.integers(2**64, size=(ROUNDS, 2), dtype=np.uint64)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        found = self._mixed(places)
        while len(beyond := np.flatnonzero(found >= self.count)):  # on along the cycle, which comes back
            found[beyond] = self._mixed(found[beyond])
        return found

    def _mixed(self, numbers: np.ndarray) -> np.ndarray:
        rows, columns = np.uint64(self.rows), np.uint64(self.columns)
        high, low = np.divmod(numbers.astype(np.uint64), columns)
        for a, b in self.keys:
            high = (high + _hashed(low ^ a)) % rows
            low = (low + _hashed(high ^ b)) % columns
        return (high * columns + low).astype(np.int64)


def _hashed(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64, in which each bit depends on all, less its last bit: a digit added to it must not overflow."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (numbers ^ (numbers >> np.uint64(31))) >> np.uint64(1)
