"""Importing aligned folders ROOT/MODALITY/…/NAME.EXT as tar shards OUT/MODALITY/shard-00000.tar, the published 4M layout.

The files of one sample share NAME, the path without its ending. Names are sorted and cut into ranges. Each range becomes one shard per
modality, with members NAME.EXT that have the original bytes. A sample may lack modalities. Every file is decoded once and resized as its entry
says, so that everything imported is readable. An unusable value is dropped, counted and listed; with `bad="sample"`, its whole sample.

The import also writes OUT/.index/shard-00000.json (names and record of a range, written after its tars: a range without it is not finished),
OUT/.index/shard-00000.skipped.jsonl (dropped values and skipped samples, with reasons) and, last, OUT/skipped.jsonl (those of all ranges) and
OUT/index.json (record of the data set).
"""

import hashlib
import json
import os
import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from maskweave.config import plain
from maskweave.data.error_budget import SKIPPED, ErrorBudget, counts, read_faults, remark_lines, write_faults
from maskweave.data.parts import OnBad, PartNotes, noting, read_part
from maskweave.data.shards import FORMAT, INDEX, RANGES, SAMPLES_IN_MEMORY, Shards, Tars
from maskweave.data.source import check_key
from maskweave.data.texts import describe_texts, text_modalities
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json, remove, write_json
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import Progress, progress
from maskweave.values.files import read_bytes
from maskweave.values.formats import split_ending

ALL_SKIPPED = "skipped.jsonl"
"""File in OUT with the name and reason of every skipped sample and dropped value."""


@dataclass(frozen=True)
class ImportReport:
    """Result of an import."""

    out: Path
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

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.per_modality.items())
        kept = f" ({self.kept} kept from an earlier run)" if self.kept else ""
        lines = [f"{self.out}: {self.samples} samples in {self.shards} shards{kept}: {counts}", *self.notes[:20]]
        lines += [f"… and {len(self.notes) - 20} more ignored"] * (len(self.notes) > 20)
        lines += remark_lines(self.remarks, {name: self.per_modality.get(name, 0) for name, _ in self.remarks})
        lines += self.texts
        return "\n".join(filter(None, [*lines, self.faults.summary(str(self.out / ALL_SKIPPED))]))


@dataclass
class _Listing:
    """The files under ROOT."""

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path relative to the modality's folder, by modality and key."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Folder of each modality."""
    faults: dict[str, str] = field(default_factory=dict)
    """Reasons why a sample cannot be used, by key."""
    notes: list[str] = field(default_factory=list)


