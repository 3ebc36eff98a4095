"""Writing tar shards OUT/MODALITY/shard-00000.tar, the published 4M layout, from samples of any origin.

Samples are cut into ranges. Each range becomes one shard per modality, with members NAME.EXT that have the original bytes. A sample may lack
modalities. Every value is decoded once and resized as its entry says, so that everything imported is readable. An unusable value is dropped,
counted and listed; with `bad="sample"`, its whole sample.

The import also writes OUT/.index/shard-00000.json (names and record of a range, written after its tars: a range without it is not finished),
OUT/.index/shard-00000.skipped.jsonl (dropped values and skipped samples, with reasons) and, last, OUT/skipped.jsonl (those of all ranges) and
OUT/index.json (record of the data set).
"""

import contextlib
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from maskweave.config import plain
from maskweave.data.error_budget import SKIPPED, ErrorBudget, counts, read_faults, remark_lines, write_faults
from maskweave.data.parts import OnBad, PartNotes, noting
from maskweave.data.shards import FORMAT, INDEX, RANGES, SAMPLES_IN_MEMORY, Shards, Tars
from maskweave.data.texts import describe_texts, text_modalities
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json, remove, sweep, write_json
from maskweave.limits import limits_in_force, use_limits
from maskweave.locks import NAME as LOCK
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import Progress, progress
from maskweave.ranks import WHOLE, JobPart

ALL_SKIPPED = "skipped.jsonl"
"""File in OUT with the name and reason of every skipped sample and dropped value."""


@dataclass(frozen=True)
class ImportReport:
    """Result of an import."""

    out: Path | str
    """Folder or URL."""
    samples: int
    """Samples in the shards, new and kept."""
    per_modality: dict[str, int]
    shards: int
    """Ranges of samples."""
    kept: int
    """Ranges kept from an earlier run because their files have not changed."""
    faults: ErrorBudget
    """Skipped samples and dropped values, with reasons."""
    remarks: Counter[tuple[str, str]]
    """Number of values that reading changed, by modality and what was changed."""
    notes: list[str]
    """Folders and files that were ignored, and why."""
    texts: list[str] = field(default_factory=list)
    """Shares of the texts that the vocabularies do not restore exactly, or that are longer than `max_tokens`."""
    unfinished: str = ""
    """What other parts of the import have still to do; then only `shards`, `kept` and `faults` are known, those of this part."""

    def __str__(self) -> str:
        if self.unfinished:
            return "\n".join(filter(None, [self.unfinished, self.faults.summary()]))
        counts = ", ".join(f"{name} {count}" for name, count in self.per_modality.items())
        kept = f" ({self.kept} kept from an earlier run)" if self.kept else ""
        lines = [f"{self.out}: {self.samples} samples in {self.shards} shards{kept}: {counts}", *self.notes[:20]]
        lines += [f"… and {len(self.notes) - 20} more ignored"] * (len(self.notes) > 20)
        lines += remark_lines(self.remarks, {name: self.per_modality.get(name, 0) for name, _ in self.remarks})
        lines += self.texts
        return "\n".join(filter(None, [*lines, self.faults.summary(f"{self.out}/{ALL_SKIPPED}")]))


class Imported(NamedTuple):
    """One value, as a shard keeps it."""

    modality: str
    ending: str
    content: bytes
    value: Any


class Samples(Protocol):
    """What is imported."""

    place: str
    """Name of the data, for messages."""
    catalog: Catalog
    notes: list[str]

    @property
    def entries(self) -> Mapping[str, Modality]:
        """The entries that the samples may have values of."""
        ...

    @property
    def keys(self) -> Sequence[str]: ...

    def state(self, first: int, last: int) -> list[Any] | None:
        """Returns what changes when the samples from `first` to before `last` change, as content for JSON; None: it is not known."""
        ...

    def read(self, i: int) -> Iterator[Imported]:
        """Yields the values of sample i, using `maskweave.data.parts.read_part` for each.

        Raises:
            BadSample: the sample, or one of its values, cannot be used.
        """
        ...


