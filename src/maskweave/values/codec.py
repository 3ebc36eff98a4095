"""Values as sequences of text-like tokens: code shared by the codecs of all structured types.

| type | sequence |
| --- | --- |
| boxes | per box `v0=xmin v1=ymin v2=xmax v3=ymax class` |
| boxes3d | `v0=` six times for the camera, then per box `v0=` seven times and the class |
| palette | `v1=n`, then per color `v0=red v0=green v0=blue` |
| metadata | per key `v1=id v0=bin` |
| instances | per instance `class`, `v0=` four times, one `v1=` for each row of the mask |
| poses, queries | words, each followed by special values (`groups.py`) |

Each sequence ends with [EOS]; the formats are those of 4M-21 (https://arxiv.org/abs/2406.09406). If a vocabulary lacks the prefix of a box
coordinate, or has too few ids of it, `v0` is used instead. Encoding is exact up to bins: decoding returns the center of each bin (for whole
numbers the nearest whole number inside it), so a decoded value encodes to the same ids again. Decoding never fails, because models also
generate invalid sequences.
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

    def cut(self, ids: list[int], most: int) -> list[int]:
        """At most `most` ids of a text, [EOS] last."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def value(self, prefix: str, number: int) -> int:
        """The id of `prefix=number`."""
        ...

    def as_value(self, id: int) -> tuple[str, int] | None:
        """Prefix and number of an id, None if it is not a special value."""
        ...

    def word(self, word: str) -> int:
        """The id of a word that is one token."""
        ...

    def piece(self, id: int) -> str:
        """An id as text, for messages."""
        ...

    def is_text(self, id: int) -> bool: ...


class Decoded(NamedTuple):
    """What could be read from a sequence, and what could not."""

    value: Any
    problems: list[str]


class Bins:
    """Bins of a range; values outside fall into the first or last.

    Args:
        low, high: ends of the range.
        count: number of bins, of equal width.
        integer: values are whole numbers, and decode to whole numbers.
        top: the last bin holds only `high`, and the others divide the range.
        splits: where the range is cut, instead of equal bins; a value at a split belongs to the bin above it.
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
        """The whole number in the bin nearest to its center; if the bin contains none, the nearest one outside."""
        near = sorted(range(math.floor(center) - 1, math.floor(center) + 3), key=lambda n: (abs(n - center), n))
        return next((n for n in near if self.low <= n <= self.high and self.encode(n) == bin), near[0])


class Slot(NamedTuple):
    """One position of an item: the ids that are valid there and the meaning of each."""

    label: str
    meaning: Mapping[int, Any]


class Codec(ABC):
    """Encodes checked values of one modality as ids and decodes them.

    Args:
        name: name of the modality, for messages.
        value: its value type.
        max_tokens: longest sequence, [EOS] included.

    Raises:
        MaskweaveError: the settings contradict each other, or the vocabulary lacks ids that they need.
    """

    item = "item"
    """Name of one item of the list, for messages."""

    def __init__(self, name: str, value: Any, max_tokens: int, text: TextWriter):
        try:
            value.check_settings("sequence")
        except MaskweaveError as error:
            raise MaskweaveError(f"modality {name!r}: {error}") from error
        self.name, self.spec, self.max_tokens, self.text = name, value, max_tokens, text

    @abstractmethod
    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        """Returns the ids of one checked value, [EOS] last.

        Args:
            rng: in training, shuffles items whose order has no meaning; None: a fixed order.
        """

    def encode_batch(self, values: Sequence[Any], rng: np.random.Generator | None = None) -> list[list[int]]:
        """Returns the ids of each value."""
        return [self.encode(value, rng) for value in values]

    @abstractmethod
    def parse(self, ids: list[int], problems: list[str]) -> Any:
        """Returns the value of ids (without [EOS]); errors in the sequence are added to `problems`."""

    def decode(self, ids: list[int]) -> Decoded:
        """Returns the value of a sequence up to its [EOS], and the errors in it."""
        problems: list[str] = []
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        else:
            problems.append("no [EOS]: the sequence has no end")
        return Decoded(self.parse(ids, problems), problems)

    # Parts of codecs

    def require(self, prefix: str, count: int, because: str) -> None:
        """Raise MaskweaveError if the vocabulary has fewer than `count` values of a prefix."""
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
        """Returns the ids of the entry's classes by name."""
        try:
            return {name: self.text.word(name) for name in self.spec.classes}
        except MaskweaveError as error:
            raise MaskweaveError(f"modality {self.name!r}: value.classes: {error}") from None

    def capacity(self, width: int, fixed: int = 1) -> int:
        """Returns how many items of `width` tokens fit in a sequence, in addition to `fixed` other tokens."""
        fit = (self.max_tokens - fixed) // width
        if fit < 1:
            raise MaskweaveError(
                f"modality {self.name!r}: max_tokens is {self.max_tokens}, but one {self.item} and the end take {width + fixed} tokens; raise max_tokens"
            )
        return min(fit, self.spec.max_items) if self.spec.max_items else fit

    def join(self, items: Iterable[list[int]]) -> list[int]:
        return [id for item in items for id in item] + [EOS]

    def parse_items(
        self, ids: list[int], slots: Sequence[Slot], problems: list[str], first: int = 0
    ) -> list[list[Any]]:
        """Returns the meanings of each run of tokens that fills the slots; tokens between such runs are added to `problems`."""
        found, width, at, lost = [], len(slots), first, first
        while at <= len(ids):
            item = [slot.meaning.get(id) for slot, id in zip(slots, ids[at : at + width], strict=False)]
            complete = len(item) == width and None not in item
            if (complete or at == len(ids)) and lost < at:
                pieces = " ".join(map(self.text.piece, ids[lost : min(at, lost + 8)])) + " …" * (at - lost > 8)
                problems.append(
                    f"tokens {lost} to {at - 1} ({pieces}) are not a valid {self.item}: expected {' '.join(s.label for s in slots)}"
                )
            if complete:
                found.append(item)
                lost = at + width
            at += width if complete else 1
        return found


def corner_distance(bins: Sequence[int]) -> int:
    """Squared distance of a box's top-left corner from the origin, in half bins, so that decoding keeps the order."""
    return (2 * bins[0] + 1) ** 2 + (2 * bins[1] + 1) ** 2
