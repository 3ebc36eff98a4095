"""Computes labels without a network: derives values from a data set's pictures and adds them to it as further shards.

An entry declares how (`derive: {from: rgb, by: canny}`), and its value type computes it. Each label has the resolution and key of its picture.
ROOT/MODALITY/label.json marks a folder written by this module; ROOT/MODALITY/shard-00000.json records a finished shard and the state of its
pictures, and shard-00000.skipped.jsonl lists its skipped pictures.
"""

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.arguments import check_arguments
from maskweave.config import plain
from maskweave.data.error_budget import SKIPPED, ErrorBudget, Fault, listed, read_faults, write_faults
from maskweave.data.shards import FORMAT, SAMPLES_IN_MEMORY, Shards, Tars
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import digest, read_json, remove, sweep, write_json
from maskweave.limits import limits_in_force, use_limits
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.progress import Progress, progress
from maskweave.ranks import WHOLE, JobPart

RECORD = "label.json"
Compute = Callable[[np.ndarray], Any]
"""Maps a picture, uint8 (height, width, 3), to a value."""


@dataclass(frozen=True)
class LabelReport:
    """Result of labeling a data set."""

    root: Path
    picture: str
    """The modality that the labels were computed from; empty: nothing to label."""
    labels: dict[str, int]
    """Number of samples by labeled modality, both new and kept."""
    kept: int
    """Number of shards finished by an earlier run."""
    faults: list[Fault]
    """Skipped samples."""
    notes: list[str]
    unfinished: str = ""
    """What other parts of the job have still to do; then the numbers are those of the shards that are finished."""

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.labels.items()) or "nothing to label"
        kept = f" ({self.kept} shards kept from an earlier run)" if self.kept else ""
        lines = [*filter(None, [self.unfinished]), f"{self.root}: {counts}{kept}", *self.notes]
        if self.faults:
            lines += [f"skipped {len(self.faults)} samples:", listed(self.faults)]
        return "\n".join(lines)


@check_arguments
def label(
    root: str | os.PathLike[str], catalog: Catalog, limit: float = 0.01, jobs: int = 1, part: JobPart = WHOLE
) -> LabelReport:
    """Add shards for the entries with `derive` for which the data set has no values.

    A second run keeps finished shards whose pictures have not changed.

    Args:
        root: an imported data set, or one in the same layout.
        limit: largest fraction of unusable pictures, 0 to 1; checked after 100 pictures and at the end.
        jobs: pictures processed in parallel.
        part: the part of the shards to label.

    Raises:
        MaskweaveError: root is not a finished data set, has no pictures, or too many are unusable.
        FullDisk: no space is left; finished shards are kept.
    """
    if jobs < 1:
        raise MaskweaveError(f"jobs must be 1 or more, found {jobs}")
    with lock(root, part) if Path(root).is_dir() else contextlib.nullcontext():
        return _label(Shards(root, catalog), limit, jobs, part)


def _label(shards: Shards, limit: float, jobs: int, part: JobPart) -> LabelReport:
    catalog = shards.catalog
    skips = ErrorBudget(limit)
    notes: list[str] = []
    picture, wanted, missing = _wanted(shards, notes)
    if not wanted and missing:
        raise MaskweaveError(
            f"{shards.root}: labels are computed from pictures; expected shards of {', '.join(missing)}, found {', '.join(shards.names)}"
        )
    if not wanted:
        if not notes:
            notes.append(
                f"no entry of {catalog.where} declares how to compute its values; add for example derive: {{from: rgb, by: canny}}"
            )
        return LabelReport(shards.root, "", {}, 0, [], notes)
    work = _Labels(shards, picture, wanted)
    mine = [shards.shards[number] for number in part.mine(range(len(shards.shards)))]
    kept = 0
    with (
        progress("label", sum(len(shards.keys_of(shard)) for shard in mine), quiet=not part.count) as bar,
        ThreadPoolExecutor(jobs, initializer=use_limits, initargs=(limits_in_force(),)) as pool,
    ):
        for shard in mine:
            if work.finished(shard):
                kept += 1
                work.count(shard, skips)
                bar.advance(len(shards.keys_of(shard)))
            else:
                work.write(shard, skips, bar, pool)
            skips.check()
    # Other parts have compared their own shards; to finish is to compare all.
    compared = set(mine if part.count else shards.shards)
    finished = [shard for shard in shards.shards if work.finished(shard, compare=shard in compared)]
    left = part.left(len(shards.shards) - len(finished), len(shards.shards), str(shards.root))
    if not part.is_whole:
        skips = ErrorBudget(limit)
        for shard in finished:
            work.count(shard, skips)
    if len(finished) == len(shards.shards):
        skips.check(finished=True)
    counts = {name: sum(work.records[name, shard]["samples"] for shard in finished) for name in wanted}
    return LabelReport(shards.root, work.picture, counts, kept, skips.faults, notes, left)


