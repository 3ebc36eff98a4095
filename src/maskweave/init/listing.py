"""The files of a folder, by modality and by sample, and how they are laid out.

| layout | files |
| --- | --- |
| aligned | ROOT/MODALITY/…/NAME.EXT, or ROOT/MODALITY/…/NAME/FRAME.EXT for videos; the files of one sample have the same NAME |
| classes | ROOT/CLASS/…/NAME.EXT, all of them pictures; the folders are the classes |
| flat | ROOT/NAME.EXT, all of one kind |
| others | data sets, see `data_sets` |
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from maskweave.errors import MaskweaveError
from maskweave.init.contents import FileContent, read_content
from maskweave.modality.checks import check_name
from maskweave.values.files import PICTURES
from maskweave.values.formats import split_ending
from maskweave.values.formats.frames import is_frames
from maskweave.values.formats.pickled import conversion

Layout = Literal["aligned", "classes", "flat", "table", "robot", "coco", "tars", "shards"]
RESERVED = ("default",)
"""Names that no modality can have, because recipes use them for something else."""
USUAL = "picture"
"""Name of the modality of a flat folder or of class folders."""
TOLD = 8
"""Most names in a message."""


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

    @property
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

    @property
    def is_data_set(self) -> bool:
        """Whether `maskweave.data.opening` reads it as it is."""
        return self.layout not in ("aligned", "classes", "flat")

    @property
    def names(self) -> list[str]:
        """All samples, sorted."""
        return sorted(set().union(*(s.files for s in self.sets)))


def list_folder(root: Path, classes: bool = False) -> FolderListing:
    """Find the modalities under a folder. Links and hidden files are ignored.

    Args:
        classes: folders are classes, even though they hold files of the same names.

    Raises:
        MaskweaveError: no such folder, it is empty, or its files have no known layout; the message lists what was found.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "no such folder"
        raise MaskweaveError(
            f"{root}: {conversion(*split_ending(str(root))) or found}; expected a folder with one folder per modality, {root}/MODALITY/NAME.EXT"
        )
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and not p.is_symlink())
    sets = [FileSet(p.name, p, _files(p)) for p in folders]
    sets = [s for s in sets if s.files]
    sets = [_of_frames(s, sets) for s in sets]
    own = {
        split_ending(p.name)[0]: p.name
        for p in sorted(root.iterdir())
        if p.is_file() and not p.name.startswith(".") and not p.is_symlink()
    }
    if not sets and not own:
        raise MaskweaveError(
            f"{root}: contains no files; expected a folder with one folder per modality, {root}/MODALITY/NAME.EXT"
        )
    matched = [s for s in sets if any(key in o.files for o in sets if o is not s for key in s.files)]
    pictures = [s for s in sets if set(s.endings) <= set(PICTURES)]
    if classes or (not matched and len(pictures) > 1 and len(pictures) == len(sets)):
        return _class_folders(root, pictures)
    if matched or len(sets) == 1:
        return _aligned(root, sets, matched or sets, own)
    if sets:
        raise MaskweaveError(
            f"{root}: no two of its folders have files of the same name: {_told(sets)}; give all files of one sample the same name, except for the ending, "
            "or, for class folders, only pictures"
        )
    name = root.resolve().name
    return FolderListing(root, "flat", [FileSet(name if _is_name(name) else USUAL, root, own)])


def spread(items: Sequence[str], most: int) -> list[str]:
    """Returns at most `most` items, evenly spread over all."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _aligned(root: Path, sets: list[FileSet], matched: list[FileSet], own: dict[str, str]) -> FolderListing:
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
    if own:
        left_out.append(f"{len(own)} files that are in no folder of a modality: {', '.join(list(own.values())[:3])}")
    if not used:
        raise MaskweaveError(f"{root}: nothing usable: {'; '.join(left_out)}")
    return FolderListing(root, "aligned", used, left_out)


def _class_folders(root: Path, sets: list[FileSet]) -> FolderListing:
    if len(sets) < 2:
        raise MaskweaveError(
            f"{root}: found {len(sets)} folders of pictures; expected one for each class, for at least two classes"
        )
    files = {f"{s.name}/{key}": f"{s.name}/{path}" for s in sets for key, path in s.files.items()}
    return FolderListing(root, "classes", [FileSet(USUAL, root, files)])


def _files(folder: Path) -> dict[str, str]:
    """Paths of the files under a folder, by the path without the ending."""
    found: dict[str, str] = {}
    for parent, inner, names in os.walk(folder):
        inner[:] = sorted(i for i in inner if not i.startswith(".") and not Path(parent, i).is_symlink())
        for name in sorted(names):
            path = Path(parent, name)
            key, ending = split_ending(path.relative_to(folder).as_posix())
            if not name.startswith(".") and ending and not path.is_symlink():
                found.setdefault(key, path.relative_to(folder).as_posix())
    return found


def _of_frames(one: FileSet, sets: Sequence[FileSet]) -> FileSet:
    """Returns folders of frames as the files of a set, if the folders have the names of other sets' files, and the pictures in them have not."""
    folders = {key.rpartition("/")[0] for key in one.files}
    others = set().union(*(s.files for s in sets if s is not one))
    if "" in folders or not folders & others or one.files.keys() & others:
        return one
    if not all(is_frames(one.folder / folder) for folder in folders):
        return one
    return FileSet(one.name, one.folder, {folder: folder for folder in sorted(folders)})


def _is_name(name: str) -> bool:
    try:
        check_name(name, name)
    except MaskweaveError:
        return False
    return name not in RESERVED


def _told(sets: list[FileSet]) -> str:
    parts = [f"{s.name}/ ({len(s.files)} files: {', '.join(list(s.files.values())[:2])})" for s in sets[:TOLD]]
    return "; ".join(parts) + " …" * (len(sets) > TOLD)
