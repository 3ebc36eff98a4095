"""Boxes, palettes and metadata as short sequences of special values and class names, after 4M-21 (https://arxiv.org/abs/2406.09406).

| type | sequence |
| --- | --- |
| boxes | per box `v0=xmin v1=ymin v2=xmax v3=ymax class` |
| palette | `v1=n`, then per color `v0=red v0=green v0=blue` |
| metadata | per key `v1=id v0=bin` |
| instances | per instance `class`, four times `v0=`, a `v1=` for each row of the mask (`instances.py`) |
| poses, queries | words, each with special values (`groups.py`, `poses.py`, `queries.py`) |

Each ends with [EOS]. Where a vocabulary lacks a box coordinate's own prefix, or has too few of it, `v0` takes its place.
Encoding is exact up to bins: decoding gives the center of each bin (for whole numbers the nearest one inside it), so what
was decoded encodes to the same ids again. Decoding never fails: a model writes these sequences, and writes some wrongly.
"""

import math
import reprlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.entry import EOS, Modality
from maskweave.tokenizers.text import TextTokenizer


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
    """One place of an item: the ids that may stand there and what each means."""

    label: str
    meaning: Mapping[int, Any]


class Codec:
    """What the structured types share: errors, special values, classes and reading items one by one."""

    item = "item"

    def __init__(self, modality: Modality, text: TextTokenizer):
        self.name, self.spec, self.max_tokens = modality.name, modality.value, modality.max_tokens
        self.text = text

    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        """Ids of one value, [EOS] last.

        Raises:
            BadSample: the value is not of the type, shape or range that the entry declares.
        """
        raise NotImplementedError

    def read(self, ids: list[int], problems: list[str]) -> Any:
        """The value written by ids (without [EOS]); what is wrong is added to problems."""
        raise NotImplementedError

    def decode(self, ids: list[int]) -> Decoded:
        problems: list[str] = []
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        else:
            problems.append("no [EOS]: the sequence has no end")
        return Decoded(self.read(ids, problems), problems)

    def bad(self, found: Any, wanted: str) -> BadSample:
        return BadSample(f"modality {self.name!r}: found {found}, expected {wanted}")

    def require(self, prefix: str, count: int, because: str) -> None:
        """Refuse a vocabulary with fewer than `count` values of a prefix."""
        have = self.text.vocabulary.values.get(prefix, 0)
        if have < count:
            vocabulary = self.text.vocabulary.name
            raise MaskweaveError(
                f"modality {self.name!r}: {because} needs {prefix}=0 to {prefix}={count - 1}, but vocabulary {vocabulary!r} has {have} of {prefix}; set vocabularies.{vocabulary}.values.{prefix} to at least {count}, or lower {because}"
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
        """Most items of `width` tokens, beside `fixed` others, that a sequence holds."""
        fit = (self.max_tokens - fixed) // width
        if fit < 1:
            raise MaskweaveError(
                f"modality {self.name!r}: max_tokens {self.max_tokens} cannot hold one {self.item}, which with the end takes {width + fixed}; raise max_tokens"
            )
        return min(fit, self.spec.max_items) if self.spec.max_items else fit

    def items_of(self, value: Any) -> Sequence[Any]:
        if not isinstance(value, (list, tuple)):
            raise self.bad(type(value).__name__, f"a list of {self.item} items")
        return value

    def class_of(self, item: Any, n: int, part: str) -> str:
        if not isinstance(item, Mapping) or "class" not in item or part not in item:
            raise self.bad(f"{self.item} {n}: {reprlib.repr(item)}", f"a mapping with 'class' and {part!r}")
        name = item["class"]
        if not isinstance(name, str) or name not in self.classes:
            raise self.bad(
                f"{self.item} {n} of class {reprlib.repr(name)}", f"one of value.classes: {_some(self.spec.classes)}"
            )
        return name

    classes: Mapping[str, int] = {}

    def numbers(self, value: Any, count: int, low: float, high: float, label: str) -> list[float]:
        """`value` as a list of `count` numbers between low and high."""
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple)) or len(value) != count or not all(map(is_number, value)):
            raise self.bad(f"{label}: {reprlib.repr(value)}", f"{count} numbers from {low:g} to {high:g}")
        if not all(low <= x <= high for x in value):  # false for NaN too
            raise self.bad(
                f"{label}: {reprlib.repr(value)}", f"{count} numbers from {low:g} to {high:g}; clip or scale them"
            )
        return list(value)

    def join(self, items: Iterable[list[int]]) -> list[int]:
        return [id for item in items for id in item] + [EOS]

    def read_items(self, ids: list[int], slots: Sequence[Slot], problems: list[str], first: int = 0) -> list[list[Any]]:
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


