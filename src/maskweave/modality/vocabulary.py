"""Vocabularies: sets of token ids that text-like modalities share."""

from dataclasses import dataclass, field
from typing import Literal

from maskweave.values.codec import SPECIAL_TOKENS

NUM_BYTES = 256
"""Ids of single bytes in a vocabulary of type `byte_bpe`."""


@dataclass(frozen=True)
class Vocabulary:
    """A set of token ids shared by text-like modalities: special tokens, sentinels, special values, whole words, then pieces of text.

    Layout (spec of the published files): 0 [PAD], 1 [UNK], 2 [SOS], 3 [EOS], then [S_0]..., then `v0=0`... prefix by prefix,
    then `words`, then single characters or bytes and learned pieces.
    """

    name: str
    size: int
    """Total number of ids; learned pieces fill the ids that remain (fewer may be learned)."""
    sentinels: int = 200
    values: dict[str, int] = field(default_factory=dict)
    """Special values by prefix: `{v0: 64}` gives the tokens `v0=0` to `v0=63`."""
    words: tuple[str, ...] = ()
    """Words that are one token each, class names for instance."""
    type: Literal["byte_bpe", "wordpiece"] = "byte_bpe"
    """`byte_bpe`: pieces of bytes; any text is restored exactly. `wordpiece`: as in the published models; text is lower-cased, accents are
    removed, and words with unseen characters become [UNK]."""

    @property
    def first_sentinel(self) -> int:
        return len(SPECIAL_TOKENS)

    @property
    def fixed(self) -> int:
        """Ids taken before the learned pieces."""
        return len(SPECIAL_TOKENS) + self.sentinels + sum(self.values.values()) + len(self.words)
