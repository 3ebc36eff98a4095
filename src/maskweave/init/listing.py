"""The files of a folder, by modality and by sample, and how they are laid out.

| layout | files |
| --- | --- |
| aligned | ROOT/MODALITY/…/NAME.EXT, or ROOT/MODALITY/…/NAME/FRAME.EXT for videos; the files of one sample have the same NAME |
| classes | ROOT/CLASS/…/NAME.EXT, all of one kind; the folders are the classes |
| flat | ROOT/NAME.EXT, all of one kind |
| named | ROOT/MODALITY/NAME_SUFFIX.EXT, ROOT/NAME_MODALITY.EXT, ROOT/NAME.EXT with several endings, ROOT/NAME/MODALITY.EXT, ROOT/train/MODALITY/NAME.EXT; see `names` |
| others | data sets, see `data_sets` |

Folders `train/` and `val/` or `test/` above or below those of the modalities or classes say which samples are held out.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from maskweave.data.csv_table import ENDINGS as CSV_ENDINGS
from maskweave.data.json_lines import ENDINGS as JSON_LINES
from maskweave.errors import MaskweaveError
from maskweave.init.contents import FileContent, read_content
from maskweave.init.names import (
    SEPARATORS,
    files_of_samples,
    grouped_names,
    key_counts,
    matched_names,
    part_of,
    parts_of,
)
from maskweave.modality.checks import check_name
from maskweave.values.files import PICTURES
from maskweave.values.formats import BUILT_IN, installed, split_ending
from maskweave.values.formats.frames import is_frames
from maskweave.values.formats.pickled import conversion
from maskweave.values.formats.sound import SOUNDS

Layout = Literal["aligned", "classes", "flat", "named", "table", "robot", "coco", "arkit", "tars", "shards"]
RESERVED = ("default",)
"""Names that no modality can have, because recipes use them for something else."""
NAME = "name"
"""Column of the samples' names in the table of a `named` layout."""
USUAL = {"picture": PICTURES, "sound": SOUNDS}
"""Names of the modality of class folders, or of a flat folder whose own name cannot be one, by the endings of its files."""
TOLD = 8
"""Most names in a message."""
CLASS_FOLDER = "^([^/]+)/"
"""`value.name_pattern` of labels that are the names of folders."""
LOOKED_AT_FOR_KIND = 3
"""Files of a folder that are tried until one can be read."""
OF_SYSTEMS = ("thumbs.db", "desktop.ini")
"""Files that Windows writes beside others, in lower case; they are ignored like hidden files."""
DESCRIBING = ("json", "txt", "csv", "tsv", "jsonl", "xml", "yaml", "yml", "md", "html")
"""Endings of files that more often are about another file of the same name than that they are the sample."""
MOST_TABLES = 2
"""Most tables among other files of a folder that are about them, rather than samples."""
NO_SAMPLE = "a table about other files, which is not read here; join all such tables into one beside the folders"
Seconds = dict[Path, list[Path]]
"""Further files of the same name, by the one that is used."""
SplitPath = tuple[str, str, str]
"""A path without its ending, the ending, and the path."""


@dataclass(frozen=True)
class FileSet:
    """The files of one modality."""

    name: str
    folder: Path
    files: dict[str, str]
    """Path relative to `folder`, by the sample's name."""

    most_looked: ClassVar[int] = 0
    """Most files that are looked at; 0: as many as usual."""

    def content(self, key: str, array: str = "") -> FileContent | None:
        """Returns what the file of a sample holds; None if it says that the value is missing.

        Args:
            array: name of the array to read from files that hold several.

        Raises:
            BadSample: the file is damaged.
        """
        return read_content(self.folder / self.files[key], array)

    @cached_property
    def endings(self) -> Counter[str]:
        return Counter(split_ending(path)[1] for path in self.files.values())


@dataclass
class FolderListing:
    """All modalities under a folder."""

    root: Path
    layout: Layout
    sets: list[FileSet]
    left_out: list[str] = field(default_factory=list)
    """Folders and files that are not used, and why."""
    fields: dict[str, str] = field(default_factory=dict)
    """`data.fields` of a data set that is not one of folders."""
    window: int = 0
    """`data.window` of a LeRobot folder."""
    group: str = ""
    """`data.split.group`."""
    class_pattern: str = ""
    """`value.name_pattern` of the label that the names of folders give; empty: they give none."""
    class_name: str = ""
    """Name of that label."""

    @property
    def parts(self) -> dict[str, str]:
        """The part of each sample, `train` or `validation`, if folders say it."""
        return parts_of(self.names)

    @property
    def is_data_set(self) -> bool:
        """Whether `maskweave.data.opening` reads it as it is."""
        return self.layout not in ("aligned", "classes", "flat")

    @property
    def names(self) -> list[str]:
        """All samples, sorted."""
        return sorted(set().union(*(s.files for s in self.sets)))


