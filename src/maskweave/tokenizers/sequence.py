"""The tokenizer of a sequence modality: values to ids and back, by the codec of the entry's value type."""

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
    """Values of one sequence modality to ids and back.

    Each sequence ends with [EOS] and has at most `max_tokens` ids. Text is cut to fit; of lists as many whole items are written as fit, and
    no more than `value.max_items`. `maskweave.values.codec` shows the sequences and how exact they are.

    Raises:
        MaskweaveError: the vocabulary lacks values or words that the entry needs, or an item cannot fit; says which.
    """

    def __init__(self, modality: Modality, text: TextTokenizer):
        if modality.kind != "sequence":
            raise MaskweaveError(
                f"modality {modality.name!r}: a {modality.kind} modality has no text-like tokens; only sequences have"
            )
        if modality.vocabulary != text.vocabulary.name:
            raise MaskweaveError(
                f"modality {modality.name!r}: its vocabulary is {modality.vocabulary!r}, but the text tokenizer is of "
                f"{text.vocabulary.name!r}; load the tokenizer of its vocabulary"
            )
        self.modality, self.text = modality, text
        self.codec = modality.value.codec(modality.name, modality.max_tokens, text)

    @property
    def vocabulary_size(self) -> int:
        return self.text.vocabulary.size

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) of the text tokenizer's entries."""
        return self.text.token_embeddings

    @property
    def fingerprint(self) -> str:
        """Of the text tokenizer's entries."""
        return hashlib.sha256(self.text.tokenizer.to_str().encode()).hexdigest()[:16]

    def encode(self, values: Sequence[Any], rng: np.random.Generator | None = None) -> list[list[int]]:
        """Ids of each value.

        Args:
            rng: in training, orders that mean nothing (of metadata pairs, a person's parts, points) are drawn from it; without, they are fixed.

        Raises:
            BadSample: a value is not what the entry declares: names the modality, what was found and what is expected.
        """
        if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
            raise MaskweaveError(
                f"modality {self.modality.name!r}: encode takes a list of values, found {type(values).__name__}; put one value into a list"
            )
        checked = self.modality.value.check_batch(values, f"modality {self.modality.name!r}")
        return self.codec.encode_batch(checked, rng)

    def decode(self, tokens: Iterable[Any]) -> list[Any]:
        """Value of each sequence of ids, up to its [EOS]; what cannot be read is left out."""
        return [decoded.value for decoded in self.decode_with_problems(tokens)]

    def decode_with_problems(self, tokens: Iterable[Any]) -> list[Decoded]:
        """As `decode`, with what was wrong in each sequence. No ids make it fail."""
        rows = (ids.tolist() if hasattr(ids, "tolist") else [int(id) for id in ids] for ids in tokens)
        return [self.codec.decode(ids) for ids in rows]
