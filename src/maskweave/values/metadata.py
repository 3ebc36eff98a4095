"""Metadata: numbers by key, such as brightness, time of day or camera height."""

import difflib
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import BadSample, LackingSample, MaskweaveError, shown
from maskweave.values import measures
from maskweave.values.array import check_range
from maskweave.values.base import Size, TextLabels, ValueType, refuse
from maskweave.values.codec import Bins, Codec, Slot, TextWriter
from maskweave.values.dates import MOST_FRAMES, Part, keys_of_frames, numbers_of, numbers_of_frames
from maskweave.values.items import MAX_BINS, is_number
from maskweave.values.metrics import Metric, explained_variance, mean
from maskweave.values.remarks import remark
from maskweave.values.scalar import Scalar
from maskweave.values.scales import Scale, check_scale, from_scale, to_scale

REMARKED = 20
"""Unknown keys of a value that are named in remarks."""


@dataclass(frozen=True)
class Key:
    """One key of a metadata value."""

    id: int
    """Written as `v1=id`; never change it."""
    range: tuple[float, float]
    """Lowest and highest value."""
    clip: bool = True
    """Values outside of the range are clipped to it; false: they are refused."""
    scale: Scale = "linear"
    """`log` or `asinh`: bins are equal on this scale, and errors are measured on it, for numbers that span powers of ten."""
    softening: float = 1.0
    """Scale `asinh`: numbers below it are on a nearly linear scale, in `unit`."""
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
    of: str = ""
    """Name of the number in files, if it is another one."""
    date: Part = "none"
    """The number is this part of a date in ISO 8601, such as 2021-03-05T10:30: the year, the day of the year (1 to 366) or the hour (0 to 24)."""

    def on_scale(self, number: float) -> float:
        """Returns a number, clipped to the range, on the scale; unchanged on a linear one."""
        if self.scale == "linear":
            return number
        return float(to_scale(min(max(number, self.range[0]), self.range[1]), self.scale, self.softening))


