"""The tokenizer of a sequence modality: values to ids and back, by the entry's value type."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.entry import EOS, Modality
from maskweave.tokenizers.instances import Instances
from maskweave.tokenizers.poses import Poses
from maskweave.tokenizers.queries import Queries
from maskweave.tokenizers.structured import Boxes, Codec, Decoded, Metadata, Palette
from maskweave.tokenizers.text import TextTokenizer

CODECS: dict[str, type[Codec]] = {
    "boxes": Boxes,
    "palette": Palette,
    "metadata": Metadata,
    "instances": Instances,
    "poses": Poses,
    "queries": Queries,
}


class SequenceTokenizer:
    """Values of one sequence modality to ids and back.

    Each sequence ends with [EOS] and has at most `max_tokens` ids. Text is cut to fit; of boxes, colors, metadata pairs,
    instances, people and points as many whole items are written as fit, and no more than `value.max_items`. `structured.py`
    shows the sequences and how exact they are.

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
                f"modality {modality.name!r}: its vocabulary is {modality.vocabulary!r}, but the text tokenizer is of {text.vocabulary.name!r}; load the tokenizer of its vocabulary"
            )
        self.modality, self.text = modality, text
        self.codec = None if modality.value.type == "text" else CODECS[modality.value.type](modality, text)

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
            rng: in training, the order of metadata pairs, of a person's parts and of points is drawn from it; without, it is fixed.

        Raises:
            BadSample: a value is not what the entry declares: names the modality, what was found and what is expected.
        """
        if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
            raise MaskweaveError(
                f"modality {self.modality.name!r}: encode takes a list of values, found {type(values).__name__}; put one value into a list"
            )
        if self.codec is not None:
            return [self.codec.encode(value, rng) for value in values]
        for value in values:
            self._check_text(value)
        try:
            return [self._cut(ids) for ids in self.text.encode_batch(list(values))]
        except BadSample as error:
            raise BadSample(f"modality {self.modality.name!r}: {error}") from None

    def decode(self, tokens: Iterable[Any]) -> list[Any]:
        """Value of each sequence of ids, up to its [EOS]; what cannot be read is left out."""
        return [decoded.value for decoded in self.decode_with_problems(tokens)]

    def decode_with_problems(self, tokens: Iterable[Any]) -> list[Decoded]:
        """As `decode`, with what was wrong in each sequence. No ids make it fail."""
        return [self._decode(ids.tolist() if hasattr(ids, "tolist") else [int(id) for id in ids]) for ids in tokens]

    def _decode(self, ids: list[int]) -> Decoded:
        if self.codec is not None:
            return self.codec.decode(ids)
        problems = [] if EOS in ids else ["no [EOS]: the sequence has no end"]
        written = ids[: ids.index(EOS)] if EOS in ids else ids
        strange = [self.text.piece(id) for id in written if not self.text.is_text(id)]
        if strange:
            problems.append(f"{len(strange)} tokens are not text: {' '.join(strange[:8])}")
        return Decoded(self.text.decode(ids), problems)

    def _check_text(self, value: Any) -> None:
        most = self.modality.value.max_characters
        if not isinstance(value, str):
            raise BadSample(f"modality {self.modality.name!r}: found {type(value).__name__}, expected text")
        if len(value) > most:
            raise BadSample(
                f"modality {self.modality.name!r}: found a text of {len(value):,} characters, expected at most {most:,}; shorten it, or raise value.max_characters"
            )

    def _cut(self, ids: list[int]) -> list[int]:
        most = self.modality.max_tokens
        return ids if len(ids) <= most else [*ids[: most - 1], EOS]
