"""The tokenizer of a sequence modality. The codec of the entry's value type converts values to ids and back."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.codec import Decoded


class SequenceTokenizer:
    """Converts values of one sequence modality to ids and back.

    Each sequence ends with [EOS] and has at most `max_tokens` ids. Text is truncated. Lists are cut after the last complete item that fits, and have
    at most `value.max_items` items. `maskweave.values.codec` describes the sequences and their precision.

    Raises:
        MaskweaveError: the vocabulary lacks values or words that the entry needs, or `max_tokens` is too small for one item. The message says which.
    """

    def __init__(self, modality: Modality, text: TextTokenizer):
        if modality.kind != "sequence":
            raise MaskweaveError(
                f"modality {modality.name!r}: is of kind {modality.kind!r}; expected kind 'sequence', because only sequences have text-like tokens"
            )
        if modality.vocabulary != text.vocabulary.name:
            raise MaskweaveError(
                f"modality {modality.name!r}: its vocabulary is {modality.vocabulary!r}, but the text tokenizer's is "
                f"{text.vocabulary.name!r}; load the tokenizer of vocabulary {modality.vocabulary!r}"
            )
        self.modality, self.text = modality, text
        self.codec = modality.value.codec(modality.name, modality.max_tokens, text)

    @property
    def vocabulary_size(self) -> int:
        return self.text.vocabulary.size

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) embeddings of the text tokenizer."""
        return self.text.token_embeddings

    @property
    def fingerprint(self) -> str:
        """Hash of the text tokenizer."""
        return hashlib.sha256(self.text.tokenizer.to_str().encode()).hexdigest()[:16]

    def encode(self, values: Sequence[Any], rng: np.random.Generator | None = None) -> list[list[int]]:
        """Returns the ids of each value.

        Args:
            rng: in training, orders without meaning (of metadata pairs, a person's parts, points) are random; without it, they are fixed.

        Raises:
            BadSample: a value does not fit the entry. The message names the modality, what was found and what is expected.
        """
        if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
            raise MaskweaveError(
                f"modality {self.modality.name!r}: encode takes a list of values, found {type(values).__name__}; put one value into a list"
            )
        checked = self.modality.value.check_batch(values, f"modality {self.modality.name!r}")
        return self.codec.encode_batch(checked, rng)

    def decode(self, tokens: Iterable[Any]) -> list[Any]:
        """Returns the value of each sequence of ids, up to its [EOS]. Parts that cannot be decoded are left out."""
        return [decoded.value for decoded in self.decode_with_problems(tokens)]

    def decode_with_problems(self, tokens: Iterable[Any]) -> list[Decoded]:
        """Like `decode`, with a description of the errors in each sequence. It accepts any ids."""
        rows = (ids.tolist() if hasattr(ids, "tolist") else [int(id) for id in ids] for ids in tokens)
        return [self.codec.decode(ids) for ids in rows]