def write_shards(
    samples: Samples,
    out: Path,
    shard_size: int = 1000,
    limit: float = 0.01,
    jobs: int = 1,
    bad: OnBad = "part",
    part: JobPart = WHOLE,
) -> ImportReport:
    """Write the tar shards of samples to `out`, in the context of `prepared`. Finished shards whose samples have not changed are kept.

    If it is not known whether the samples have changed, as for those that code makes, a part writes its own shards again and keeps those of others.

    Args:
        shard_size: samples per shard.
        limit: largest share of samples with unusable values, 0 to 1, checked once 100 samples were seen and at the end.
        jobs: number of samples decoded in parallel.
        bad: what an unusable value drops: only this `part` of its sample, or the whole `sample`.
        part: the part of the shards to write.

    Raises:
        MaskweaveError: too many samples have unusable values, or no sample is left.
        FullDisk: no space is left; finished shards are kept.
    """
    if shard_size < 1 or jobs < 1:
        raise MaskweaveError(f"shard_size and jobs must be 1 or more, found {shard_size} and {jobs}")
    keys, entries, catalog = samples.keys, samples.entries, samples.catalog
    starts = range(0, len(keys), shard_size)
    work = [
        _Range(out, f"shard-{n:05d}", range(s, min(s + shard_size, len(keys))), samples, bad)
        for n, s in enumerate(starts)
    ]
    mine = [work[n] for n in part.mine(range(len(work)))]
    records, kept = dict[str, dict[str, Any]](), 0
    skips = ErrorBudget(limit)
    with (
        progress("import", sum(len(some.indices) for some in mine), quiet=not part.count) as bar,
        ThreadPoolExecutor(jobs, initializer=use_limits, initargs=(limits_in_force(),)) as pool,
    ):
        for some in mine:
            record = some.finished()
            if record is not None:
                kept += 1
                some.count(record, skips)
                bar.advance(len(some.indices))
            else:
                record = some.write(skips, bar, pool)
            skips.check()
            records[some.name] = record
    if not part.is_whole:
        missing = sum(not some.manifest.exists() for some in work)  # first, because records are compared with all files
        found = {} if missing else {some.name: some.record() for some in work}
        records = {name: record for name, record in found.items() if record is not None}
        left = part.left(missing or len(work) - len(records), len(work), str(out))
        if len(records) < len(work):
            return ImportReport(out, 0, {}, len(mine), kept, skips, Counter(), samples.notes, unfinished=left)
        skips = ErrorBudget(limit)
        for some in work:
            some.count(records[some.name], skips)
    skips.check(finished=True)
    remarks = Counter[tuple[str, str]]()
    for record in records.values():
        remarks.update({(name, text): count for name, text, count in record.get("remarks", [])})
    ranges = [(some.name, records[some.name]) for some in work]

    _remove_beyond(out, len(ranges))
    held = {name: sum(record["modalities"].get(name, {}).get("samples", 0) for _, record in ranges) for name in entries}
    count = sum(len(record["keys"]) for _, record in ranges)
    write_faults(out / ALL_SKIPPED, skips.faults)
    if not count:
        raise MaskweaveError(f"{samples.place}: no sample can be imported\n{skips.summary(str(out / ALL_SKIPPED))}")
    write_json(
        out / INDEX,
        {
            "format": FORMAT,
            "samples": count,
            "modalities": {name: {"samples": held[name], "value": plain(m.value)} for name, m in entries.items()},
            "shards": {name: len(record["keys"]) for name, record in ranges},
            **counts(skips.faults),
        },
    )
    texts = [m.name for m in text_modalities(catalog) if held.get(m.name)]
    text_notes = describe_texts(Shards(out, catalog.subset(texts)), catalog) if texts else []
    return ImportReport(out, count, held, len(ranges), kept, skips, remarks, samples.notes, text_notes)


