"""The contract of tokens made by rules instead of a network: numbers by bins, classes by their index.

A value type with `tokenized_by = "rules"` learns facts from training values (`fit_rules`), which are stored as JSON, and makes its rules
from them. Dimension letters: B values, L tokens of a value, V token ids, C width of an embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from maskweave.values.distribution import Distribution


class Rules(ABC):
    """Turns values of one entry into tokens and back."""

    answers_by_distribution: ClassVar[bool] = False
    """Whether a generated value is `Distribution.value` instead of the value of the sampled tokens."""

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> np.ndarray:
        """Returns the ids (B, L), int64, of checked values."""

    @abstractmethod
    def decode(self, ids_BL: np.ndarray) -> list[Any]:
        """Returns the value of each row of ids."""

    @abstractmethod
    def distribution(self, probabilities_LV: np.ndarray) -> Distribution:
        """Returns the distribution of one value, given the probability of each id of each token."""

    @abstractmethod
    def embeddings(self) -> np.ndarray:
        """Returns a vector (V, C), float32, for each id, similar for similar values."""
