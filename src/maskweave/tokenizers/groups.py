"""Words with special values after them: how 4M-21 (https://arxiv.org/abs/2406.09406) writes what has named parts.

A word is written as text writes it, whatever pieces that takes. Of a part with codes, codes below 512 are `v0=code`, higher
ones `v1=code-512`; of a part with a range, each number is the `v0=` of its bin.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from maskweave.errors import MaskweaveError, shown
from maskweave.modality.entry import EOS, UNK, Modality, Part
from maskweave.tokenizers.structured import Bins, Codec
from maskweave.tokenizers.text import TextTokenizer

HALF = 512
"""Codes from here on have the second prefix."""
LARGEST = 1e9


class Group(NamedTuple):
    """A word and the special values after it."""

    word: str
    numbers: list[tuple[str, int]]
    """Prefix and number of each."""


class Grouped(Codec):
    """What codecs of words and special values share."""

    def __init__(self, modality: Modality, text: TextTokenizer, words: Iterable[str]):
        super().__init__(modality, text)
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
        # The longest first, where one word is the beginning of another.
        self.by_length = sorted(self.words.items(), key=lambda word: -len(word[1]))
        self.parts = {name: PartCodec(part, self.spec.bins) for name, part in self.spec.parts.items()}
        for name, part in self.parts.items():
            for prefix, count in part.needs.items():
                self.require(prefix, count, f"value.parts.{name}")

    def units(self, value: Any, rng: Any) -> Iterable[list[int]]:
        """The ids of a value in pieces that stand or fall as wholes."""
        raise NotImplementedError

    def encode(self, value: Any, rng: Any = None) -> list[int]:
        ids: list[int] = []
        for unit in self.units(value, rng):
            if len(ids) + len(unit) >= self.max_tokens:
                break
            ids += unit
        return [*ids, EOS]

    def box(self, item: Any, n: int) -> list[float]:
        """The box of an item, checked: xmin, ymin, xmax, ymax."""
        if not isinstance(item, Mapping) or "box" not in item:
            raise self.bad(f"{self.item} {n}: {shown(item)}", f"a mapping with 'box' and {', '.join(self.parts)}")
        box = self.numbers(item["box"], 4, 0, 1, f"box of {self.item} {n}")
        if box[0] > box[2] or box[1] > box[3]:
            raise self.bad(f"{self.item} {n} with box {box}", "[xmin, ymin, xmax, ymax] with min at most max")
        return box

    def write_part(self, item: Mapping[str, Any], name: str, n: int) -> list[int]:
        part = self.parts[name]
        if name not in item:
            raise self.bad(f"{self.item} {n} without {name!r}", f"all of {', '.join(self.parts)}")
        numbers = self.numbers(item[name], part.count, *part.limits, f"{name} of {self.item} {n}")
        if part.whole and any(x != int(x) for x in numbers):
            raise self.bad(f"{name} of {self.item} {n}: {numbers}"[:200], "whole numbers")
        return self.special(map(part.write, numbers))

    def special(self, numbers: Iterable[tuple[str, int]]) -> list[int]:
        return [self.text.value(prefix, n) for prefix, n in numbers]

    def groups(self, ids: Sequence[int], problems: list[str]) -> list[Group]:
        """The groups of a sequence in order; tokens of none become problems."""
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
                group = None  # what follows is of unknown meaning, up to the next word
                stray.append(ids[at])
            at += 1
        if stray:
            shown = " ".join(map(self.text.piece, stray[:8])) + " …" * (len(stray) > 8)
            problems.append(f"{len(stray)} tokens belong to no {self.item}: {shown}")
        return found


class PartCodec:
    """The numbers of a part to special values and back."""

    def __init__(self, part: Part, bins: int):
        self.count, self.whole = part.count, part.range is None
        self.bins = None if part.range is None else Bins(*part.range, bins)
        self.limits: tuple[float, float] = (0, part.codes - 1) if self.whole else (-LARGEST, LARGEST)
        self.needs = {"v0": min(part.codes, HALF), "v1": max(0, part.codes - HALF)} if self.whole else {"v0": bins}
        meanings = range(part.codes) if self.bins is None else self.bins.centers
        self.meaning = {self.write(x): x for x in meanings}

    def write(self, x: float) -> tuple[str, int]:
        """Prefix and number of the special value."""
        if self.bins is not None:
            return "v0", self.bins.encode(x)
        return ("v0", int(x)) if x < HALF else ("v1", int(x) - HALF)

    def read(self, numbers: Sequence[tuple[str, int]]) -> list[float] | None:
        """What special values mean, None if they are not those of this part."""
        read = [self.meaning[n] for n in numbers if n in self.meaning]
        return read if len(read) == len(numbers) == self.count else None
