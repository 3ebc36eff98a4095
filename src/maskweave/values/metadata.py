"""Metadata: numbers by key, such as brightness, time of day or camera height."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.values import measures
from maskweave.values.array import check_range
from maskweave.values.base import Size, TextLabels, ValueType, refuse
from maskweave.values.codec import Bins, Codec, Slot, TextWriter
from maskweave.values.items import MAX_BINS, is_number
from maskweave.values.metrics import Metric
from maskweave.values.remarks import remark

REMARKED = 20
"""Unknown keys of a value that are named in remarks."""


@dataclass(frozen=True)
class Key:
    """One key of a metadata value."""

    id: int
    """Written as `v1=id`; never change it."""
    range: tuple[float, float]
    """Lowest and highest value; values outside are clipped."""
    bins: int = 50
    """The range is divided into this many equal bins; for whole numbers use highest - lowest + 1."""
    integer: bool = False
    """Values are whole numbers; bins are decoded to the whole number nearest to their center."""
    top: bool = False
    """The last bin holds only the highest value, and the others divide the range: bin = int((bins - 1) * fraction)."""
    splits: tuple[float, ...] = ()
    """Ascending cuts of the range, instead of equal bins; `bins` must be one more than the number of splits."""
    unit: str = ""
    """Unit of the number, for figures."""


@dataclass(frozen=True)
class Metadata(ValueType):
    """Numbers by key; a sample may lack some."""

    type: ClassVar[str] = "metadata"
    python: ClassVar[str] = "{key: number}"
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    default_metrics = ("mae",)
    derivations: ClassVar[Mapping[str, Callable[[Any, np.ndarray], Any]]] = {
        "image_statistics": lambda value, picture: derive_statistics(value, picture)
    }

    keys: dict[str, Key] = field(default_factory=dict)
    """Keys by name. Other keys in files are ignored; `maskweave data import` counts them, and the keys that values lack."""
    max_items: int = 0
    """Most pairs that are written; extra pairs at the end are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        if not self.keys:
            raise MaskweaveError("metadata needs value.keys")
        for name, key in self.keys.items():
            at = f"value.keys.{name}"
            check_range(*key.range, f"{at}.range")
            if not 0 <= key.id < MAX_BINS or not 1 + key.top <= key.bins <= MAX_BINS:
                raise MaskweaveError(
                    f"{at} needs an id from 0 and at least {1 + key.top} bin{'s' * key.top}, both at most {MAX_BINS:,}; found id {key.id}, bins {key.bins}"
                )
            cuts = (key.range[0], *key.splits, key.range[1])
            if key.splits and (key.bins != len(key.splits) + 1 or key.top or any(a >= b for a, b in pairwise(cuts))):
                raise MaskweaveError(
                    f"{at}.splits must ascend within its range, with one more bins than splits and without 'top', found {shown(key.splits)}, bins {key.bins}"
                )
        if len({key.id for key in self.keys.values()}) < len(self.keys):
            raise MaskweaveError("two metadata keys share an id; ids are stable and unique")

    def describe(self) -> str:
        return f"{self.type}, {len(self.keys)} keys"

    def check(self, value: Any, where: str) -> dict[str, float]:
        if not isinstance(value, Mapping):
            raise refuse(where, shown(value), "keys and numbers")
        known = {key: value[key] for key in self.keys if key in value}
        if not known:
            raise refuse(
                where,
                f"keys {', '.join(map(str, list(value)[:20])) or 'none'}"[:300],
                f"at least one of {', '.join(self.keys)}",
            )
        for key, number in known.items():
            if not is_number(number):
                raise refuse(where, f"{key} = {shown(number)}", "a finite number", "leave out unknown keys")
        unknown = [key for key in value if key not in self.keys]
        for key in unknown[:REMARKED]:
            remark(_unknown(str(key), tuple(self.keys)))
        if len(unknown) > REMARKED:
            remark(f"more than {REMARKED} unknown keys are ignored")
        for key in self.keys:
            if key not in known:
                remark(f"the key {key!r} is missing")
        return known

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that are whole numbers."""
        whole = {name: key.range for name, key in self.keys.items() if key.integer}
        return {name: tuple(str(n) for n in range(round(low), round(high) + 1)) for name, (low, high) in whole.items()}

    def label_of(self, value: Mapping[str, float], label: str) -> str:
        number, classes = value.get(label), self.labels[label]
        if number is None or str(round(number)) not in classes:
            raise BadSample(f"{label} is {number}; expected {classes[0]} to {classes[-1]}")
        return str(round(number))

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "MetadataCodec":
        return MetadataCodec(name, self, max_tokens, text)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`: over all keys as a share of each key's range, and for each key in its unit."""

        def finish(sums: np.ndarray) -> float:
            return float(sums[1].sum() / sums[2].sum()) if sums[2].sum() else math.nan

        def per_key(sums: np.ndarray) -> Sequence[float]:
            return [total / count if count else math.nan for total, count in zip(sums[0], sums[2], strict=True)]

        return {
            "mae": Metric(
                "MAE", "lower", self._errors, finish, median_keys, names=tuple(self.keys), finish_parts=per_key
            )
        }

    def derivation_gaps(self, by: str) -> tuple[bool, str]:
        missing = [key for key in self.keys if key not in DERIVED]
        if len(missing) == len(self.keys):
            return (
                False,
                f"skipped, none of its keys can be computed from a picture; possible keys: {', '.join(DERIVED)}",
            )
        return True, f"without {', '.join(missing)}, which cannot be computed from a picture" if missing else ""

    def _errors(self, prediction: Mapping[str, float], truth: Mapping[str, float]) -> np.ndarray:
        """(3, keys): errors in the keys' units, errors as shares of their ranges, and whether the truth has the key. The error of a key that is
        not predicted is its full range."""
        found = np.zeros((3, len(self.keys)))
        for i, (name, key) in enumerate(self.keys.items()):
            if name in truth:
                width = key.range[1] - key.range[0]
                error = abs(prediction[name] - truth[name]) if name in prediction else width
                found[:, i] = error, error / width, 1
        return found

    @property
    def wide(self) -> bool:
        return True

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.lettering import message, text_panel

        lines = []
        for name, number in value.items():
            text = f"{number:.0f}" if name in self.keys and self.keys[name].integer else f"{number:.4g}"
            lines.append(
                f"{name.replace('_', ' ')}: {text} {self.keys[name].unit if name in self.keys else ''}".rstrip()
            )
        return text_panel("\n".join(lines), size) if lines else message("none", size)