class Boxes(Codec):
    """List of {"class": str, "box": [xmin, ymin, xmax, ymax]}, 0 to 1, nearest to the top left corner first.

    The order is by squared distance of the (binned) top-left corner from the origin, then by ids.
    """

    item = "box"

    def __init__(self, modality: Modality, text: TextTokenizer):
        super().__init__(modality, text)
        self.bins = Bins(0.0, 1.0, self.spec.bins)
        self.classes = self.class_ids()
        self.most = self.capacity(5)
        enough = {p for p, count in text.vocabulary.values.items() if count >= self.spec.bins}
        prefixes = [p if p in enough else "v0" for p in ("v0", "v1", "v2", "v3")]
        self.require("v0", self.spec.bins, "value.bins")
        self.starts = [text.value(prefix, 0) for prefix in prefixes]
        names = {id: name for name, id in self.classes.items()}
        self.slots = [*(self.slot(prefix, self.spec.bins) for prefix in prefixes), Slot("class", names)]

    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        items = []
        for n, item in enumerate(self.items_of(value)):
            name = self.class_of(item, n, "box")
            box = self.numbers(item["box"], 4, 0, 1, f"box {n}")
            if box[0] > box[2] or box[1] > box[3]:
                raise self.bad(
                    f"box {n}: {reprlib.repr(box)}",
                    "[xmin, ymin, xmax, ymax] with xmin at most xmax and ymin at most ymax",
                )
            bins = [self.bins.encode(x) for x in box]
            items.append(
                (corner_distance(bins), [s + b for s, b in zip(self.starts, bins, strict=True)] + [self.classes[name]])
            )
        return self.join(ids for _, ids in sorted(items)[: self.most])

    def read(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        boxes = []
        for n, (*bins, name) in enumerate(self.read_items(ids, self.slots, problems)):
            if bins[0] > bins[2] or bins[1] > bins[3]:
                problems.append(f"box {n} is reversed: bins {bins}")
            else:
                boxes.append({"class": name, "box": [self.bins.centers[b] for b in bins]})
        return boxes


class Palette(Codec):
    """List of [red, green, blue], 0 to 255, in the order given; whole levels to half a bin, exact with 256 bins."""

    item = "color"

    def __init__(self, modality: Modality, text: TextTokenizer):
        super().__init__(modality, text)
        if self.spec.bins > 256:
            raise MaskweaveError(
                f"modality {self.name!r}: value.bins {self.spec.bins} is more than the 256 levels of a color; set 256 or fewer"
            )
        self.bins = Bins(0, 256, self.spec.bins, integer=True)
        self.most = self.capacity(3, fixed=2)
        self.require("v0", self.spec.bins, "value.bins")
        self.require("v1", self.most + 1, "value.max_items")
        self.level = text.value("v0", 0)
        self.slots = [self.slot("v0", self.spec.bins)] * 3

    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        colors = [self.numbers(color, 3, 0, 255, f"color {n}") for n, color in enumerate(self.items_of(value))]
        kept = colors[: self.most]
        count = self.text.value("v1", len(kept))
        return [count, *self.join([self.level + self.bins.encode(x) for x in color] for color in kept)]

    def read(self, ids: list[int], problems: list[str]) -> list[list[int]]:
        prefix, count = (self.text.as_value(ids[0]) if ids else None) or ("", 0)
        start = int(prefix == "v1")
        if not start:
            problems.append("no v1=, the number of colors, at the start")
        items = self.read_items(ids, self.slots, problems, first=start)
        if start and len(items) != count:
            problems.append(f"{len(items)} colors where {count} were announced")
        return [[int(self.bins.centers[b]) for b in item] for item in items]


class Metadata(Codec):
    """{key: number}; keys may be left out. By id, or in random order where an rng is given; numbers are clipped to the key's range.

    Pairs for which max_tokens leaves no room are not written, the last ones of that order.
    """

    item = "pair"

    def __init__(self, modality: Modality, text: TextTokenizer):
        super().__init__(modality, text)
        keys = dict(sorted(self.spec.keys.items(), key=lambda pair: pair[1].id))
        self.most = self.capacity(2)
        if min(key.id for key in keys.values()) < 0 or min(key.bins for key in keys.values()) < 1:
            raise MaskweaveError(f"modality {self.name!r}: value.keys need ids from 0 and at least 1 bin")
        self.require("v1", 1 + max(key.id for key in keys.values()), "the highest id of value.keys")
        self.require("v0", max(key.bins for key in keys.values()), "the most bins of value.keys")
        self.keys = {name: Bins(*key.range, key.bins, key.integer, key.top, key.splits) for name, key in keys.items()}
        self.ids = {name: text.value("v1", key.id) for name, key in keys.items()}
        self.level = text.value("v0", 0)
        self.slots = [
            Slot("v1=", {id: name for name, id in self.ids.items()}),
            self.slot("v0", text.vocabulary.values["v0"]),
        ]

    def encode(self, value: Any, rng: np.random.Generator | None = None) -> list[int]:
        if not isinstance(value, Mapping):
            raise self.bad(type(value).__name__, "a mapping of keys to numbers")
        for name, x in value.items():
            if name not in self.keys:
                raise self.bad(f"key {reprlib.repr(name)}", f"keys among {_some(self.keys)}")
            if not is_number(x) or not -math.inf < x < math.inf:
                raise self.bad(f"{name} = {reprlib.repr(x)}", "a finite number; leave out what is not known")
        pairs = [
            [self.ids[name], self.level + bins.encode(value[name])] for name, bins in self.keys.items() if name in value
        ]
        order = range(len(pairs)) if rng is None else rng.permutation(len(pairs))
        return self.join([pairs[i] for i in order[: self.most]])

    def read(self, ids: list[int], problems: list[str]) -> dict[str, float]:
        value: dict[str, float] = {}
        for name, bin in self.read_items(ids, self.slots, problems):
            bins = self.keys[name]
            if name in value:
                problems.append(f"{name} stands there twice; the first counts")
            elif bin >= bins.count:
                problems.append(f"{name}: bin {bin}, but it has {bins.count}")
            else:
                value[name] = bins.centers[bin]
        return value


def corner_distance(bins: Sequence[int]) -> int:
    """Squared distance of a box's top-left corner, in half bins, so that decoding keeps the order."""
    return (2 * bins[0] + 1) ** 2 + (2 * bins[1] + 1) ** 2


def is_number(x: Any) -> bool:
    return type(x) in (int, float) or (isinstance(x, Real) and not isinstance(x, bool))


def _some(names: Iterable[str]) -> str:
    """The first of many names, for an error message."""
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