def import_folders(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    catalog: Catalog,
    shard_size: int = 1000,
    limit: float = 0.01,
    jobs: int = 1,
    bad: OnBad = "part",
    single: str = "",
) -> ImportReport:
    """Write the tar shards of aligned folders. If run again, finished shards whose files have not changed are kept.

    Links and hidden files are ignored. Folders that no entry reads are listed in the report.

    Args:
        root: the folder with one folder per modality, named like the entries (an entry with `source` reads the folder of that entry).
        out: folder for the shards, outside of root.
        shard_size: samples per shard.
        limit: largest share of samples with unusable values, 0 to 1, checked once 100 samples were seen and at the end.
        jobs: number of samples decoded in parallel.
        bad: what an unusable value drops: only this `part` of its sample, or the whole `sample`.
        single: name of the only modality, if its files are in root itself and not in a folder of this name.

    Raises:
        MaskweaveError: root is missing or empty, no entry reads its folders, a folder is empty or shares no name with the others, `out` has
            other contents, too many samples have unusable values, or no sample is left.
        FullDisk: no space is left; finished shards are kept.
    """
    root, out = Path(root), Path(out)
    if shard_size < 1 or jobs < 1:
        raise MaskweaveError(f"shard_size and jobs must be 1 or more, found {shard_size} and {jobs}")
    skips, remarks = ErrorBudget(limit), Counter[tuple[str, str]]()
    listing, entries = _listed(root, catalog, single)
    keys = sorted(set(listing.faults).union(*listing.files.values()))
    _prepare(root, out)

    ranges, kept = [], 0
    with progress("import", len(keys)) as bar, ThreadPoolExecutor(jobs) as pool:
        for number, start in enumerate(range(0, len(keys), shard_size)):
            work = _Range(
                root, out, f"shard-{number:05d}", keys[start : start + shard_size], listing, entries, catalog, bad
            )
            record = work.finished()
            if record is not None:
                kept += 1
                skips.extend(read_faults(work.skipped, record))
                skips.good(len(record["keys"]))
                bar.advance(len(work.keys))
            else:
                record = work.write(skips, bar, pool)
            skips.check()
            ranges.append((work.name, record))
            remarks += Counter({(name, text): count for name, text, count in record.get("remarks", [])})
    skips.check(finished=True)

    _remove_beyond(out, len(ranges))
    held = {name: sum(record["modalities"].get(name, {}).get("samples", 0) for _, record in ranges) for name in entries}
    samples = sum(len(record["keys"]) for _, record in ranges)
    write_faults(out / ALL_SKIPPED, skips.faults)
    if not samples:
        raise MaskweaveError(f"{root}: no sample can be imported\n{skips.summary(str(out / ALL_SKIPPED))}")
    write_json(
        out / INDEX,
        {
            "format": FORMAT,
            "samples": samples,
            "modalities": {name: {"samples": held[name], "value": plain(m.value)} for name, m in entries.items()},
            "shards": {name: len(record["keys"]) for name, record in ranges},
            **counts(skips.faults),
        },
    )
    texts = [m.name for m in text_modalities(catalog) if held.get(m.name)]
    told = describe_texts(Shards(out, catalog.subset(texts)), catalog) if texts else []
    return ImportReport(out, samples, held, len(ranges), kept, skips, remarks, listing.notes, told)


@dataclass
class _Range:
    """The samples of one shard of each modality."""

    root: Path
    out: Path
    name: str
    keys: list[str]
    listing: _Listing
    entries: dict[str, Modality]
    catalog: Catalog
    bad: OnBad

    def __post_init__(self) -> None:
        content: list[Any] = [FORMAT, self.bad, {name: plain(m.value) for name, m in self.entries.items()}]
        for key in self.keys:
            files = []
            for name, paths in self.listing.files.items():
                if key in paths:
                    state = (self.listing.folders[name] / paths[key]).stat()
                    files.append([name, paths[key], state.st_size, state.st_mtime_ns])
            content.append([key, self.listing.faults.get(key), files])
        self.fingerprint = hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()
        self.manifest = self.out / RANGES / f"{self.name}.json"
        self.skipped = self.out / RANGES / f"{self.name}{SKIPPED}"

    def finished(self) -> dict[str, Any] | None:
        """Returns the record of this range if an earlier run wrote it from the same files and its tars are complete, otherwise None."""
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

    def write(self, skips: ErrorBudget, bar: Progress, pool: ThreadPoolExecutor) -> dict[str, Any]:
        """Decode the files of this range, write its tars, then write and return its record."""
        good: list[str] = []
        before, remarks = len(skips.faults), Counter[tuple[str, str]]()
        with Tars(self.out, self.name) as tars:
            for start in range(0, len(self.keys), SAMPLES_IN_MEMORY):
                some = self.keys[start : start + SAMPLES_IN_MEMORY]
                for key, (parts, notes) in zip(some, pool.map(self._examine, some), strict=True):
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

    def _examine(self, key: str) -> tuple[dict[str, tuple[str, bytes]] | BadSample, PartNotes]:
        """Returns the ending and bytes of each usable value of a sample after decoding each once, or the reason why the sample cannot be used."""
        with noting(self.bad) as notes:
            parts = self._parts(key)
        if not parts:
            reasons = notes.dropped.values() or ["all its values are missing"]
            parts = BadSample("; ".join(reasons))
        return parts, notes

    def _parts(self, key: str) -> dict[str, tuple[str, bytes]] | BadSample:
        if key in self.listing.faults:
            return BadSample(self.listing.faults[key])
        parts: dict[str, tuple[str, bytes]] = {}
        values: dict[str, Any] = {}
        try:
            for name, paths in self.listing.files.items():
                if key not in paths:
                    continue
                path = self.listing.folders[name] / paths[key]
                ending = split_ending(path.name)[1]
                found = read_part(name, partial(_read, path, ending, self.entries[name]))
                if found is not None:
                    parts[name], values[name] = (ending, found[0]), found[1]
            for name, entry in self.entries.items():
                if entry.value.is_in_name and parts:
                    label = read_part(name, partial(entry.value.in_name, key))
                    if label is not None:
                        content, ending = entry.value.write(label)
                        parts[name], values[name] = (ending, content), label
            fitted = fit(values, self.catalog)  # detects values of one view that do not match
        except BadSample as error:
            return error if str(self.root) in str(error) else BadSample(f"{self.root}: {key}: {error}")
        return {name: part for name, part in parts.items() if name in fitted}


