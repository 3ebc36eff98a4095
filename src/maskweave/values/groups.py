"""Words followed by special values: how 4M-21 (https://arxiv.org/abs/2406.09406) writes values with named parts.

A word is written as text, in one or more pieces. In a part with codes, codes below 512 are written as `v0=code`, higher
ones as `v1=code-512`. In a part with a range, each number is written as `v0=bin`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.values.array import check_range
from maskweave.values.base import refuse
from maskweave.values.codec import EOS, UNK, Bins, Codec, TextWriter
from maskweave.values.items import MAX_BINS, check_numbers

HALF = 512
"""Codes from here on have the second prefix."""


@dataclass(frozen=True)
class Part:
    """A group of numbers that a person of `poses`, or an instance of `queries`, has under one name."""

    count: int
    """Numbers in the group."""
    range: tuple[float, float] | None = None
    """Lowest and highest number; others are clipped, and the range is divided into the value's `bins`."""
    codes: int = 0
    """Instead of a range: whole numbers from 0 to below this, the codes of a tokenizer, written exactly."""
    bones: tuple[tuple[int, int], ...] = ()
    """Pairs of joints to connect by a line in figures. The numbers are then x, y of joint 0, of joint 1 and so on, in the coordinates of boxes."""

    def check(self, value: Any, what: str, where: str) -> list[float] | list[int]:
        """Check the numbers given for this part and return them."""
        layout = f"{self.count} {f'whole numbers from 0 to {self.codes - 1}' if self.codes else 'numbers'}"
        numbers = check_numbers(value, self.count, None, f"{what} = {shown(value)}", layout, where)
        if not self.codes:
            return numbers
        if not all(x == int(x) and 0 <= x < self.codes for x in numbers):
            raise refuse(where, f"{what} = {shown(value)}", layout)
        return [int(x) for x in numbers]


def check_parts(parts: Mapping[str, Part], may_have_bones: bool) -> None:
    """Raise MaskweaveError if the settings of an entry's parts contradict each other."""
    for name, part in parts.items():
        at = f"value.parts.{name}"
        if part.range is not None:
            check_range(*part.range, f"{at}.range")
        known = 1 <= part.count <= MAX_BINS and 0 <= part.codes <= MAX_BINS
        if not known or (part.range is None) == (part.codes == 0) or name in ("box", "point"):
            raise MaskweaveError(
                f"{at} needs a name other than box or point, a count of 1 or more, and either a range or codes, each at most {MAX_BINS:,}; "
                f"found {shown(part)}"
            )
        joints = part.count // 2 if part.range and may_have_bones and part.count % 2 == 0 else 0
        if any(not 0 <= joint < joints for bone in part.bones for joint in bone):
            raise MaskweaveError(
                f"{at}.bones: found {shown(part)}; expected pairs of joint numbers from 0 to below half of the part's count, in a part of poses with "
                "an even count and a range"
            )


def part_layout(parts: Mapping[str, Part]) -> str:
    """Returns the layout of an item with a box and parts, for messages."""
    shown_parts = "".join(f', "{name}": {part.count} numbers' for name, part in parts.items())
    return f'{{"box": [xmin, ymin, xmax, ymax]{shown_parts}}}'


class Group(NamedTuple):
    """A word and the special values after it."""

    word: str
    numbers: list[tuple[str, int]]
    """Prefix and number of each."""


class GroupedCodec(Codec):
    """Base class of codecs that write words and special values."""

    def __init__(self, name: str, value: Any, max_tokens: int, text: TextWriter, words: Iterable[str]):
        super().__init__(name, value, max_tokens, text)
        self.words: dict[str, list[int]] = {}
        for word in words:
            pieces = text.encode(word)[:-1]
            like = next((other for other, others in self.words.items() if others == pieces), None)
            if like is not None or not pieces or UNK in pieces:
                fault = "cannot be written" if like is None else f"is written like the word {like!r}"
                raise MaskweaveError(
                    f"modality {self.name!r}: {word!r} {fault} in vocabulary {text.vocabulary.name!r}; rename it in value.parts, or train the text tokenizer on texts that have its letters"
                )
            self.words[word] = pieces
        # Longest first, because one word may be the beginning of another.
        self.by_length = sorted(self.words.items(), key=lambda word: -len(word[1]))
        self.parts = {name: PartCodec(part, value.bins) for name, part in value.parts.items()}
        for part_name, part in self.parts.items():
            for prefix, count in part.needs.items():
                self.require(prefix, count, f"value.parts.{part_name}")

    def units(self, value: Any, rng: np.random.Generator | None) -> Iterable[list[int]]:
        """Yields the ids of a value in units; a unit is written completely or not at all."""
        raise NotImplementedError

    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        ids: list[int] = []
        for unit in self.units(value, rng):
            if len(ids) + len(unit) >= self.max_tokens:
                break
            ids += unit
        return [*ids, EOS]

    def write_part(self, item: Mapping[str, Any], name: str) -> list[int]:
        return self.special(map(self.parts[name].write, item[name]))

    def special(self, numbers: Iterable[tuple[str, int]]) -> list[int]:
        return [self.text.value(prefix, n) for prefix, n in numbers]

    def groups(self, ids: Sequence[int], problems: list[str]) -> list[Group]:
        """Returns the groups of a sequence in order; tokens outside all groups are added to `problems`."""
        found: list[Group] = []
        stray: list[int] = []
        group: Group | None = None
        at = 0
        while at < len(ids):
            word = next((w for w, pieces in self.by_length if list(ids[at : at + len(pieces)]) == pieces), None)
            value = self.text.as_value(ids[at])
            if word is not None:
                group = Group(word, [])
                found.append(group)
                at += len(self.words[word])
                continue
            if value is not None and group is not None:
                group.numbers.append(value)
            else:
                group = None  # the tokens up to the next word have no known meaning
                stray.append(ids[at])
            at += 1
        if stray:
            shown = " ".join(map(self.text.piece, stray[:8])) + " …" * (len(stray) > 8)
            problems.append(f"{len(stray)} tokens belong to no {self.item}: {shown}")
        return found


class PartCodec:
    """Converts the numbers of a part to special values and back."""

    def __init__(self, part: Part, bins: int):
        self.count = part.count
        self.bins = None if part.range is None else Bins(*part.range, bins)
        self.needs = (
            {"v0": min(part.codes, HALF), "v1": max(0, part.codes - HALF)} if part.range is None else {"v0": bins}
        )
        meanings = range(part.codes) if self.bins is None else self.bins.centers
        self.meaning = {self.write(x): x for x in meanings}

    def write(self, x: float) -> tuple[str, int]:
        """Returns the prefix and number of the special value."""
        if self.bins is not None:
            return "v0", self.bins.encode(x)
        return ("v0", int(x)) if x < HALF else ("v1", int(x) - HALF)

    def read(self, numbers: Sequence[tuple[str, int]]) -> list[float] | None:
        """Returns the numbers of special values; None if the values do not match this part."""
        read = [self.meaning[n] for n in numbers if n in self.meaning]
        return read if len(read) == len(numbers) == self.count else None