@dataclass
class _Range:
    """The samples of one shard of each modality."""

    out: Path
    name: str
    indices: range
    samples: Samples
    bad: OnBad

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with the samples and how they are imported; empty if it is not known whether they change."""
        entries = {name: plain(m.value) for name, m in self.samples.entries.items()}
        state = self.samples.state(self.indices.start, self.indices.stop)
        # Files that were too large may not be any more.
        limits = limits_in_force()
        own = [plain(limits)] if limits.are_set else []
        content = json.dumps([FORMAT, self.bad, entries, state, *own]).encode("utf-8", "surrogatepass")
        return "" if state is None else hashlib.sha256(content).hexdigest()

    @property
    def manifest(self) -> Path:
        return self.out / RANGES / f"{self.name}.json"

    @property
    def skipped(self) -> Path:
        return self.out / RANGES / f"{self.name}{SKIPPED}"

    def finished(self) -> dict[str, Any] | None:
        """Returns the record of this range if an earlier run wrote it from the same files and its tars are complete, otherwise None."""
        return self.record() if self.fingerprint else None

    def record(self) -> dict[str, Any] | None:
        """Returns the record of this range if it was written, as far as is known, from the same files and its tars are complete, otherwise None."""
        try:
            record = read_json(self.manifest, limit=None)
            same = record["fingerprint"] == self.fingerprint and isinstance(record["skipped"], int)
            complete = all(
                (self.out / n / f"{self.name}.tar").stat().st_size == part["bytes"]
                for n, part in record["modalities"].items()
            )
        except (MaskweaveError, OSError, KeyError, TypeError, AttributeError):
            return None
        return record if same and complete else None

    def count(self, record: dict[str, Any], skips: ErrorBudget) -> None:
        """Count the samples and faults of a record."""
        skips.extend(read_faults(self.skipped, record))
        skips.good(len(record["keys"]))

    def write(self, skips: ErrorBudget, bar: Progress, pool: ThreadPoolExecutor) -> dict[str, Any]:
        """Decode the files of this range, write its tars, then write and return its record."""
        good: list[str] = []
        before, remarks = len(skips.faults), Counter[tuple[str, str]]()
        with Tars(self.out, self.name) as tars:
            for start in range(0, len(self.indices), SAMPLES_IN_MEMORY):
                some = self.indices[start : start + SAMPLES_IN_MEMORY]
                for i, (parts, notes) in zip(some, pool.map(self._examine, some), strict=True):
                    key = self.samples.keys[i]
                    remarks += notes.remarks
                    if isinstance(parts, BadSample):
                        skips.bad(key, parts)
                    else:
                        skips.good()
                        skips.drop(key, notes.dropped)
                        good.append(key)
                        for name, (ending, content) in parts.items():
                            tars.add(name, key, ending, content)
                    bar.advance(1)
                skips.check()
            tars.finish()
            (self.out / INDEX).unlink(missing_ok=True)  # not finished until it is written again
            self.manifest.unlink(missing_ok=True)
        for folder in self.out.iterdir():  # remove what was derived from the old files of this range, such as labels
            if folder.is_dir() and folder.name not in tars.counts:
                (folder / f"{self.name}.tar").unlink(missing_ok=True)
        made = {
            name: {"samples": count, "bytes": tars.path(name).stat().st_size} for name, count in tars.counts.items()
        }
        faults = skips.faults[before:]
        write_faults(self.skipped, faults)
        record = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "keys": good,
            "modalities": made,
            **counts(faults),
            "remarks": [[name, text, count] for (name, text), count in sorted(remarks.items())],
        }
        write_json(self.manifest, record)
        return record

    def _examine(self, i: int) -> tuple[dict[str, tuple[str, bytes]] | BadSample, PartNotes]:
        """Returns the ending and bytes of each usable value of a sample after decoding each once, or the reason why the sample cannot be used."""
        with noting(self.bad) as notes:
            parts = self._parts(i)
        if not parts:
            reasons = notes.dropped.values() or ["all its values are missing"]
            parts = BadSample("; ".join(reasons))
        return parts, notes

    def _parts(self, i: int) -> dict[str, tuple[str, bytes]] | BadSample:
        parts: dict[str, tuple[str, bytes]] = {}
        values: dict[str, Any] = {}
        try:
            for name, ending, content, value in self.samples.read(i):
                parts[name], values[name] = (ending, content), value
            fitted = fit(values, self.samples.catalog)  # detects values of one view that do not match
        except BadSample as error:
            where = self.samples.place
            return error if where in str(error) else BadSample(f"{where}: {self.samples.keys[i]}: {error}")
        return {name: part for name, part in parts.items() if name in fitted}


@contextlib.contextmanager
def prepared(out: Path, root: Path | None = None, part: JobPart = WHOLE) -> Iterator[None]:
    """Context in which this process alone writes the shards of a part to `out`. Temporary files of a killed run are removed.

    Args:
        root: folder of the files that are imported; `out` must not be inside.

    Raises:
        MaskweaveError: `out` is inside of root, is a file, has other contents, or another process is writing to it.
    """
    if root is not None and out.resolve().is_relative_to(root.resolve()):
        raise MaskweaveError(f"{out}: is inside {root}, so it would be read as a modality; choose a folder outside")
    if out.exists() and not out.is_dir():
        raise MaskweaveError(f"{out}: is a file; expected a folder for the shards")
    # Listed first: other parts may be starting.
    others = out.exists() and any(not path.name.startswith(LOCK) for path in out.iterdir())
    if others and not (out / RANGES).is_dir():
        raise MaskweaveError(f"{out}: already contains files that no import wrote; choose an empty or new folder")
    with lock(out, part):
        (out / RANGES).mkdir(exist_ok=True)
        sweep(out)
        yield


def _remove_beyond(out: Path, count: int) -> None:
    """Remove the ranges from `count` on, of an earlier, larger import."""
    for manifest in (out / RANGES).glob("shard-*.json"):
        if int(manifest.stem.removeprefix("shard-")) >= count:
            for tar in out.glob(f"*/{manifest.stem}.tar"):
                tar.unlink()
            manifest.unlink()
            remove(out / RANGES / f"{manifest.stem}{SKIPPED}")
