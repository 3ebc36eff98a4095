"""Facts about the values of a data set, for the entries of a catalog: what is missing, unusable, unknown or changed when it is read, how large
values are, and how their numbers, classes and texts are distributed."""

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.arguments import check_arguments
from maskweave.data.folders import AlignedFiles, list_aligned
from maskweave.data.import_source import SourceSamples
from maskweave.data.importing import Samples
from maskweave.data.mirror import local_place
from maskweave.data.opening import is_importable, open_data
from maskweave.data.part_source import PartSource
from maskweave.data.parts import noting
from maskweave.data.shards import RANGES, Shards
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import progress
from maskweave.values.sound import Sound

POINTS = 2000
"""Most points of one channel of a value that the distribution of numbers is computed from."""
MOST_NUMBERS = 2_000_000
"""Most numbers of one channel that are kept; from then on, every second one is dropped."""
BINS = 20
MOST_CHANNELS = 16
"""Values with more channels have one histogram for all of them."""
COLORS = ("red", "green", "blue", "alpha")
TRIM = 0.005
"""Share of the numbers at either end that histograms leave out, if they are far from the others."""


@dataclass
class Histogram:
    """Counts of numbers or of names."""

    labels: list[str]
    """Ranges of numbers, or names."""
    counts: list[int]
    title: str
    """What is counted."""


class Kept:
    """Some of many numbers."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._count = 0

    def add(self, numbers: np.ndarray) -> None:
        if len(numbers) > POINTS:
            numbers = numbers[np.random.default_rng(0).integers(0, len(numbers), POINTS)]
        self._parts.append(numbers.astype(np.float64))
        self._count += len(numbers)
        if self._count > MOST_NUMBERS:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._count = len(self._parts[0])

    @property
    def numbers(self) -> np.ndarray:
        return np.concatenate(self._parts)


@dataclass
class ModalityStats:
    """What was found of one modality."""

    modality: Modality
    present: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Names and reasons of unusable values."""
    remarks: Counter[str] = field(default_factory=Counter)
    """How often reading changed a value, by what was changed."""
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """Own sizes of values, before they are fitted."""
    points: int = 0
    unknown: int = 0
    """Unknown ones among the points."""
    whole: int = 0
    """Values in which all points are known."""
    names: Counter[str] = field(default_factory=Counter)
    """Classes, tags or kinds of objects."""
    keys: dict[str, list[float]] = field(default_factory=dict)
    """Numbers by the key of an object."""
    lengths: list[int] = field(default_factory=list)
    """Characters of texts, or items of lists."""
    low: float = np.inf
    high: float = -np.inf
    channels: dict[str, Kept] = field(default_factory=dict)
    """Numbers by the name of the channel; an empty name: of all channels together."""

    def add(self, value: Any) -> None:
        """Count a checked value."""
        v = self.modality.value
        self.present += 1
        extent = v.extent(value)
        if extent is not None:
            self.sizes[tuple(extent)] += 1
        if isinstance(value, np.ndarray):
            self._add_array(value, v.known(value), bool(v.num_classes))
        elif isinstance(value, Sound):
            self.keys.setdefault("seconds", []).append(value.seconds)
            self._add_array(value.log_mel, np.ones(value.log_mel.shape, bool), False)
        elif isinstance(value, Mapping):
            for key, number in value.items():
                if isinstance(number, (int, float)):
                    self.keys.setdefault(str(key), []).append(float(number))
        elif isinstance(value, str):
            if v.classes:
                self.names[value] += 1
            else:
                self.lengths.append(len(value))
        elif isinstance(value, (int, float)):
            self._add_numbers("", np.array([value], np.float64))
        elif isinstance(value, (list, tuple, set, frozenset)):
            self.lengths.append(len(value))
            for item in value:
                name = item.get("class") if isinstance(item, Mapping) else item
                if isinstance(name, str):
                    self.names[name] += 1

    def _add_array(self, value: np.ndarray, known: np.ndarray, ids: bool) -> None:
        self.points += known.size
        missing = known.size - int(known.sum())
        self.unknown += missing
        self.whole += not missing
        if ids:
            classes, found = self.modality.value.classes, value[known]
            if len(found) > POINTS:
                found = found[np.random.default_rng(0).integers(0, len(found), POINTS)]
            for number, count in zip(*np.unique(found.astype(np.int64), return_counts=True), strict=True):
                name = classes[number] if 0 <= number < len(classes) else str(number)
                self.names[name] += int(count)
            return
        if known.shape == value.shape[:-1]:  # a picture with alpha: a point is known as a whole
            known = np.broadcast_to(known[..., None], value.shape)
        elif known.shape != value.shape:
            known = np.ones(value.shape, bool)
        names = self._channel_names(value)
        for c, name in enumerate(names):
            at = (..., c) if len(names) > 1 else ...
            self._add_numbers(name, value[at][known[at]])

    def _channel_names(self, value: np.ndarray) -> Sequence[str]:
        """Names of the channels along the last axis of an array; one empty name if there is one channel, or too many."""
        v = self.modality.value
        count = value.shape[-1] if v.channels > 1 else 1
        if not 1 < count <= MOST_CHANNELS:
            return [""]
        named = getattr(v, "channel_labels", ()) or (COLORS[:count] if v.is_photograph and count > 2 else ())
        return named if len(named) == count else [str(c) for c in range(count)]

    def _add_numbers(self, channel: str, numbers: np.ndarray) -> None:
        if numbers.size:
            self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
            self.channels.setdefault(channel, Kept()).add(numbers)

    @property
    def never(self) -> list[str]:
        """Keys and classes of the entry that no value has."""
        value = self.modality.value
        found = {**self.keys, **self.names}
        keys = getattr(value, "all_keys", {})  # of metadata
        expected = [*keys, *value.classes]
        return [str(name) for name in expected if str(name) not in found] if self.present else []

    def histograms(self) -> list[Histogram]:
        """Returns the distributions of its numbers, classes and lengths."""
        value, found = self.modality.value, []
        units = dict(zip(getattr(value, "channel_labels", ()), getattr(value, "channel_units", ()), strict=False))
        for channel, kept in self.channels.items():
            unit = units.get(channel) or value.unit
            title = (f"channel {channel}" if channel else "numbers") + (f" in {unit}" if unit else "")
            found.append(of_numbers(kept.numbers, title))
        found += [of_numbers(np.array(numbers), key) for key, numbers in self.keys.items()]
        if self.names:
            shown = self.names.most_common(BINS)
            title = f"most frequent {BINS} of {len(self.names)} classes" if len(self.names) > BINS else "classes"
            found.append(Histogram([name for name, _ in shown], [count for _, count in shown], title))
        if self.lengths:
            what = "characters" if self.modality.value.is_text else "items"
            found.append(of_numbers(np.array(self.lengths), what))
        return found


