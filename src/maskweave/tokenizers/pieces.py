"""What the types of text vocabularies have in common: the layout of their ids, and the interface of their pieces."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from tokenizers import Tokenizer

from maskweave.errors import MaskweaveError, shown
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.codec import SPECIAL_TOKENS


class Pieces(Protocol):
    """How one type of vocabulary writes text. An entry is a token as written in the file of the tokenizer."""

    def train(self, vocabulary: Vocabulary, texts: Iterable[str]) -> Tokenizer:
        """Learns pieces from texts and returns a tokenizer whose ids follow the vocabulary's layout. The order of the texts does not matter.

        Raises:
            BadSample: an item of texts is not text.
            MaskweaveError: the vocabulary is not valid.
        """
        ...

    def entry_of(self, word: str) -> str:
        """The entry of a word of the vocabulary."""
        ...

    def shown(self, entry: str) -> str:
        """An entry of a word or piece, for messages."""
        ...

    def is_word(self, entry: str) -> bool:
        """Whether an entry can be a complete word."""
        ...

    def decode(self, entries: Sequence[str]) -> str:
        """The text that entries write."""
        ...

    def decode_with_gaps(self, entries: Sequence[str | None], sign: str) -> str:
        """The text of entries, with a sign in place of each that is None."""
        ...

    def words(self, entries: Sequence[str]) -> list[tuple[str, list[int]]]:
        """The words that entries write, each with the positions of its entries."""
        ...

    def find(self, entries: Sequence[str], part: str, part_entries: Sequence[str]) -> list[bool]:
        """Which entries write `part`, at any of its occurrences.

        Args:
            part_entries: entries of `part` alone.
        """
        ...

    def complete(self, entries: Sequence[str]) -> int:
        """How many of the entries write complete characters; those after them begin a character that they do not end."""
        ...


def fixed_entries(vocabulary: Vocabulary, pieces: Pieces) -> list[str]:
    """The entries before the learned pieces, in order of their ids.

    Raises:
        MaskweaveError: an entry is listed twice, or a word looks like an inner piece of another word.
    """
    entries = [*SPECIAL_TOKENS, *(f"[S_{n}]" for n in range(vocabulary.sentinels))]
    entries += [f"{prefix}={n}" for prefix, count in vocabulary.values.items() for n in range(count)]
    named = [*entries, *vocabulary.words]
    if len(set(named)) < len(named):
        twice = next(entry for entry, count in Counter(named).items() if count > 1)
        raise MaskweaveError(f"vocabulary {vocabulary.name!r}: {shown(twice)} is listed twice; remove it from words")
    for word in vocabulary.words:
        if word.startswith("##") or word != word.strip() or not word:
            raise MaskweaveError(
                f"vocabulary {vocabulary.name!r}: {shown(word)} cannot be a word; a word must not be empty, start or end with a space, or start with '##'; change it"
            )
    return entries + [pieces.entry_of(word) for word in vocabulary.words]
