"""Values as sequences of text-like tokens: what the codecs of all structured types share.

| type | sequence |
| --- | --- |
| boxes | per box `v0=xmin v1=ymin v2=xmax v3=ymax class` |
| palette | `v1=n`, then per color `v0=red v0=green v0=blue` |
| metadata | per key `v1=id v0=bin` |
| instances | per instance `class`, four times `v0=`, a `v1=` for each row of the mask |
| poses, queries | words, each with special values (`groups.py`) |

Each ends with [EOS]; the formats are those of 4M-21 (https://arxiv.org/abs/2406.09406). Where a vocabulary lacks a box coordinate's own
prefix, or has too few of it, `v0` takes its place. Encoding is exact up to bins: decoding gives the center of each bin (for whole numbers
the nearest one inside it), so what was decoded encodes to the same ids again. Decoding never fails: a model writes these sequences, and
writes some wrongly.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from maskweave.errors import MaskweaveError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
PAD, UNK, SOS, EOS = range(4)


class SpecialValues(Protocol):
    """The part of a vocabulary that codecs look at."""

    @property
    def name(self) -> str: ...

    @property
    def values(self) -> Mapping[str, int]:
        """How many special values each prefix has."""
        ...


class TextWriter(Protocol):
    """The part of a text tokenizer that codecs use."""

    @property
    def vocabulary(self) -> SpecialValues: ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def value(self, prefix: str, number: int) -> int:
        """The id of `prefix=number`."""
        ...

    def as_value(self, id: int) -> tuple[str, int] | None:
        """Prefix and number of an id, None if it is no special value."""
        ...

    def word(self, word: str) -> int:
        """The id of a word that is kept whole."""
        ...

    def piece(self, id: int) -> str:
        """An id for people."""
        ...

    def is_text(self, id: int) -> bool: ...


class Decoded(NamedTuple):
    """What could be read from a sequence, and what could not."""

    value: Any
    problems: list[str]


class Bins:
    """Bins of a range; values outside fall into the first or last.

    Args:
        low, high: the range's ends.
        count: number of bins, which are equal.
        integer: values are whole numbers, and decode to one.
        top: the last bin is `high` alone, and the others share the range.
        splits: where the range is cut, in place of equal bins; a value at a split belongs to the bin above it.
    """

    def __init__(
        self,
        low: float,
        high: float,
        count: int,
        integer: bool = False,
        top: bool = False,
        splits: Sequence[float] = (),
    ):
        self.low, self.high, self.count = low, high, count
        self.equal = count - top
        self.splits = splits
        cuts = (low, *splits, high) if splits else [low + n * (high - low) / self.equal for n in range(self.equal + 1)]
        self.centers: list[float] = [(a + b) / 2 for a, b in pairwise(cuts)] + [high] * top
        if integer:
            self.centers = [self._whole(n, center) for n, center in enumerate(self.centers)]

    def encode(self, x: float) -> int:
        x = min(max(x, self.low), self.high)
        if self.splits:
            return bisect_right(self.splits, x)
        # In this order, whole numbers over whole ranges are exact.
        return min(int((x - self.low) * self.equal / (self.high - self.low)), self.count - 1)

    def _whole(self, bin: int, center: float) -> int:
        """The whole number in the bin that is nearest to its center, or simply the nearest where it holds none."""
        near = sorted(range(math.floor(center) - 1, math.floor(center) + 3), key=lambda n: (abs(n - center), n))
        return next((n for n in near if self.low <= n <= self.high and self.encode(n) == bin), near[0])


class Slot(NamedTuple):
    """One position of an item: the ids that may stand there and what each means."""

    label: str
    meaning: Mapping[int, Any]


class Codec(ABC):
    """Checked values of one modality to ids and back.

    Args:
        name: the modality's, for messages.
        value: its value type.
        max_tokens: longest sequence, [EOS] included.

    Raises:
        MaskweaveError: the settings contradict each other, or the vocabulary lacks what they need.
    """

    item = "item"
    """What one thing in the list is called, for messages."""

    def __init__(self, name: str, value: Any, max_tokens: int, text: TextWriter):
        try:
            value.check_settings("sequence")
        except MaskweaveError as error:
            raise MaskweaveError(f"modality {name!r}: {error}") from error
        self.name, self.spec, self.max_tokens, self.text = name, value, max_tokens, text

    @abstractmethod
    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        """Ids of one checked value, [EOS] last.

        Args:
            rng: in training, orders that mean nothing are drawn from it; without, they are fixed.
        """

    def encode_batch(self, values: Sequence[Any], rng: np.random.Generator | None = None) -> list[list[int]]:
        """Ids of each value."""
        return [self.encode(value, rng) for value in values]

    @abstractmethod
    def parse(self, ids: list[int], problems: list[str]) -> Any:
        """The value written by ids (without [EOS]); what is wrong is added to problems."""

    def decode(self, ids: list[int]) -> Decoded:
        """The value of a sequence up to its [EOS], and what was wrong in it."""
        problems: list[str] = []
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        else:
            problems.append("no [EOS]: the sequence has no end")
        return Decoded(self.parse(ids, problems), problems)

    # Parts of codecs

    def require(self, prefix: str, count: int, because: str) -> None:
        """Refuse a vocabulary with fewer than `count` values of a prefix."""
        have = self.text.vocabulary.values.get(prefix, 0)
        if have < count:
            vocabulary = self.text.vocabulary.name
            raise MaskweaveError(
                f"modality {self.name!r}: {because} needs {prefix}=0 to {prefix}={count - 1}, but vocabulary {vocabulary!r} has {have} of {prefix}; "
                f"set vocabularies.{vocabulary}.values.{prefix} to at least {count}, or lower {because}"
            )

    def slot(self, prefix: str, count: int) -> Slot:
        start = self.text.value(prefix, 0)
        return Slot(f"{prefix}=", {start + n: n for n in range(count)})

    def class_ids(self) -> dict[str, int]:
        """Ids of the entry's classes by name."""
        try:
            return {name: self.text.word(name) for name in self.spec.classes}
        except MaskweaveError as error:
            raise MaskweaveError(f"modality {self.name!r}: value.classes: {error}") from None

    def capacity(self, width: int, fixed: int = 1) -> int:
        """Most items of `width` tokens, in addition to `fixed` others, that a sequence holds."""
        fit = (self.max_tokens - fixed) // width
        if fit < 1:
            raise MaskweaveError(
                f"modality {self.name!r}: max_tokens {self.max_tokens} cannot hold one {self.item}, which with the end takes {width + fixed}; raise max_tokens"
            )
        return min(fit, self.spec.max_items) if self.spec.max_items else fit

    def join(self, items: Iterable[list[int]]) -> list[int]:
        return [id for item in items for id in item] + [EOS]

    def parse_items(
        self, ids: list[int], slots: Sequence[Slot], problems: list[str], first: int = 0
    ) -> list[list[Any]]:
        """Meanings of each run of tokens that fills the slots; the tokens between such runs become problems."""
        found, width, at, lost = [], len(slots), first, first
        while at <= len(ids):
            item = [slot.meaning.get(id) for slot, id in zip(slots, ids[at : at + width], strict=False)]
            whole = len(item) == width and None not in item
            if (whole or at == len(ids)) and lost < at:
                pieces = " ".join(map(self.text.piece, ids[lost : min(at, lost + 8)])) + " …" * (at - lost > 8)
                problems.append(
                    f"tokens {lost} to {at - 1} ({pieces}) are no {self.item}: expected {' '.join(s.label for s in slots)}"
                )
            if whole:
                found.append(item)
                lost = at + width
            at += width if whole else 1
        return found


def corner_distance(bins: Sequence[int]) -> int:
    """Squared distance of a box's top-left corner from the origin, in half bins, so that decoding keeps the order."""
    return (2 * bins[0] + 1) ** 2 + (2 * bins[1] + 1) ** 2
