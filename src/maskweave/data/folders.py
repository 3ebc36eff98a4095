"""Importing aligned folders ROOT/MODALITY/…/NAME.EXT as tar shards (`importing.py`).

The files of one sample share NAME, the path without its ending. Names are sorted and cut into ranges.
"""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from maskweave.arguments import check_arguments
from maskweave.data.importing import Imported, ImportReport, prepared, write_shards
from maskweave.data.mirror import version
from maskweave.data.parts import OnBad, read_part
from maskweave.data.source import check_key
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.ranks import WHOLE, JobPart
from maskweave.values.files import read_bytes
from maskweave.values.formats import FRAMES, split_ending
from maskweave.values.formats.frames import frame_files, is_frames, pack


@dataclass
class AlignedListing:
    """The files under ROOT."""

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path relative to the modality's folder, by modality and key."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Folder of each modality."""
    faults: dict[str, str] = field(default_factory=dict)
    """Reasons why a sample cannot be used, by key."""
    notes: list[str] = field(default_factory=list)


@check_arguments
def import_folders(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    catalog: Catalog,
    shard_size: int = 1000,
    limit: float = 0.01,
    jobs: int = 1,
    bad: OnBad = "part",
    single: str = "",
    part: JobPart = WHOLE,
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
        part: the part of the shards to write.

    Raises:
        MaskweaveError: root is missing or empty, no entry reads its folders, a folder is empty or shares no name with the others, `out` has
            other contents, too many samples have unusable values, or no sample is left.
        FullDisk: no space is left; finished shards are kept.
    """
    root, out = Path(root), Path(out)
    listing, entries = list_aligned(root, catalog, single)
    with prepared(out, root, part):
        return write_shards(AlignedFiles(str(root), catalog, entries, listing), out, shard_size, limit, jobs, bad, part)


class AlignedFiles:
    """The samples of aligned folders."""

    def __init__(self, place: str, catalog: Catalog, entries: dict[str, Modality], listing: AlignedListing):
        self.place, self.catalog, self.entries, self.listing = place, catalog, entries, listing
        self.keys = sorted(set(listing.faults).union(*listing.files.values()))
        self.notes = listing.notes

    def state(self, first: int, last: int) -> list[Any]:
        content: list[Any] = []
        for key in self.keys[first:last]:
            files = []
            for name, paths in self.listing.files.items():
                if key in paths:
                    files.append([name, paths[key], *_state(self.listing.folders[name] / paths[key])])
            content.append([key, self.listing.faults.get(key), files])
        return content

    def read(self, i: int) -> Iterator[Imported]:
        key = self.keys[i]
        if key in self.listing.faults:
            raise BadSample(self.listing.faults[key])
        has_files = False
        for name, paths in self.listing.files.items():
            if key not in paths:
                continue
            path = self.listing.folders[name] / paths[key]
            ending = FRAMES if path.is_dir() else split_ending(path.name)[1]
            found = read_part(name, partial(_read, path, ending, self.entries[name]))
            if found is not None:
                has_files = True
                yield Imported(name, ending, *found)
        for name, entry in self.entries.items():
            if entry.value.is_in_name and has_files:
                label = read_part(name, partial(entry.value.in_name, key))
                if label is not None:
                    content, ending = entry.value.write(label)
                    yield Imported(name, ending, content, label)


def _read(path: Path, ending: str, entry: Modality) -> tuple[bytes, Any] | None:
    """Returns the bytes and the value of a file; None if the value is missing."""
    content = pack(path) if path.is_dir() else read_bytes(path)
    value = entry.value.read(content, ending, str(path))
    return None if value is None else (content, value)


def _state(path: Path) -> list[Any]:
    """Versions of a file, or of all frames in a folder: they change with its content."""
    return [[part.name, *version(part)] for part in frame_files(path)] if path.is_dir() else version(path)


def list_aligned(root: Path, catalog: Catalog, single: str = "") -> tuple[AlignedListing, dict[str, Modality]]:
    """Returns all files under root, by modality and key, and the entries whose folders exist.

    Raises:
        MaskweaveError: as `import_folders`.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "no such folder"
        raise MaskweaveError(
            f"{root}: {found}; expected a folder with one folder per modality, such as {root}/{next(iter(catalog))}/NAME.EXT"
        )
    expected = [name for name, m in catalog.items() if not m.source]
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    folders = [catalog[single].name] if single else folders
    listing = AlignedListing()
    places = {name: (catalog[name].folder or name) if not single else name for name in expected}
    entries = {
        name: catalog[name] for name in expected if places[name] in folders and not catalog[name].value.is_in_name
    }
    if not entries:
        found = (
            f"contains the folders {', '.join(folders[:10])}"
            if folders
            else "is empty"
            if not any(root.iterdir())
            else "contains no folders"
        )
        raise MaskweaveError(
            f"{root}: {found}; expected folders named like the entries of {catalog.where}: {', '.join(dict.fromkeys(places.values()))}"
        )
    for name in folders:
        if name not in {places[entry] for entry in entries}:
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
        folder = listing.folders[name] = root if single else root / places[name]
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
    folder: Path, entry: Modality, listing: AlignedListing, unusable: dict[str, tuple[str, str]]
) -> dict[str, str]:
    """Paths of the files in one modality's folder, by key."""
    allowed, others = entry.value.endings, 0
    files: dict[str, str] = {}
    unpacked: list[str] = []
    for parent, inner, names in os.walk(folder):
        for name in [i for i in sorted(inner) if i.lower().endswith(".zarr") and "zarr.zip" in allowed]:
            inner.remove(name)
            key = Path(parent, name).relative_to(folder).as_posix()[: -len(".zarr")]
            pack_it = f"cd {shlex.quote(name)} && zip -0r ../{shlex.quote(f'{name}.zip')} ."
            unpacked.append(f"{Path(parent, name)}: found a Zarr folder; expected one file; pack it: {pack_it}")
            listing.faults[key] = unpacked[-1]
        inner[:] = sorted(i for i in inner if not i.startswith(".") and not _is_link(Path(parent, i), listing))
        of_frames = [i for i in inner if FRAMES in allowed and is_frames(Path(parent, i))]
        inner[:] = [i for i in inner if i not in of_frames]
        for name in (*of_frames, *sorted(names)):
            path = Path(parent, name)
            if name.startswith(".") or _is_link(path, listing):
                continue
            relative = path.relative_to(folder).as_posix()
            key, ending = (relative, FRAMES) if name in of_frames else split_ending(relative)
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


def _is_link(path: Path, listing: AlignedListing) -> bool:
    if path.is_symlink():
        listing.notes.append(f"{path}: ignored: it is a link, and links are not followed")
        return True
    return False


def _check_names(root: Path, listing: AlignedListing) -> None:
    """Check that every folder shares a name with another folder."""
    for name, files in listing.files.items():
        others = {other: keys for other, keys in listing.files.items() if other != name}
        if others and not any(key in keys for key in files for keys in others.values()):
            examples = "; ".join(f"{other}/: {', '.join(list(keys)[:2])}" for other, keys in others.items())
            raise MaskweaveError(
                f"{root / name}: none of its {len(files)} file names ({', '.join(list(files)[:2])}) occurs in the folder of another modality ({examples}); "
                "give all files of one sample the same name, except for the ending"
            )
