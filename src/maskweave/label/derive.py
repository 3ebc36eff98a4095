"""Labels that need no network: what can be computed from a data set's pictures is added beside them as further shards.

By value type: binary values are Canny edges, palettes are dominant colors, metadata are statistics of the picture and its size. Each
label has its picture's resolution and key. ROOT/MODALITY/label.json says that a folder was made here and from which pictures,
and ROOT/MODALITY/shard-00000.skipped.jsonl which pictures could not be used.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.config import plain
from maskweave.data.codecs import encode
from maskweave.data.error_budget import SKIPPED, ErrorBudget, named, read_skipped, write_skipped
from maskweave.data.shards import FORMAT, Shards, Tars
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json, remove, write_json
from maskweave.label import measures
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import Progress, progress

RECORD = "label.json"
SAMPLES_IN_MEMORY = 64
SIZE_KEYS: dict[str, int] = {"original_height": 0, "original_width": 1}
STATISTICS = ("brightness", "contrast", "colorfulness", "saturation", "entropy")


@dataclass(frozen=True)
class LabelReport:
    """What labeling did."""

    root: Path
    picture: str
    """The modality that the labels were computed from; empty if there was nothing to label."""
    labels: dict[str, int]
    """Samples by labeled modality, new and kept."""
    kept: int
    """Shards that an earlier run had finished."""
    skipped: list[tuple[str, str]]
    notes: list[str]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.labels.items()) or "nothing to label"
        kept = f" ({self.kept} shards kept from an earlier run)" if self.kept else ""
        lines = [f"{self.root}: {counts}{kept}", *self.notes]
        if self.skipped:
            lines += [f"skipped {len(self.skipped)} samples:", named(self.skipped)]
        return "\n".join(lines)


def label(root: str | os.PathLike[str], catalog: Catalog, limit: float = 0.01, jobs: int = 1) -> LabelReport:
    """Add shards for the entries of type binary, palette and metadata that the data set has no values of.

    They are computed from the first entry of color pictures that it has. Started again, it keeps finished shards whose pictures have not
    changed. A metadata entry gets those of its keys that can be computed: brightness, contrast, colorfulness, saturation, entropy, and
    original_width and original_height in pixels.

    Args:
        root: an imported data set, or one in the same layout.
        limit: largest share of unusable pictures, 0 to 1, checked once 100 were seen and at the end.
        jobs: pictures measured at the same time.

    Raises:
        MaskweaveError: root is not a finished data set, has no pictures, or too many are unusable.
        FullDisk: no space is left; finished shards stay.
    """
    if jobs < 1:
        raise MaskweaveError(f"jobs must be 1 or more, found {jobs}")
    shards = Shards(root, catalog)
    skips = ErrorBudget(limit)
    notes: list[str] = []
    measured = _measures(shards, notes)
    if not measured:
        return LabelReport(shards.root, "", {}, 0, [], notes)
    pictures = [name for name in shards.names if _is_picture(catalog[name])]
    if not pictures:
        raise MaskweaveError(
            f"{shards.root}: labels are computed from pictures; expected shards of an entry of type 'image' with 3 channels, found {', '.join(shards.names)}"
        )
    work = _Labels(shards, pictures[0], measured)
    kept = 0
    with progress("label", len(shards)) as bar, ThreadPoolExecutor(jobs) as pool:
        for shard in shards.shards:
            if work.finished(shard):
                kept += 1
                name, record = next(iter(work.records.items()))
                part = record["shards"][shard]
                for key, reason in read_skipped(work.skipped(shard, name), part["skipped"]):
                    skips.bad(key, reason)
                skips.good(part["samples"])
                bar.advance(len(shards.keys_of(shard)))
            else:
                work.write(shard, skips, bar, pool)
            skips.check()
    skips.check(finished=True)
    counts = {name: sum(part["samples"] for part in record["shards"].values()) for name, record in work.records.items()}
    return LabelReport(shards.root, work.picture, counts, kept, skips.skipped, notes)


def _is_picture(entry: Modality) -> bool:
    return entry.value.type == "image" and len(entry.value.size) == 2 and entry.value.channels == 3


def _measures(shards: Shards, notes: list[str]) -> dict[str, Callable[[np.ndarray], Any]]:
    """How to compute each label that the data set lacks, from a picture, uint8 (H, W, 3)."""
    measured: dict[str, Callable[[np.ndarray], Any]] = {}
    for name, entry in shards.catalog.items():
        if entry.source or entry.value.type not in ("binary", "palette", "metadata"):
            continue
        if name in shards.names and not (shards.root / name / RECORD).exists():
            notes.append(f"{name}: left as it is, the data set has its own values")
            continue
        match entry.value.type:
            case "binary" if len(entry.value.size) == 2:
                measured[name] = measures.edges
            case "palette":
                measured[name] = _palette_of(entry)
            case "metadata":
                keys = [key for key in entry.value.keys if key in STATISTICS or key in SIZE_KEYS]
                if keys:
                    measured[name] = _metadata_of(keys)
                    missing = [key for key in entry.value.keys if key not in keys]
                    if missing:
                        notes.append(f"{name}: without {', '.join(missing)}, which pictures do not tell")
                else:
                    notes.append(
                        f"{name}: left out, none of its keys can be computed; known: {', '.join((*STATISTICS, *SIZE_KEYS))}"
                    )
    return measured


def _palette_of(entry: Modality) -> Callable[[np.ndarray], Any]:
    most = entry.value.max_items or 7
    return lambda image: measures.palette(image, most)


def _metadata_of(keys: list[str]) -> Callable[[np.ndarray], Any]:
    def compute(image: np.ndarray) -> dict[str, float]:
        known: dict[str, float] = {key: image.shape[axis] for key, axis in SIZE_KEYS.items()}
        known |= measures.statistics(image)
        return {key: known[key] for key in keys}

    return compute


class _Labels:
    """Writes the labels of one shard after another and keeps a record of them in each label's folder."""

    def __init__(self, shards: Shards, picture: str, measured: dict[str, Callable[[np.ndarray], Any]]):
        self.shards, self.picture, self.measured = shards, picture, measured
        self.records: dict[str, dict[str, Any]] = {}
        for name in measured:
            folder = shards.root / name
            for path in folder.glob(".*.partial"):  # of a killed run
                remove(path)
            facts = {
                "format": FORMAT,
                "made_from": picture,
                "value": json.loads(json.dumps(plain(shards.catalog[name].value))),
            }
            try:
                record = read_json(folder / RECORD, limit=None)
                done = {shard: part for shard, part in record.pop("shards").items() if shard in shards.shards}
                self.records[name] = {**facts, "shards": done if record == facts else {}}
            except (MaskweaveError, KeyError, AttributeError):
                self.records[name] = {**facts, "shards": {}}
            write_json(folder / RECORD, self.records[name])  # first: from now on this folder is known to be made here

    def finished(self, shard: str) -> bool:
        """Whether all labels of this shard were made from these very pictures."""
        for name, record in self.records.items():
            part, path = record["shards"].get(shard), self.shards.path(shard, name)
            size = path.stat().st_size if path.exists() else 0
            if part is None or part["picture"] != self._state(shard) or part["bytes"] != size:
                return False
            if not isinstance(part["skipped"], int):
                return False
        return True

    def write(self, shard: str, skips: ErrorBudget, bar: Progress, pool: ThreadPoolExecutor) -> None:
        state = self._state(shard)
        keys, first = self.shards.keys_of(shard), self.shards.first_of(shard)
        bad: list[tuple[str, str]] = []
        with Tars(self.shards.root, shard) as tars:
            for start in range(0, len(keys), SAMPLES_IN_MEMORY):
                some = range(start, min(start + SAMPLES_IN_MEMORY, len(keys)))
                for j, labels in zip(some, pool.map(self._compute, [first + j for j in some]), strict=True):
                    if isinstance(labels, BadSample):
                        bad.append((keys[j], str(labels)))
                        skips.bad(keys[j], labels)
                    else:
                        skips.good()
                        for name, (content, ending) in labels.items():
                            tars.add(name, keys[j], ending, content)
                    bar.advance(1)
                skips.check()
            tars.finish()
        for name, record in self.records.items():
            path = self.shards.path(shard, name)
            if name not in tars.counts:
                path.unlink(missing_ok=True)  # of an earlier run, from other pictures
            size = path.stat().st_size if path.exists() else 0
            record["shards"][shard] = {
                "picture": state,
                "bytes": size,
                "samples": tars.counts.get(name, 0),
                "skipped": len(bad),
            }
            write_skipped(self.skipped(shard, name), bad)
            write_json(self.shards.root / name / RECORD, record)

    def skipped(self, shard: str, name: str) -> Path:
        """File of the pictures of a shard that could not be used."""
        return self.shards.root / name / f"{shard}{SKIPPED}"

    def _state(self, shard: str) -> list[int]:
        path = self.shards.path(shard, self.picture)
        return [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else [0, 0]

    def _compute(self, i: int) -> dict[str, tuple[bytes, str]] | BadSample:
        """Bytes and ending of each label of sample i; none if it has no picture."""
        try:
            sample = self.shards.raw(i, (self.picture,))
            if self.picture not in sample:
                return {}
            image = sample[self.picture]
            return {name: encode(compute(image), self.shards.catalog[name]) for name, compute in self.measured.items()}
        except BadSample as error:
            return error