def _wanted(shards: Shards, notes: list[str]) -> tuple[str, dict[str, Compute], list[str]]:
    """Returns the modality of the pictures, a function for each label that the data set lacks, and modalities of pictures that are missing."""
    wanted: dict[str, Compute] = {}
    sources: dict[str, str] = {}
    missing: list[str] = []
    for name, entry in shards.catalog.items():
        if entry.source or entry.derive is None:
            continue
        if name in shards.names and not (shards.root / name / RECORD).exists():
            notes.append(f"{name}: kept, the data set has its own values")
        elif entry.derive.source not in shards.names:
            notes.append(f"{name}: skipped, the data set has no {entry.derive.source!r} to compute it from")
            missing.append(entry.derive.source)
        else:
            possible, gaps = entry.value.derivation_gaps(entry.derive.by)
            if gaps:
                notes.append(f"{name}: {gaps}")
            if possible:
                sources[name] = entry.derive.source
                wanted[name] = partial(entry.value.derivations[entry.derive.by], entry.value)
    pictures = sorted(set(sources.values()))
    if len(pictures) > 1:
        raise MaskweaveError(
            f"{shards.catalog.where}: labels are computed from one modality of pictures at a time, found {', '.join(pictures)} under 'derive'; "
            "use a catalog with the entries of only one of them"
        )
    return (pictures[0] if pictures else ""), wanted, list(dict.fromkeys(missing))


class _Labels:
    """Writes the labels shard by shard, each with a record in its label's folder."""

    def __init__(self, shards: Shards, picture: str, compute: dict[str, Compute]):
        self.shards, self.picture, self.compute = shards, picture, compute
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        """Records of finished shards, by label and shard."""
        self._states: dict[str, str] = {}
        for name in compute:
            folder = shards.root / name
            sweep(folder)
            facts = {
                "format": FORMAT,
                "made_from": picture,
                "value": json.loads(json.dumps(plain(shards.catalog[name].value))),
            }
            try:
                same = read_json(folder / RECORD, limit=None) == facts
            except MaskweaveError:
                same = False
            if not same:
                for path in folder.glob("*.json"):  # of other labels
                    remove(path)
                write_json(folder / RECORD, facts)  # first, to mark the folder as written by this module

    def finished(self, shard: str, compare: bool = True) -> bool:
        """Whether all labels of this shard were computed, and from its current pictures.

        Args:
            compare: read the pictures to find out whether they have changed.
        """
        for name in self.compute:
            path = self.shards.path(shard, name)
            size = path.stat().st_size if path.exists() else 0
            try:
                record = read_json(self.record_of(shard, name), limit=None)
                if record["bytes"] != size or (compare and record["picture"] != self._state(shard)):
                    return False
                if not isinstance(record["skipped"], int) or not isinstance(record["samples"], int):
                    return False
            except (MaskweaveError, KeyError, TypeError):
                return False
            self.records[name, shard] = record
        return True

    def count(self, shard: str, skips: ErrorBudget) -> None:
        """Count the samples and faults of a finished shard."""
        name = next(iter(self.compute))
        record = self.records[name, shard]
        skips.extend(read_faults(self.skipped(shard, name), record))
        skips.good(record["samples"])

    def write(self, shard: str, skips: ErrorBudget, bar: Progress, pool: ThreadPoolExecutor) -> None:
        state = self._state(shard)
        keys, first = self.shards.keys_of(shard), self.shards.first_of(shard)
        bad: list[Fault] = []
        with Tars(self.shards.root, shard) as tars:
            for start in range(0, len(keys), SAMPLES_IN_MEMORY):
                some = range(start, min(start + SAMPLES_IN_MEMORY, len(keys)))
                for j, labels in zip(some, pool.map(self._compute, [first + j for j in some]), strict=True):
                    if isinstance(labels, BadSample):
                        bad.append(Fault(keys[j], str(labels)))
                        skips.bad(keys[j], labels)
                    else:
                        skips.good()
                        for name, (content, ending) in labels.items():
                            tars.add(name, keys[j], ending, content)
                    bar.advance(1)
                skips.check()
            tars.finish()
        for name in self.compute:
            path = self.shards.path(shard, name)
            if name not in tars.counts:
                path.unlink(missing_ok=True)  # from an earlier run with other pictures
            size = path.stat().st_size if path.exists() else 0
            write_faults(self.skipped(shard, name), bad)
            samples = tars.counts.get(name, 0)
            record = {"picture": state, "bytes": size, "samples": samples, "skipped": len(bad)}
            write_json(self.record_of(shard, name), record)

    def record_of(self, shard: str, name: str) -> Path:
        """File that shows that a shard is finished."""
        return self.shards.root / name / f"{shard}.json"

    def skipped(self, shard: str, name: str) -> Path:
        """File that lists the skipped pictures of a shard."""
        return self.shards.root / name / f"{shard}{SKIPPED}"

    def _state(self, shard: str) -> str:
        """Returns the state of a shard's pictures when it was first asked for: all of them are read for it."""
        if shard not in self._states:
            self._states[shard] = digest(self.shards.path(shard, self.picture))
        return self._states[shard]

    def _compute(self, i: int) -> dict[str, tuple[bytes, str]] | BadSample:
        """Returns bytes and file extension of each label of sample i; empty if it has no picture."""
        try:
            sample = self.shards.raw(i, (self.picture,))
            if self.picture not in sample:
                return {}
            image = sample[self.picture]
            return {
                name: self.shards.catalog[name].value.to_file(compute(image), name)
                for name, compute in self.compute.items()
            }
        except BadSample as error:
            return error