def list_folder(root: Path, classes: bool = False, ignored: Collection[Path] = ()) -> FolderListing:
    """Find the modalities under a folder. Links and hidden files are ignored.

    Args:
        classes: folders are classes, even though they hold files of the same names.
        ignored: files that are no values.

    Raises:
        MaskweaveError: no such folder, it is empty, or its files have no known layout; the message lists what was found.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "no such folder"
        raise MaskweaveError(
            f"{root}: {conversion(*split_ending(str(root))) or found}; expected a folder with one folder per modality, {root}/MODALITY/NAME.EXT"
        )
    seconds: Seconds = {}
    listing = _list(root, classes, ignored, seconds)
    listing = _with_seconds(listing, seconds) if seconds else listing
    return replace(listing, layout="named") if _leaves_files(listing) else listing


def _list(root: Path, classes: bool, ignored: Collection[Path], seconds: Seconds) -> FolderListing:
    """The listing with one file for each name; the others are added to `seconds`."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not _is_hidden(p))
    inside = [p for p in sorted(root.iterdir()) if p.is_file() and p not in ignored]
    own = [p.name for p in inside if not _is_hidden(p)]
    of_parts = [p for p in folders if part_of(p.name)]
    more = [p for p in folders if p not in of_parts and part_of(SEPARATORS.split(p.name)[0])]  # train_masks/
    if not more and {part_of(p.name) for p in of_parts} == {"train", "validation"}:
        listing = _of_parts(root, [_list(p, classes, ignored, seconds) for p in of_parts])
        others = {p.name: len(_files(p, {}, [], ignored)) for p in folders if p not in of_parts}
        told = [f"{name}/: belongs to no part ({count} files)" for name, count in others.items() if count]
        listing.left_out = [*_beside(own), *told, *listing.left_out]
        return listing
    tables: list[str] = []
    sets = [FileSet(p.name, p, _files(p, seconds, tables, ignored)) for p in folders]
    sets = [s for s in sets if s.files]
    counts = key_counts({s.name: s.files for s in sets})
    sets = [_of_frames(s, counts) for s in sets]
    if not sets and not own:
        raise MaskweaveError(
            f"{root}: contains no files; expected a folder with one folder per modality, {root}/MODALITY/NAME.EXT"
        )
    listing = _of_folders(root, sets, own, classes) if sets else _flat(root, own, seconds)
    listing.left_out += [f"{path}: {NO_SAMPLE}" for path in tables]
    return listing


def _of_folders(root: Path, sets: list[FileSet], own: list[str], classes: bool) -> FolderListing:
    """The listing of folders that hold files."""
    inner = {} if classes else files_of_samples({s.name: s.files for s in sets})
    if inner and all(_is_video(s) for s in sets):
        left = [f"{len(own)} files beside folders of frames: {', '.join(own[:3])}"] * bool(own)
        return FolderListing(root, "flat", [FileSet("video", root, {s.name: s.name for s in sets})], left)
    if inner and all(map(_is_name, inner)):
        return _sample_folders(root, inner, sets, own)
    named = {} if classes else matched_names({s.name: s.files for s in sets})
    counts = key_counts({s.name: s.files for s in sets})
    matched = [s for s in sets if any(counts[key] > 1 for key in s.files)]
    parts = [s.name for s in sets if part_of(s.name)]
    can_be_classes = not matched and not parts and _can_be_classes(sets)
    if classes or (can_be_classes and not (named and _hold_different(sets))):
        return _class_folders(root, sets, own, [] if classes else _doubts(sets, named))
    if named:
        sets = [replace(s, files=named.get(s.name, s.files)) for s in sets]
        listing = _aligned(root, sets, [s for s in sets if s.name in named], own)
        listing.layout = "named"
        return listing
    if matched or len(sets) == 1:
        return _aligned(root, sets, matched or sets, own)
    why = f"; {parts[0]}/ is the name of a part, so the folders are no classes" if parts else ""
    raise MaskweaveError(
        f"{root}: no two of its folders have files of the same name: {_told(sets)}; give all files of one sample the same name, except for the ending, "
        f"or, for class folders, only files of one kind{why}"
    )


