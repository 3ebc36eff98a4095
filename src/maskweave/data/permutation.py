"""A random permutation of many samples that is not stored: the sample at each position is computed on demand.

A generalized Feistel network over two digits, with cycle walking: Black and Rogaway, Ciphers with arbitrary finite domains,
https://eprint.iacr.org/2001/012.
"""

import math

import numpy as np

ROUNDS = 4
"""Each round changes both digits. After two rounds, chi-square tests of positions, differences and pairs detect no order."""

LISTED = 2**20
"""Most samples whose order is stored as a list (8 MB). For more it is computed position by position."""


class Permutation:
    """`permutation[positions]` are the samples at these positions, both int64 from 0 to count - 1. Each sample has exactly one position.

    Args:
        count: 1 to 2 ** 62.
        rng: random generator for the keys.
    """

    def __init__(self, count: int, rng: np.random.Generator):
        self.count = count
        # A number is high · columns + low. There are rows · columns numbers, only slightly more than count.
        self.columns = math.isqrt(count - 1) + 1
        self.rows = -(-count // self.columns)
        self.keys = rng.integers(2**64, size=(ROUNDS, 2), dtype=np.uint64)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        samples = self._mixed(positions)
        while len(beyond := np.flatnonzero(samples >= self.count)):  # cycle walking: every cycle returns below count
            samples[beyond] = self._mixed(samples[beyond])
        return samples

    def _mixed(self, numbers: np.ndarray) -> np.ndarray:
        rows, columns = np.uint64(self.rows), np.uint64(self.columns)
        high, low = np.divmod(numbers.astype(np.uint64), columns)
        for a, b in self.keys:
            high = (high + _hashed(low ^ a)) % rows
            low = (low + _hashed(high ^ b)) % columns
        return (high * columns + low).astype(np.int64)


def random_order(count: int, rng: np.random.Generator) -> np.ndarray | Permutation:
    """Returns a random order of `count` samples: `order[positions]` are the samples at these positions."""
    return rng.permutation(count) if count <= LISTED else Permutation(count, rng)


def _hashed(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64, in which each bit depends on all bits, shifted right by one so that adding a digit cannot overflow."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (numbers ^ (numbers >> np.uint64(31))) >> np.uint64(1)