@lru_cache(maxsize=1024)
def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key[:100], known, n=1)
    return f"the unknown key {shown(key)} is ignored" + (f"; did you mean {near[0]!r}?" if near else "")


class MetadataCodec(Codec):
    """Encodes pairs in the order of the keys' ids, or shuffled if an rng is given; numbers are clipped to the key's range.

    Extra pairs at the end, which exceed max_tokens or max_items, are dropped.
    """

    item = "pair"

    def __init__(self, name: str, value: Metadata, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text)
        keys = dict(sorted(value.keys.items(), key=lambda pair: pair[1].id))
        self.most = self.capacity(2)
        self.require("v1", 1 + max(key.id for key in keys.values()), "the highest id of value.keys")
        self.require("v0", max(key.bins for key in keys.values()), "the most bins of value.keys")
        self.keys = {name: Bins(*key.range, key.bins, key.integer, key.top, key.splits) for name, key in keys.items()}
        self.ids = {name: text.value("v1", key.id) for name, key in keys.items()}
        self.level = text.value("v0", 0)
        names = Slot("v1=", {id: name for name, id in self.ids.items()})
        self.slots = [names, self.slot("v0", text.vocabulary.values["v0"])]

    def encode(self, value: Mapping[str, float], rng: np.random.Generator | None = None) -> list[int]:
        pairs = [
            [self.ids[name], self.level + bins.encode(value[name])] for name, bins in self.keys.items() if name in value
        ]
        order = range(len(pairs)) if rng is None else rng.permutation(len(pairs))
        return self.join([pairs[i] for i in order[: self.most]])

    def parse(self, ids: list[int], problems: list[str]) -> dict[str, float]:
        value: dict[str, float] = {}
        for name, bin in self.parse_items(ids, self.slots, problems):
            bins = self.keys[name]
            if name in value:
                problems.append(f"{name} appears twice; the first is kept")
            elif bin >= bins.count:
                problems.append(f"{name}: bin {bin}, but it has {bins.count} bins")
            else:
                value[name] = bins.centers[bin]
        return value


def median_keys(values: Sequence[Any]) -> dict[str, float]:
    """Median of each key."""
    names = dict.fromkeys(name for value in values for name in value)
    return {name: float(np.median([value[name] for value in values if name in value])) for name in names}


DERIVED = ("original_height", "original_width", *measures.STATISTICS)
"""Keys that can be computed from a picture."""


def derive_statistics(value: Metadata, picture: np.ndarray) -> dict[str, float]:
    """Computes an entry's keys from a picture: its statistics, and `original_width` and `original_height` in pixels."""
    known = {"original_height": picture.shape[0], "original_width": picture.shape[1], **measures.statistics(picture)}
    return {key: known[key] for key in value.keys if key in known}