@dataclass(frozen=True)
class Metadata(ValueType):
    """Numbers by key; a sample may lack some."""

    type: ClassVar[str] = "metadata"
    python: ClassVar[str] = (
        "{key: number}; with `dates`, {key@frame: number}, and a list of objects or dates is accepted"
    )
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    default_metrics = ("mae",)
    report_facts = ("keys.*.unit",)
    derivations: ClassVar[Mapping[str, Callable[[Any, np.ndarray], Any]]] = {
        "image_statistics": lambda value, picture: derive_statistics(value, picture)
    }

    keys: dict[str, Key] = field(default_factory=dict)
    """Keys by name. Other keys in files are ignored; `maskweave data import` counts them, and the keys that values lack."""
    max_items: int = 0
    """Most pairs that are written; extra pairs at the end are dropped. 0: as many as fit."""
    dates: int = 0
    """Metadata of a time series of up to this many frames: a list with an object, a date or null for each, which have the keys `NAME@0`, `NAME@1`, …"""

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
            check_scale(key.scale, key.softening, key.range[0], f"{at}.")
            if key.scale != "linear" and (key.integer or key.splits):
                raise MaskweaveError(
                    f"{at}: scale {key.scale!r} is for numbers in equal bins; remove it, or 'integer' and 'splits'"
                )
            cuts = (key.range[0], *key.splits, key.range[1])
            if key.splits and (key.bins != len(key.splits) + 1 or key.top or any(a >= b for a, b in pairwise(cuts))):
                raise MaskweaveError(
                    f"{at}.splits must ascend within its range, with one more bins than splits and without 'top', found {shown(key.splits)}, bins {key.bins}"
                )
        if len({key.id for key in self.keys.values()}) < len(self.keys):
            raise MaskweaveError("two metadata keys share an id; ids are stable and unique")
        if not 0 <= self.dates <= MOST_FRAMES:
            raise MaskweaveError(f"value.dates must be 0 to {MOST_FRAMES}, found {self.dates}")
        if max(key.id for key in self.all_keys.values()) >= MAX_BINS:
            raise MaskweaveError(
                f"value.dates: the ids of all frames' keys must be below {MAX_BINS:,}; lower value.dates or the keys' ids"
            )

    @functools.cached_property
    def all_keys(self) -> dict[str, Key]:
        """The keys, of every frame if there are `dates`."""
        return keys_of_frames(self.keys, self.dates) if self.dates else self.keys

    def by_key(self, value: Any, where: str) -> Any:
        """Converts a value as files have it to numbers by key."""
        if self.dates:
            return numbers_of_frames(value, self.keys, self.dates, where)
        return numbers_of(value, self.keys, where)

    def describe(self) -> str:
        return f"{self.type}, {len(self.all_keys)} keys"

    def check(self, value: Any, where: str) -> dict[str, float]:
        value = self.by_key(value, where)
        known = {key: value[key] for key in self.all_keys if key in value}
        if not known:
            raise refuse(
                where,
                f"keys {', '.join(map(str, list(value)[:20])) or 'none'}"[:300],
                f"at least one of {', '.join(self.all_keys)}",
            )
        for key, number in known.items():
            low, high = self.all_keys[key].range
            if not is_number(number):
                raise refuse(where, f"{key} = {shown(number)}", "a finite number", "leave out unknown keys")
            if not low <= number <= high and not self.all_keys[key].clip:
                unit = self.all_keys[key].unit
                raise refuse(where, f"{key} = {number:.6g}", f"{low:g} to {high:g} {unit}".rstrip(), "widen its range")
        unknown = [key for key in value if key not in self.all_keys]
        for key in unknown[:REMARKED]:
            remark(_unknown(str(key), tuple(self.all_keys)))
        if len(unknown) > REMARKED:
            remark(f"more than {REMARKED} unknown keys are ignored")
        for key in self.all_keys:
            if key not in known:
                remark(f"the key {key!r} is missing")
        return known

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """Returns the content without the keys that are null or NaN; None if all of the entry's are."""
        found = super().parse(content, ending, where)
        if found is None:
            return None
        found = self.by_key(found, where)
        known = {key: number for key, number in found.items() if not _is_unknown(number)}
        says_nothing = any(key in found for key in self.all_keys) and not any(key in known for key in self.all_keys)
        return None if says_nothing or (self.dates and not known) else known

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that are whole numbers."""
        whole = {name: key.range for name, key in self.all_keys.items() if key.integer}
        return {name: tuple(str(n) for n in range(round(low), round(high) + 1)) for name, (low, high) in whole.items()}

    def label_of(self, value: Mapping[str, float], label: str) -> str:
        number, classes = value.get(label), self.labels[label]
        if number is None:
            raise LackingSample(f"the key {label!r} is missing")
        if str(round(number)) not in classes:
            raise BadSample(f"{label} is {number}; expected {classes[0]} to {classes[-1]}")
        return str(round(number))

    @property
    def numbers(self) -> Mapping[str, ValueType]:
        """Keys that are not whole numbers."""
        return {
            name: Scalar(
                scale=key.scale,
                softening=key.softening,
                range=key.range,
                outside="clip" if key.clip else "refuse",
                unit=key.unit,
            )
            for name, key in self.keys.items()
            if not key.integer
        }

    def number_of(self, value: Mapping[str, float], name: str) -> float:
        number = value.get(name)
        if number is None:
            raise LackingSample(f"the key {name!r} is missing")
        return min(max(float(number), self.keys[name].range[0]), self.keys[name].range[1])

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "MetadataCodec":
        return MetadataCodec(name, self, max_tokens, text)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`: over all keys as a share of each key's range, on its scale, and for each key in its unit. `r2`: the explained share of the variance on
        each key's scale, and its mean over the keys. `accuracy`: the share of exact whole numbers, over all integer keys and for each."""

        def finish(sums: np.ndarray) -> float:
            return float(sums[1].sum() / sums[2].sum()) if sums[2].sum() else math.nan

        def per_key(sums: np.ndarray) -> Sequence[float]:
            return [total / count if count else math.nan for total, count in zip(sums[0], sums[2], strict=True)]

        def explained(sums: np.ndarray) -> list[float]:
            return [explained_variance(of_key) if of_key[3] else math.nan for of_key in sums.T]

        def mean_explained(sums: np.ndarray) -> float:
            found = [share for share in explained(sums) if math.isfinite(share)]
            return sum(found) / len(found) if found else math.nan

        whole = tuple(name for name, key in self.all_keys.items() if key.integer)
        return {
            "mae": Metric(
                "MAE", "lower", self._errors, finish, median_keys, names=tuple(self.all_keys), finish_parts=per_key
            ),
            "r2": Metric(
                "R²",
                "higher",
                self._variances,
                mean_explained,
                self._means,
                names=tuple(self.all_keys),
                finish_parts=explained,
            ),
            "accuracy": Metric("accuracy", "higher", partial(self._exact, whole), mean, _most_frequent, names=whole),
        }

    def derivation_gaps(self, by: str) -> tuple[bool, str]:
        missing = [key for key in self.all_keys if key not in DERIVED]
        if len(missing) == len(self.all_keys):
            return (
                False,
                f"skipped, none of its keys can be computed from a picture; possible keys: {', '.join(DERIVED)}",
            )
        return True, f"without {', '.join(missing)}, which cannot be computed from a picture" if missing else ""

    def _errors(self, prediction: Mapping[str, float], truth: Mapping[str, float]) -> np.ndarray:
        """(3, keys): errors in the keys' units, errors as shares of their ranges, and whether the truth has the key. The error of a key that is
        not predicted is its full range."""
        found = np.zeros((3, len(self.all_keys)))
        for i, (name, key) in enumerate(self.all_keys.items()):
            if name in truth:
                width = key.range[1] - key.range[0]
                error = abs(prediction[name] - truth[name]) if name in prediction else width
                share = error / width
                if name in prediction and key.scale != "linear":
                    low, high = map(key.on_scale, key.range)
                    share = abs(key.on_scale(prediction[name]) - key.on_scale(truth[name])) / (high - low)
                found[:, i] = error, share, 1
        return found

    def _variances(self, prediction: Mapping[str, float], truth: Mapping[str, float]) -> np.ndarray:
        """(4, keys): squared error, truth, squared truth, on the key's scale, and whether the truth has the key. A key that is not predicted
        counts as the middle of its range."""
        found = np.zeros((4, len(self.all_keys)))
        for i, (name, key) in enumerate(self.all_keys.items()):
            if name in truth:
                low, high = map(key.on_scale, key.range)
                t = key.on_scale(truth[name])
                p = key.on_scale(prediction[name]) if name in prediction else (low + high) / 2
                found[:, i] = (p - t) ** 2, t, t**2, 1
        return found

    def _means(self, values: Sequence[Any]) -> dict[str, float]:
        """Mean of each key on its scale."""
        means = {}
        for name, key in self.all_keys.items():
            if found := [key.on_scale(value[name]) for value in values if name in value]:
                means[name] = float(from_scale(np.mean(found), key.scale, key.softening))
        return means

    def _exact(self, names: Sequence[str], prediction: Mapping[str, float], truth: Mapping[str, float]) -> np.ndarray:
        """(2, names): whether the whole number is right, and whether the truth has the key."""
        known = [name in truth for name in names]
        right = [name in truth and prediction.get(name) == round(truth[name]) for name in names]
        return np.array([right, known], np.float64)

    @property
    def wide(self) -> bool:
        return True

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.lettering import message, text_panel

        lines = []
        for name, number in value.items():
            text = f"{number:.0f}" if name in self.all_keys and self.all_keys[name].integer else f"{number:.4g}"
            lines.append(
                f"{name.replace('_', ' ')}: {text} {self.all_keys[name].unit if name in self.all_keys else ''}".rstrip()
            )
        return text_panel("\n".join(lines), size) if lines else message("none", size)