def _doubts(sets: Sequence[FileSet], named: Mapping[str, object]) -> list[str]:
    """Returns what speaks against folders being classes."""
    counts = {len(s.files) for s in sets}
    inner = {frozenset(key.rpartition("/")[0] for key in s.files) for s in sets}
    why = (
        "their names match when what all have in common is left out of them"
        if named
        else f"all have the same folders inside, such as {min(next(iter(inner)))}/"
        if len(inner) == 1 and inner != {frozenset([""])}
        else f"all have {min(counts)} files"
        if len(counts) == 1
        else ""
    )
    what = "give all files of one sample the same name, except for the ending"
    return [f"{_names(sets)} as modalities: taken as classes, but {why}; if they are modalities, {what}"] * bool(why)


def _with_seconds(listing: FolderListing, seconds: Seconds) -> FolderListing:
    """Returns a listing in which the second files of most names of a modality are another one; of the others is told how many there are."""
    sets, told = [], []
    names = {s.name for s in listing.sets}
    for one in listing.sets:
        by_ending: dict[str, dict[str, str]] = {}
        for key, path in one.files.items():
            for second in seconds.get(one.folder / path, []):
                found = by_ending.setdefault(split_ending(second.name)[1], {})
                found.setdefault(key, second.relative_to(one.folder).as_posix())
        sets.append(one)
        for ending, files in by_ending.items():
            name = f"{one.name}_{ending}"
            if ending in _readable() and 2 * len(files) > len(one.files) and name not in names and _is_name(name):
                sets.append(FileSet(name, one.folder, files))
            else:
                key, path = next(iter(files.items()))
                told.append(f"{one.name}: {len(files)} names with two files: {one.files[key]} is used, {path} is not")
    if len(sets) == len(listing.sets) and not told:
        return listing
    return replace(listing, layout="named", sets=sets, left_out=[*listing.left_out, *told])


def _readable() -> set[str]:
    return {*PICTURES, *SOUNDS, *BUILT_IN, *installed(), "txt", "json"}


def _leaves_files(listing: FolderListing) -> bool:
    """Whether folders that are imported as they are hold files that could be values but are left out, so that only a list of files says what is meant."""
    if listing.is_data_set:
        return False
    for one in listing.sets:
        used = {*one.files.values()}
        known = _readable() | ({"csv", "tsv"} if not one.endings.keys() & {*PICTURES, *SOUNDS} else set())
        if any(path not in used and split_ending(path)[1] in known for path in _paths(one.folder, used)):
            return True
    return False


def _flat(root: Path, own: list[str], seconds: Seconds) -> FolderListing:
    """The listing of files in one folder: of one kind, or with what they are in their names."""
    tables = _tables(_split(own))
    own = [name for name in own if name not in tables]
    left_out = [f"{name}: {NO_SAMPLE}" for name in tables]
    found = grouped_names(own)
    named = {name if _is_name(name) and name != NAME else f"{name}_": files for name, files in found.items()}
    if len(named) > 1 and all(map(_is_name, named)):
        used = {path for files in named.values() for path in files.values()}
        left_out += [f"{name}: belongs to no sample" for name in own if name not in used]
        return FolderListing(root, "named", [FileSet(name, root, files) for name, files in named.items()], left_out)
    name = root.resolve().name
    files = _one_of_each(root, _split(own), seconds)
    return FolderListing(root, "flat", [FileSet(name if _is_name(name) else _usual(files), root, files)], left_out)


def _sample_folders(root: Path, inner: dict[str, dict[str, str]], sets: list[FileSet], own: list[str]) -> FolderListing:
    """The listing of folders that are samples, with files named like their modalities."""
    used = {path for files in inner.values() for path in files.values()}
    others = [path for s in sets for path in (f"{s.name}/{p}" for p in s.files.values()) if path not in used]
    left_out = [f"{name}: belongs to no sample" for name in own] + _maybe_classes(sets)
    if others:
        left_out.append(f"{len(others)} files whose names few folders have: {', '.join(others[:3])}")
    modalities = [FileSet(f"{name}_" if name == NAME else name, root, files) for name, files in sorted(inner.items())]
    return FolderListing(root, "named", modalities, left_out)


