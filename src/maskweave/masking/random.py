"""Random numbers by sample, so that what a sample draws depends on its place in the training, never on the other samples of its batch.

Each sample has a key, and each purpose a stream of its own. The numbers of a stream are hashes of key and counter, computed for all samples at
once: SplitMix64 (https://doi.org/10.1145/2660193.2660195). Gamma variates: Marsaglia and Tsang (https://doi.org/10.1145/358407.358414).

Dimension letters: B samples, n numbers of a sample.
"""

from typing import Any, Self

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's bijection of 64-bit integers."""
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x = (x ^ (x >> _SHIFTS[1])) * _FACTORS[1]
    return x ^ (x >> _SHIFTS[2])


class SampleRandom:
    """Random numbers of B samples, one row for each. The same call always gives the same numbers; use a `stream` for each purpose.

    Args:
        keys_B: uint64, one key for each sample.
    """

    def __init__(self, keys_B: np.ndarray):
        self._keys_B = keys_B

    @classmethod
    def at(cls, seed: int, places_B: np.ndarray) -> Self:
        """Returns the numbers of the samples at these places (from 0) in the order of a training or validation with this seed."""
        base = np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)
        return cls(_mix(base + places_B.astype(np.uint64) * _STEP))

    @classmethod
    def of(cls, rng: "np.random.Generator | SampleRandom", samples: int) -> "SampleRandom":
        """Returns `rng` itself, or numbers for so many samples with keys from a generator."""
        if not isinstance(rng, np.random.Generator):
            return rng
        return cls(rng.integers(2**64, size=samples, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._keys_B)

    def __getitem__(self, samples: np.ndarray) -> Self:
        """Returns the numbers of some of the samples, by index; a sample may be listed several times."""
        return type(self)(self._keys_B[samples])

    def stream(self, number: int | np.ndarray) -> Self:
        """Returns other numbers of the same samples, independent of those of every other stream.

        Args:
            number: of the stream, from 0, or one for each sample (B,).
        """
        return type(self)(_mix(self._keys_B ^ _mix((np.atleast_1d(number).astype(np.uint64) + np.uint64(1)) * _STEP)))

    def random(self, n: int, dtype: Any = np.float64) -> np.ndarray:
        """(B, n) uniform numbers from 0 to below 1. The first numbers do not depend on n."""
        bits, kept = self._bits(n), 24 if dtype == np.float32 else 53
        return (bits >> np.uint64(64 - kept)).astype(dtype) * dtype(2.0**-kept)

    def standard_exponential(self, n: int) -> np.ndarray:
        """(B, n) exponential variates."""
        return -np.log1p(-self.random(n))

    def standard_gamma(self, shape_Bn: np.ndarray) -> np.ndarray:
        """(B, n) gamma variates of these shapes, each 1 or more."""
        d = shape_Bn - 1 / 3
        found, todo = np.empty(shape_Bn.shape), np.ones(shape_Bn.shape, bool)
        attempt = 0
        while todo.any():  # an attempt succeeds with a probability above 0.95
            numbers = self.stream(attempt).random(3 * shape_Bn.shape[1]).reshape(*shape_Bn.shape, 3)[todo]
            radius, angle = np.sqrt(-2 * np.log1p(-numbers[:, 0])), 2 * np.pi * numbers[:, 1]
            x, scale = radius * np.cos(angle), d[todo]
            v = (1 + x / np.sqrt(9 * scale)) ** 3
            with np.errstate(divide="ignore", invalid="ignore"):
                good = (v > 0) & (np.log1p(-numbers[:, 2]) < 0.5 * x * x + scale * (1 - v + np.log(v)))
            at = np.flatnonzero(todo)[good]
            found.flat[at] = (scale * v)[good]
            todo.flat[at] = False
            attempt += 1
        return found

    def _bits(self, n: int) -> np.ndarray:
        """(B, n) uint64."""
        return _mix(self._keys_B[:, None] + np.arange(1, n + 1, dtype=np.uint64) * _STEP)
