"""Masks drawn for a whole batch by one generator, as they were when the golden losses were pinned."""

from typing import Any, Self

import numpy as np

from maskweave.masking.random import SampleRandom


class OneGenerator(SampleRandom):
    """Has the methods of `SampleRandom`, but all rows and streams share one NumPy generator."""

    def __init__(self, seed: int, samples: int, rng: np.random.Generator | None = None):
        self.rng, self.samples = rng or np.random.default_rng(seed), samples

    def __getitem__(self, samples: np.ndarray) -> Self:
        return type(self)(0, len(samples), self.rng)

    def stream(self, number: int | np.ndarray) -> Self:
        return self

    def random(self, n: int, dtype: Any = np.float64) -> np.ndarray:
        return self.rng.random((self.samples, n), dtype=dtype)

    def standard_exponential(self, n: int) -> np.ndarray:
        return self.rng.standard_exponential((self.samples, n))

    def standard_gamma(self, shape_Bn: np.ndarray) -> np.ndarray:
        return self.rng.standard_gamma(shape_Bn)