def _of_parts(root: Path, listings: list[FolderListing]) -> FolderListing:
    """The listing of folders `train/`, `val/` and others, each of which has a layout of its own."""
    files: dict[str, dict[str, str]] = {}
    for one in listings:
        for s in one.sets:
            name = s.name if one.layout in ("aligned", "named") else _usual(s.files)
            paths = {f"{one.root.name}/{key}": (s.folder / path) for key, path in s.files.items()}
            files.setdefault(name, {}).update((key, path.relative_to(root).as_posix()) for key, path in paths.items())
    layouts = {one.layout for one in listings}
    if "classes" in layouts and len(layouts) > 1:
        layouts_told = ", ".join(f"{one.root.name}/: {one.layout}" for one in listings)
        raise MaskweaveError(
            f"{root}: its parts are laid out differently ({layouts_told}); give all of them the same folders"
        )
    layout: Layout = next(iter(layouts)) if layouts <= {"classes", "flat"} and len(layouts) == 1 else "named"
    patterns = {one.class_pattern for one in listings} - {""}
    pattern = f"^[^/]+/{patterns.pop().removeprefix('^')}" if patterns else ""
    told: dict[str, list[str]] = {}
    for one in listings:
        for left in one.left_out:
            told.setdefault(left, []).append(f"{one.root.name}/")
    left_out = [f"{', '.join(where)}: {left}" for left, where in told.items()]
    sets = [FileSet(name, root, found) for name, found in files.items()]
    return FolderListing(root, layout, sets, left_out, class_pattern=pattern)


def spread(items: Sequence[str], most: int) -> list[str]:
    """Returns at most `most` items, evenly spread over all."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _aligned(root: Path, sets: list[FileSet], matched: list[FileSet], own: list[str]) -> FolderListing:
    left_out, used = [], []
    for one in sets:
        if not any(one is m for m in matched):
            some = ", ".join(list(one.files)[:2])
            left_out.append(f"{one.name}/: none of its {len(one.files)} names ({some}) occurs in another folder")
        elif not _is_name(one.name):
            left_out.append(
                f"{one.name}/: cannot be the name of a modality; rename the folder: only letters, digits, '_' and '-', and not {' or '.join(RESERVED)}"
            )
        else:
            used.append(one)
    left_out += _beside(own)
    if not used:
        raise MaskweaveError(f"{root}: nothing usable: {'; '.join(left_out)}")
    listing = FolderListing(root, "aligned", used, left_out + _maybe_classes(used))
    if len(used) == 1 and _has_class_folders(used[0]):
        listing.class_pattern = CLASS_FOLDER
    return listing


def _beside(own: Sequence[str]) -> list[str]:
    return [f"{len(own)} files that are in no folder of a modality: {', '.join(own[:3])}"] * bool(own)


def _maybe_classes(sets: Sequence[FileSet]) -> list[str]:
    """Returns what to do if folders are classes, although their files have the same names."""
    if len(sets) < 2 or not _are_of_one_kind(sets) or _hold_different(sets):
        return []
    return [
        f"{_names(sets)} as classes: their files have the same names; if these folders are classes, run again with --classes"
    ]


def _class_folders(root: Path, sets: list[FileSet], own: list[str], doubts: list[str]) -> FolderListing:
    if len(sets) < 2 or not _are_of_one_kind(sets):
        raise MaskweaveError(
            f"{root}: found {len(sets)} folders of files: {_told(sets)}; expected one for each class, for at least two classes, with files of one kind"
        )
    files = {f"{s.name}/{key}": f"{s.name}/{path}" for s in sets for key, path in s.files.items()}
    left_out = [*_beside(own), *doubts]
    return FolderListing(root, "classes", [FileSet(_usual(files), root, files)], left_out, class_pattern=CLASS_FOLDER)


def _usual(files: Mapping[str, str]) -> str:
    endings = {split_ending(path)[1] for path in files.values()}
    return next((name for name, known in USUAL.items() if endings <= set(known)), "value")


def _has_class_folders(one: FileSet) -> bool:
    """Whether the only modality has its files in several folders, each with several files, whose names do not occur in other folders, as frames' do."""
    split = [key.split("/") for key in one.files]
    if any(len(parts) != 2 for parts in split) or parts_of(one.files):
        return False
    folders, names = {parts[0] for parts in split}, {parts[1] for parts in split}
    return 1 < len(folders) <= len(split) / 2 and len(names) == len(split)


def _can_be_classes(sets: Sequence[FileSet]) -> bool:
    return 1 < len(sets) <= sum(len(s.files) for s in sets) / 2 and _are_of_one_kind(sets)


def _are_of_one_kind(sets: Sequence[FileSet]) -> bool:
    """Whether all files are pictures, or all sounds, or have the same ending."""
    endings = set().union(*(s.endings for s in sets))
    return len(endings) == 1 or any(endings <= set(kind) for kind in (PICTURES, SOUNDS))


