"""Opening data by what a user calls it: `open_data` is the one place that tells layouts apart.

| place | what marks it | source |
| --- | --- | --- |
| imported data set, tar shards | its index folder, or `ROOT/MODALITY/*.tar` | `Shards` |
| folders of classes | `ROOT/CLASS/NAME.png`, where labels are wanted | `ClassFolders` |
| pictures | picture files in any folders | `Pictures` |
| COCO's boxes | a `.json` file | `CocoBoxes` |
| named source | `scenes`, or `python: package.module:function` | what that code makes (`named.py`) |

A folder counts for what it holds, not for what it is called: `ROOT/normal` with pictures is a class, whatever modalities there are.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from maskweave.data.labeled import ClassFolders, CocoBoxes
from maskweave.data.named import PREFIX, find_source, is_named, source_names
from maskweave.data.pictures import Pictures
from maskweave.data.shards import RANGES, Shards
from maskweave.data.source import Source, Subset
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.files import PICTURES

LOOKED_AT = 1000
"""Files of an unknown folder that the message counts; and of each that may be aligned with another."""


def open_data(
    place: str,
    catalog: Catalog,
    *,
    names: Sequence[str] | None = None,
    samples: int = 0,
    seed: int | None = None,
    pictures: str = "",
    labeled: bool = False,
) -> Source:
    """Open a data set by its path or name.

    Args:
        names: modalities that are wanted, the most important one first; by default whatever of the catalog there is. A named source must have
            all of them.
        samples: the first so many; 0: all. A named source without an end needs a number.
        seed: chooses among the samples of a source without an end, 0 by default.
        pictures: COCO's json: folder of its pictures.
        labeled: read pictures in folders as classes, not as pictures alone.

    Raises:
        MaskweaveError: there is no data of a known layout at `place`, its layout is ambiguous, or it cannot be opened; says what was found and
            which layouts there are.
    """
    if samples < 0:
        raise MaskweaveError(f"samples must be 0 (all) or more, found {samples}")
    named = find_source(place)
    if seed is not None and not (named and named.endless):
        raise MaskweaveError(
            f"a seed chooses among the samples of a source without an end, such as scenes; {place} is a fixed data set, so leave the seed out"
        )
    if named is not None:
        wanted = (
            [n for n, m in catalog.items() if named.gives(m)] if names is None else [catalog[n].reads for n in names]
        )
        source = named.open(catalog.subset(wanted), samples, seed or 0)
    else:
        entries = list(catalog.values()) if names is None else [catalog[catalog[n].reads] for n in names]
        source = _open_path(place, catalog, entries, pictures, labeled)
    return Subset(source, range(samples)) if 0 < samples < len(source) else source


def absolute(place: str) -> str:
    """`place` so that it means the same from any working folder; named sources are kept, in one spelling."""
    if not is_named(place):
        return str(Path(place).resolve())
    return f"{PREFIX} {place.removeprefix(PREFIX).strip()}" if place.startswith(PREFIX) else place


def _open_path(place: str, catalog: Catalog, entries: Sequence[Modality], pictures: str, labeled: bool) -> Source:
    path = Path(place)
    flat = [m for m in entries if m.value.is_photograph and len(m.value.size) == 2 and not m.source]
    picture = next((m for m in flat if m.value.channels == 3), flat[0] if flat else None)
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise MaskweaveError(f"{place}: is a file; expected {_accepted(catalog)}")
        boxes = next((m for m in entries if m.value.head == "boxes"), None)
        if picture is None or boxes is None:
            raise MaskweaveError(
                f"{place}: COCO's json has pictures and boxes alone; a modality of pictures and one of boxes must be wanted (of a transfer: as input and target)"
            )
        if not pictures:
            raise MaskweaveError(f"{place}: a COCO json needs the folder of its pictures, data.pictures of a transfer")
        return CocoBoxes(path, pictures, picture, boxes)
    if not path.is_dir():
        raise MaskweaveError(f"{place}: no such folder; expected {_accepted(catalog)}")
    if _is_sharded(path, catalog):
        return Shards(path, catalog)
    if picture is None:
        raise MaskweaveError(
            f"{place}: holds no tar shards of the catalog's modalities, found {_found(path)}, and no modality of pictures is wanted; expected {_accepted(catalog)}"
        )
    if not _holds(path, picture.value.endings if labeled else PICTURES):
        raise MaskweaveError(
            f"{place}: holds no pictures and no tar shards, found {_found(path)}; expected {_accepted(catalog)}"
        )
    if aligned := _aligned(path, catalog, picture):
        raise MaskweaveError(
            f"{place}: holds a folder of files for each modality ({', '.join(aligned)}), which is not imported yet; make tar shards of it with 'maskweave data import'"
        )
    return ClassFolders(path, picture) if labeled else Pictures(path, picture)


def _is_sharded(root: Path, catalog: Catalog) -> bool:
    """Whether a folder is an imported data set or tar shards.

    Raises:
        MaskweaveError: it holds both tar shards and pictures.
    """
    if (root / RANGES).is_dir():
        return True
    sharded = [name for name in catalog if any((root / name).glob("*.tar"))]
    plain = [folder.name for folder in _folders(root) if _holds(folder, PICTURES)] if sharded else []
    if plain:
        raise MaskweaveError(
            f"{root}: holds tar shards ({', '.join(sharded)}) and pictures as files ({_some(plain)}), so what is meant is not clear; "
            "expected only one of the two: move the other elsewhere"
        )
    return bool(sharded)


def _aligned(root: Path, catalog: Catalog, picture: Modality) -> list[str]:
    """Folders of files that `maskweave data import` would take: called like modalities, with files of equal names."""
    folders = [folder.name for folder in _folders(root)]
    called = [name for name in folders if name in catalog]
    if picture.name not in called and len(called) < len(folders):
        return []  # some are called otherwise, so they are classes
    for first in called:
        names = [p.relative_to(root / first).with_suffix("") for p in islice(_files(root / first), LOOKED_AT)]
        for other in called:
            if other != first and any(
                (root / other / f"{n}.{e}").exists() for n in names for e in catalog[other].value.endings
            ):
                return called
    return []


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(root: Path) -> Iterator[Path]:
    """Files in any depth, without linked and hidden ones, as they come. Linked folders count where they lie in `root` itself."""
    for top in (root, *_folders(root)):
        for folder, below, files in os.walk(top):
            below[:] = [] if top == root else [name for name in below if not name.startswith(".")]
            yield from (p for name in files if not name.startswith(".") and not (p := Path(folder, name)).is_symlink())


def _holds(root: Path, kinds: Sequence[str]) -> bool:
    return any(path.suffix[1:].lower() in kinds for path in _files(root))


def _found(root: Path) -> str:
    """What lies in a folder, in words."""
    counts = Counter(path.suffix.lower() or "no ending" for path in islice(_files(root), LOOKED_AT))
    files = ", ".join(f"{ending} ({count})" for ending, count in counts.most_common(5))
    folders = _some([folder.name for folder in _folders(root)])
    return f"{f'files of {files}' if files else 'no files'}{f' and the folders {folders}' if folders else ''}"


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + " …" * (len(names) > most)


def _accepted(catalog: Catalog) -> str:
    own = _some([name for name, m in catalog.items() if not m.source])
    return (
        f"an imported data set or tar shards (MODALITY/NAME.tar, MODALITY one of {own}), folders of pictures ({', '.join(PICTURES)}; links are left aside), "
        f"COCO's json, or a named source ({', '.join(source_names())}, or python: package.module:function). "
        "A folder of files for each modality is imported first, with 'maskweave data import'"
    )