def _read(path: Path, ending: str, entry: Modality) -> tuple[bytes, Any] | None:
    """Returns the bytes and the value of a file; None if the value is missing."""
    content = read_bytes(path)
    value = entry.value.read(content, ending, str(path))
    return None if value is None else (content, value)


def _prepare(root: Path, out: Path) -> None:
    """Check that shards can be written to `out`, and remove temporary files of a killed run."""
    if out.resolve().is_relative_to(root.resolve()):
        raise MaskweaveError(f"{out}: is inside {root}, so it would be read as a modality; choose a folder outside")
    if out.exists() and not out.is_dir():
        raise MaskweaveError(f"{out}: is a file; expected a folder for the shards")
    if out.exists() and not (out / RANGES).is_dir() and any(out.iterdir()):
        raise MaskweaveError(f"{out}: already contains files that no import wrote; choose an empty or new folder")
    (out / RANGES).mkdir(parents=True, exist_ok=True)
    for path in out.glob("**/.*.partial"):
        remove(path)


def _remove_beyond(out: Path, count: int) -> None:
    """Remove the ranges from `count` on, of an earlier, larger import."""
    for manifest in (out / RANGES).glob("shard-*.json"):
        if int(manifest.stem.removeprefix("shard-")) >= count:
            for tar in out.glob(f"*/{manifest.stem}.tar"):
                tar.unlink()
            manifest.unlink()
            remove(out / RANGES / f"{manifest.stem}{SKIPPED}")