def _hold_different(sets: Sequence[FileSet]) -> bool:
    """Whether the first readable files of some folders differ in their kind, numbers or channels, as those of modalities do and those of classes seldom."""
    kinds = set()
    for one in sets:
        for key in list(one.files)[:LOOKED_AT_FOR_KIND]:
            try:
                content = one.content(key)
            except MaskweaveError:
                continue
            if content is not None and isinstance(content.data, np.ndarray):
                data = content.data
                kinds.add((content.holds, data.dtype.str, data.ndim, data.shape[-1] if data.ndim == 3 else 0))
                break
    return len(kinds) > 1


def _is_hidden(path: "Path | os.DirEntry[str]") -> bool:
    """Whether a file or folder is hidden, a link, or written by Windows for itself."""
    return path.name.startswith(".") or path.name.lower() in OF_SYSTEMS or path.is_symlink()


def _paths(folder: Path, closed: Collection[str] = (), start: str = "") -> Iterator[str]:
    """Yields the paths of the files under a folder, relative to it, in order, without those that are hidden or inside of `closed` folders."""
    with os.scandir(folder / start) as entries:
        inside = sorted((one.is_dir(), one.name) for one in entries if not _is_hidden(one))
    for is_folder, name in inside:
        if not is_folder:
            yield f"{start}{name}"
        elif f"{start}{name}" not in closed:
            yield from _paths(folder, closed, f"{start}{name}/")


def _files(folder: Path, seconds: Seconds, tables: list[str], ignored: Collection[Path]) -> dict[str, str]:
    """Paths of the files under a folder, by the path without the ending, without tables about them."""
    own = {path.relative_to(folder).as_posix() for path in ignored if path.is_relative_to(folder)}
    found = [one for one in _split(_paths(folder)) if one[1] and one[2] not in own]
    about = set(_tables(found))
    tables += [f"{folder.name}/{path}" for path in sorted(about)]
    return _one_of_each(folder, [one for one in found if one[2] not in about], seconds)


def _split(paths: Iterable[str]) -> list[SplitPath]:
    return [(*split_ending(path), path) for path in paths]


def _tables(split: Sequence[SplitPath]) -> list[str]:
    """Returns tables that are about the other files, as they are few."""
    tables = [path for _, ending, path in split if ending in (*CSV_ENDINGS, *JSON_LINES)]
    return tables if len(tables) <= min(MOST_TABLES, len(split) - len(tables) - 1) else []


def _one_of_each(folder: Path, split: Sequence[SplitPath], seconds: Seconds) -> dict[str, str]:
    """Returns one file for each name, and adds the others to `seconds`: rather a picture, sound or array than a file about it, then the most frequent ending."""
    endings = Counter(ending for _, ending, _ in split)
    by_name: dict[str, list[tuple[bool, int, str]]] = {}
    for key, ending, path in split:
        by_name.setdefault(key, []).append((ending in DESCRIBING, -endings[ending], path))
    found = {}
    for key, candidates in by_name.items():
        if len(candidates) > 1:
            candidates.sort()
            seconds[folder / candidates[0][2]] = [folder / path for _, _, path in candidates[1:]]
        found[key] = candidates[0][2]
    return found


def _of_frames(one: FileSet, counts: Mapping[str, int]) -> FileSet:
    """Returns folders of frames as the files of a set, if the folders have the names of other sets' files, and the pictures in them have not.

    Args:
        counts: how many sets have a file of each name.
    """
    folders = {key.rpartition("/")[0] for key in one.files}
    if "" in folders or not any(counts.get(f, 0) > (f in one.files) for f in folders):
        return one
    if any(counts[key] > 1 for key in one.files) or not all(is_frames(one.folder / folder) for folder in folders):
        return one
    return FileSet(one.name, one.folder, {folder: folder for folder in sorted(folders)})


def _is_video(one: FileSet) -> bool:
    """Whether a folder holds numbered frames."""
    return len(one.files) > 1 and all(re.search(r"\d$", key) for key in one.files) and is_frames(one.folder)


def _is_name(name: str) -> bool:
    try:
        check_name(name, name)
    except MaskweaveError:
        return False
    return name not in RESERVED


def _names(sets: Sequence[FileSet]) -> str:
    return ", ".join(f"{s.name}/" for s in sets[:TOLD]) + " …" * (len(sets) > TOLD)


def _told(sets: list[FileSet]) -> str:
    parts = [f"{s.name}/ ({len(s.files)} files: {', '.join(list(s.files.values())[:2])})" for s in sets[:TOLD]]
    return "; ".join(parts) + " …" * (len(sets) > TOLD)
