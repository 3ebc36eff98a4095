"""The interface of every tokenizer, whether a network or a set of rules."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Converts values of one modality to tokens and back, always in batches."""

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) a vector per token, similar for tokens of similar meaning."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash that changes whenever the same value could give other tokens."""
        ...

    def encode(self, values: Sequence[Any]) -> Any:
        """Returns ids of shape (B, *grid) for grids, and a list of ids per value for sequences.

        Raises:
            BadSample: a value doesn't fit the modality's entry.
        """
        ...

    def decode(self, tokens: Any) -> Any:
        """Returns one value per row of tokens, in the Python form and unit of the modality's entry."""
        ...