@dataclass
class DataStats:
    """What was found in a data set."""

    place: str
    samples: int
    read: int
    """Samples that were read."""
    modalities: dict[str, ModalityStats]
    skipped: list[tuple[str, str]]
    """Names and reasons of samples that cannot be used at all."""


@check_arguments
def data_stats(
    place: str | os.PathLike[str], catalog: Catalog, limit: int = 0, seconds: float = math.inf, **options: Any
) -> DataStats:
    """Read the samples of a data set, or of aligned folders that are not imported.

    Args:
        limit: read at most so many samples, evenly spread over all; 0: all.
        seconds: start reading no further sample after so many. Samples are then read in random order, so those that were read are spread over all.
        options: further arguments of `open_data`.

    Raises:
        MaskweaveError: the data set cannot be opened, or limit is negative.
    """
    if limit < 0:
        raise MaskweaveError(f"--limit must be 0 (all samples) or more, found {limit}")
    end = time.monotonic() + seconds
    place = os.fspath(place)
    samples = _opened(place, catalog, options)
    count = len(samples.keys)
    indices = np.unique(np.linspace(0, count - 1, min(limit or count, count)).round().astype(int)).tolist()
    if seconds < math.inf:
        indices = np.random.default_rng(0).permutation(indices).tolist()
    stats = DataStats(place, count, 0, {n: ModalityStats(m) for n, m in samples.entries.items()}, [])
    with progress("read", len(indices)) as bar:
        for i in indices:
            _count(stats, samples, i)
            stats.read += 1
            bar.advance(1)
            if time.monotonic() > end:
                break
    return stats


def _opened(place: str, catalog: Catalog, options: Mapping[str, Any]) -> Samples:
    place = local_place(place)
    path = Path(place)
    if path.is_dir() and not (path / RANGES).is_dir() and not is_importable(place, catalog):
        listing, entries = list_aligned(path, catalog)
        return AlignedFiles(place, catalog, entries, listing)
    return SourceSamples(place, open_data(place, catalog, **options), catalog)


def _count(stats: DataStats, samples: Samples, i: int) -> None:
    key = samples.keys[i]
    with noting("part") as notes:
        try:
            values = dict(_values(samples, i))
            fit(values, samples.catalog)  # for its remarks
        except BadSample as error:
            stats.skipped.append((key, str(error)))
            return
    for name, value in values.items():
        stats.modalities[name].add(value)
    for name, reason in notes.dropped.items():
        stats.modalities[name].faults.append((key, reason))
    for (name, text), number in notes.remarks.items():
        stats.modalities[name].remarks[text] += number


def _values(samples: Samples, i: int) -> Iterator[tuple[str, Any]]:
    """The values of a sample at their own sizes, where the data set has those."""
    source = samples.source if isinstance(samples, SourceSamples) else None
    if isinstance(source, Shards):
        yield from source.raw(i).items()
    elif source is None or isinstance(source, PartSource):
        yield from ((part.modality, part.value) for part in samples.read(i))
    else:
        yield from ((name, value) for name, value in source[i].items() if name in samples.entries)


def of_numbers(numbers: np.ndarray, title: str) -> Histogram:
    """Returns the distribution of numbers, at least one. Numbers far from all others are counted in the first or last bin."""
    low, high = np.quantile(numbers, (TRIM, 1 - TRIM)) if len(numbers) > 1 / TRIM else (numbers.min(), numbers.max())
    margin = high - low
    low, high = max(low - margin, numbers.min()), min(high + margin, numbers.max())
    if (numbers == np.round(numbers)).all() and high - low < 1e9:
        first, last = int(low), int(high)
        step = -(-(last - first + 1) // BINS)
        starts = range(first, last + 1, step)
        edges = np.array([*starts, starts[-1] + step]) - 0.5
        labels = [f"{start}" if step == 1 else f"{start} to {start + step - 1}" for start in starts]
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        labels = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
    counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
    return Histogram(labels, counts.tolist(), title)