def _listed(root: Path, catalog: Catalog, single: str = "") -> tuple[_Listing, dict[str, Modality]]:
    """Returns all files under root, by modality and key, and the entries whose folders exist."""
    if not root.is_dir():
        found = "is a file" if root.exists() else "no such folder"
        raise MaskweaveError(
            f"{root}: {found}; expected a folder with one folder per modality, such as {root}/{next(iter(catalog))}/NAME.EXT"
        )
    expected = [name for name, m in catalog.items() if not m.source]
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    folders = [catalog[single].name] if single else folders
    listing = _Listing()
    entries = {name: catalog[name] for name in expected if name in folders and not catalog[name].value.is_in_name}
    if not entries:
        found = (
            f"contains the folders {', '.join(folders[:10])}"
            if folders
            else "is empty"
            if not any(root.iterdir())
            else "contains no folders"
        )
        raise MaskweaveError(
            f"{root}: {found}; expected folders named like the entries of {catalog.where}: {', '.join(expected)}"
        )
    for name in folders:
        if name not in entries:
            reads = (
                "its entry reads the names of samples (value.name_pattern)"
                if name in catalog and catalog[name].value.is_in_name
                else f"its entry reads {catalog[name].source}/"
                if name in catalog
                else f"no entry of {catalog.where} has this name"
            )
            listing.notes.append(f"{root / name}: ignored: {reads}")
    unusable: dict[str, tuple[str, str]] = {}
    for name, entry in entries.items():
        folder = listing.folders[name] = root if single else root / name
        if folder.is_symlink() and not single:
            raise MaskweaveError(
                f"{folder}: is a link, and links are not followed; move the folder here, or import from its real path"
            )
        listing.files[name] = _list_folder(folder, entry, listing, unusable)
    named = set().union(*listing.files.values())
    for key, (name, path) in unusable.items():  # a file of a sample in another format is a fault; a README is not
        fault = f"{path}: a file with this ending cannot hold values of type {entries[name].value.type!r}; expected {', '.join(entries[name].value.endings)}"
        if key in named:
            listing.faults.setdefault(key, fault)
        else:
            listing.notes.append(f"{fault}; ignored")
    listing.notes = [
        note.encode("utf-8", "backslashreplace").decode() for note in listing.notes
    ]  # file names can have any bytes
    _check_names(root, listing)
    return listing, entries | {name: catalog[name] for name in expected if catalog[name].value.is_in_name}


def _list_folder(
    folder: Path, entry: Modality, listing: _Listing, unusable: dict[str, tuple[str, str]]
) -> dict[str, str]:
    """Paths of the files in one modality's folder, by key."""
    allowed, others = entry.value.endings, 0
    files: dict[str, str] = {}
    unpacked: list[str] = []
    for parent, inner, names in os.walk(folder):
        for name in [i for i in sorted(inner) if i.lower().endswith(".zarr") and "zarr.zip" in allowed]:
            inner.remove(name)
            key = Path(parent, name).relative_to(folder).as_posix()[: -len(".zarr")]
            pack = f"cd {shlex.quote(name)} && zip -0r ../{shlex.quote(f'{name}.zip')} ."
            unpacked.append(f"{Path(parent, name)}: found a Zarr folder; expected one file; pack it: {pack}")
            listing.faults[key] = unpacked[-1]
        inner[:] = sorted(i for i in inner if not i.startswith(".") and not _is_link(Path(parent, i), listing))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or _is_link(path, listing):
                continue
            relative = path.relative_to(folder).as_posix()
            key, ending = split_ending(relative)
            if ending not in allowed:
                unusable[key] = (entry.name, str(path))
                others += 1
                continue
            try:
                check_key(key, str(folder))
            except BadSample as error:
                listing.faults[key.encode("utf-8", "backslashreplace").decode()] = str(error)
                continue
            if key in files:
                listing.faults[key] = f"{folder}: two files for one name: {files[key]} and {relative}; keep one"
            files[key] = relative
    if not files and unpacked:
        raise MaskweaveError(unpacked[0])
    if not files:
        found = f"{others} files, none of them usable" if others else "no files"
        raise MaskweaveError(
            f"{folder}: contains {found}; expected {entry.value.type} values as NAME.EXT with EXT one of {', '.join(allowed)}"
        )
    return files


def _is_link(path: Path, listing: _Listing) -> bool:
    if path.is_symlink():
        listing.notes.append(f"{path}: ignored: it is a link, and links are not followed")
        return True
    return False


def _check_names(root: Path, listing: _Listing) -> None:
    """Check that every folder shares a name with another folder."""
    for name, files in listing.files.items():
        others = {other: keys for other, keys in listing.files.items() if other != name}
        if others and not any(key in keys for key in files for keys in others.values()):
            examples = "; ".join(f"{other}/: {', '.join(list(keys)[:2])}" for other, keys in others.items())
            raise MaskweaveError(
                f"{root / name}: none of its {len(files)} file names ({', '.join(list(files)[:2])}) occurs in the folder of another modality ({examples}); "
                "give all files of one sample the same name, except for the ending"
            )