@lru_cache(maxsize=1024)
def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key[:100], known)
    return f"the unknown key {shown(key)} is ignored" + (f"; did you mean {near[0]!r}?" if near else "")


class MetadataCodec(Codec):
    """Encodes pairs in the order of the keys' ids, or shuffled if an rng is given; numbers are clipped to the key's range.

    Extra pairs at the end, which exceed max_tokens or max_items, are dropped.
    """

    item = "pair"

    def __init__(self, name: str, value: Metadata, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text)
        keys = dict(sorted(value.all_keys.items(), key=lambda pair: pair[1].id))
        self.most = self.capacity(2)
        self.require("v1", 1 + max(key.id for key in keys.values()), "the highest id of value.keys")
        self.require("v0", max(key.bins for key in keys.values()), "the most bins of value.keys")
        self.keys = {name: _bins(key) for name, key in keys.items()}
        self.centers = {
            name: from_scale(bins.centers, keys[name].scale, keys[name].softening).tolist()
            if keys[name].scale != "linear"
            else bins.centers
            for name, bins in self.keys.items()
        }
        self.ids = {name: text.value("v1", key.id) for name, key in keys.items()}
        self.level = text.value("v0", 0)
        names = Slot("v1=", {id: name for name, id in self.ids.items()})
        self.slots = [names, self.slot("v0", text.vocabulary.values["v0"])]

    def encode(self, value: Mapping[str, float], rng: np.random.Generator | None = None) -> list[int]:
        pairs = [
            [self.ids[name], self.level + bins.encode(self.spec.all_keys[name].on_scale(value[name]))]
            for name, bins in self.keys.items()
            if name in value
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
                value[name] = self.centers[name][bin]
        return value


def _bins(key: Key) -> Bins:
    """The bins of a key on its scale."""
    low, high = map(key.on_scale, key.range)
    return Bins(low, high, key.bins, key.integer, key.top, key.splits)


def _is_unknown(number: Any) -> bool:
    return number is None or (isinstance(number, float) and math.isnan(number))


def _most_frequent(values: Sequence[Any]) -> dict[str, float]:
    """Most frequent number of each key."""
    names = dict.fromkeys(name for value in values for name in value)
    return {name: Counter(round(v[name]) for v in values if name in v).most_common(1)[0][0] for name in names}


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
