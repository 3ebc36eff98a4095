"""What every tokenizer offers, whether a network or a set of rules."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Values of one modality to tokens and back, always for a batch of them."""

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) a vector for each token, alike for tokens that mean alike."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same value could give other tokens."""
        ...

    def encode(self, values: Sequence[Any]) -> Any:
        """Grids give ids of shape (B, *grid), sequences a list of ids for each value.

        Raises:
            BadSample: a value doesn't fit the modality's entry.
        """
        ...

    def decode(self, tokens: Any) -> Any:
        """Values in the Python form and unit of the modality's entry, as many as there are rows of tokens."""
        ...
