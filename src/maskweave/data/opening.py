"""Opening a data set by path or name: `open_data` is the only code that detects layouts.

| place | detected by | source |
| --- | --- | --- |
| imported data set, tar shards | its index folder, or `ROOT/MODALITY/*.tar` | `Shards` |
| WebDataset tars | `ROOT/*.tar` or `*.tar.gz`, or one such file | `WebTars` |
| table | a `.csv` or `.tsv` file | `TableSource` of a `CsvTable` |
| lines | a `.jsonl` or `.ndjson` file | `TableSource` of `JsonLines` |
| parquet | a `.parquet` file, a pattern `NAME*.parquet`, or a folder of them without pictures | `TableSource` of a `ParquetTable` |
| arrays | an `.npz`, `.h5`, `.hdf5` or `.nc` file whose arrays share their first axis, or a folder with this file alone | `TableSource` of an `ArrayTable` |
| ARKitScenes | `ROOT/SCAN/SCAN_3dod_annotation.json`, or in folders such as `Training` | `ArkitScenes` |
| LeRobot | `ROOT/meta/info.json` and `ROOT/data/` | `LeRobot` |
| Hugging Face `datasets` | `ROOT/state.json` and `ROOT/dataset_info.json` | `TableSource` of a `DatasetsFolder` |
| class folders | `ROOT/CLASS/NAME.png`, if labels are wanted | `ClassFolders` |
| pictures | picture files in any folders | `Pictures` |
| COCO | a `.json` file, or `ROOT/annotations/*.json` | `Coco` |
| published data set | `layout: NAME SPLIT PATH` | that of its layout (`layouts/`) |
| named source | `scenes`, or `python: package.module:function` | the source that this code returns (`named.py`) |

The contents of a folder decide, not its name: `ROOT/normal` with pictures is a class, even if a modality is called `normal`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from maskweave.arguments import check_arguments
from maskweave.data.arkit import ArkitScenes, is_arkit
from maskweave.data.array_table import find_array_table
from maskweave.data.arrow import DatasetsFolder, ParquetTable, is_datasets_folder, parquet_files
from maskweave.data.coco import Coco, coco_files
from maskweave.data.labeled import ClassFolders
from maskweave.data.layouts.base import open_layout, parse_place
from maskweave.data.lerobot import LeRobot, is_lerobot
from maskweave.data.mirror import local_place
from maskweave.data.named import find_source, is_named, source_names
from maskweave.data.pictures import Pictures
from maskweave.data.remote import is_remote
from maskweave.data.shards import RANGES, Shards
from maskweave.data.source import Source, Subset
from maskweave.data.table_source import TableSource, is_line_table, open_line_table
from maskweave.data.webdataset import WebTars, tars_in
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.permission import PYTHON
from maskweave.values.files import PICTURES
from maskweave.values.formats import split_ending
from maskweave.values.formats.pickled import conversion

LOOKED_AT = 1000
"""Maximum number of files that are counted for a message, and that are compared to detect aligned folders."""


class ReadBy(Protocol):
    """Settings of a recipe that say how the samples at a place are read."""

    @property
    def fields(self) -> Mapping[str, str]: ...
    @property
    def outside_paths(self) -> bool: ...
    @property
    def window(self) -> int: ...
    @property
    def pictures(self) -> str: ...


def reading_options(settings: ReadBy) -> dict[str, Any]:
    """Returns the arguments of `open_data` that these settings hold."""
    names = ("fields", "outside_paths", "window", "pictures")
    return {name: getattr(settings, name) for name in names}


@check_arguments
def open_data(
    place: str | os.PathLike[str],
    catalog: Catalog,
    *,
    names: Sequence[str] | None = None,
    samples: int = 0,
    seed: int | None = None,
    pictures: str = "",
    labeled: bool = False,
    fields: Mapping[str, str] | None = None,
    outside_paths: bool = False,
    window: int = 0,
) -> Source:
    """Open a data set by its path, URL or name.

    Args:
        place: of a URL, tars are read whole through the cache of this machine, and all other files are copied (`maskweave.data.mirror`).
        names: modalities to read, the most important one first; by default all modalities of the catalog that are available. A named source
            must have all of them.
        samples: use only the first `samples` samples; 0: all. A named source without an end needs a number.
        seed: selects the samples of a source without an end, 0 by default.
        pictures: folder of the pictures of a COCO json; folder that the paths in a csv file or JSON lines are relative to, instead of the file's own.
        labeled: read folders of pictures as classes, not only as pictures.
        fields: field of each modality in WebDataset tars, or its column in a table.
        outside_paths: paths in a table may lead out of its folder.
        window: frames of a sample of a LeRobot folder; 0: whole episodes.

    Raises:
        MaskweaveError: `place` has no known layout, an ambiguous one, or cannot be opened. The message says what was found and lists the
            layouts.
    """
    place = os.fspath(place)
    if samples < 0:
        raise MaskweaveError(f"samples must be 0 (all) or more, found {samples}")
    if names is not None:  # masks and weights are read with the values that they are for
        others = [other for n in names for other in catalog[catalog[n].reads].depends_on]
        names = list(dict.fromkeys([*names, *(other for other in others if other in catalog)]))
    layout, named = parse_place(place), find_source(place)
    if seed is not None and not (named and named.endless):
        raise MaskweaveError(
            f"{place} is a fixed data set and takes no seed; only endless sources such as scenes do; remove the seed"
        )
    if layout is not None:
        reads = [catalog[n].reads for n in names] if names is not None else [n for n in fields or () if n in catalog]
        source = open_layout(layout, catalog, reads, fields or {})
    elif named is not None:
        wanted = (
            [n for n, m in catalog.items() if named.gives(m)] if names is None else [catalog[n].reads for n in names]
        )
        source = named.open(catalog.subset(wanted), samples, seed or 0)
    else:
        place, pictures = local_place(place), local_place(pictures)
        entries = list(catalog.values()) if names is None else [catalog[catalog[n].reads] for n in names]
        table = _open_table(place, catalog, names, fields or {}, pictures, outside_paths, window)
        source = table or _open_path(place, catalog, entries, pictures, labeled, fields or {})
    return Subset(source, range(samples)) if 0 < samples < len(source) else source


def _open_table(
    place: str,
    catalog: Catalog,
    names: Sequence[str] | None,
    fields: Mapping[str, str],
    pictures: str,
    outside_paths: bool,
    window: int,
) -> Source | None:
    """Opens a data set whose samples are listed in files: rows, episodes or annotated pictures; None if there is none at `place`."""
    path = Path(place)
    entries = catalog if names is None else catalog.subset(dict.fromkeys(catalog[name].reads for name in names))
    fields = {name: field for name, field in fields.items() if name in entries or name not in catalog}
    if is_lerobot(path):
        return LeRobot(path, entries, fields, window)
    if is_arkit(path):
        return ArkitScenes(path, entries, fields)
    if window:
        raise MaskweaveError(f"{place}: data.window is for LeRobot folders (meta/info.json and data/); remove it")
    if is_coco(path, catalog):
        return Coco(path, pictures, entries, fields)
    if is_datasets_folder(path):
        return TableSource(DatasetsFolder(place), path, entries, fields, outside_paths)
    if path.is_file() and is_line_table(path):
        root = Path(pictures) if pictures else path.parent
        return TableSource(open_line_table(path), root, entries, fields, outside_paths)
    if (arrays := find_array_table(path)) is not None:
        return TableSource(arrays, arrays.place.parent, entries, fields, outside_paths)
    is_folder = path.is_dir() and not (path / RANGES).is_dir() and not tars_in(path)
    if is_folder or path.suffix.lower() == ".parquet":
        if (is_folder and _holds(path, PICTURES)) or not parquet_files(place):
            return None
        return TableSource(ParquetTable(place), path if is_folder else path.parent, entries, fields, outside_paths)
    return None


def is_coco(path: Path, catalog: Catalog) -> bool:
    """Whether a place is a COCO file, or a folder of them that is no folder of a modality's files."""
    if "annotations" in catalog:
        return path.is_file() and path.suffix.lower() == ".json"
    return (path.is_file() and path.suffix.lower() == ".json") or (path.is_dir() and bool(coco_files(path)))


def is_importable(place: str, catalog: Catalog) -> bool:
    """Whether `maskweave data import` reads a place through `open_data`, and not as aligned folders."""
    place = local_place(place)
    path = Path(place)
    if (
        is_named(place)
        or path.suffix.lower() == ".parquet"
        or is_datasets_folder(path)
        or is_lerobot(path)
        or is_arkit(path)
        or is_coco(path, catalog)
        or find_array_table(path) is not None
    ):
        return True
    if path.is_file():
        return is_line_table(path) or bool(tars_in(path))
    if not path.is_dir() or (path / RANGES).is_dir() or any((path / name).is_dir() for name in catalog):
        return False
    return bool(tars_in(path) or parquet_files(place)) or _is_sharded(path, catalog)


def absolute(place: str) -> str:
    """Returns `place` as an absolute path; URLs are kept, and named sources in a normalized spelling."""
    if is_remote(place):
        return place
    if layout := parse_place(place):
        return str(layout)
    if not is_named(place):
        return str(Path(place).resolve())
    return f"{PYTHON} {place.removeprefix(PYTHON).strip()}" if place.startswith(PYTHON) else place


def _open_path(
    place: str,
    catalog: Catalog,
    entries: Sequence[Modality],
    pictures: str,
    labeled: bool,
    fields: Mapping[str, str],
) -> Source:
    path = Path(place)
    if not (path / RANGES).is_dir() and tars_in(path):
        if path.is_dir() and _is_sharded(path, catalog):
            raise MaskweaveError(
                f"{place}: contains tars of all modalities ({tars_in(path)[0].name}) and a folder of tars for each modality, so the layout is ambiguous; move one of the two elsewhere"
            )
        return WebTars(path, catalog, fields)
    if fields:
        raise MaskweaveError(
            f"{place}: data.fields is for WebDataset tars, {place}/*.tar, and tables (csv, parquet, npz, HDF5, Hugging Face datasets, LeRobot, COCO, ARKitScenes); remove it, or correct the path"
        )
    flat = [m for m in entries if m.value.is_photograph and len(m.value.size) == 2 and not m.source]
    picture = next((m for m in flat if m.value.channels == 3), flat[0] if flat else None)
    if path.is_file():
        found = conversion(*split_ending(place)) or "is a file"
        raise MaskweaveError(f"{place}: {found}; expected {_accepted(catalog)}")
    if not path.is_dir():
        raise MaskweaveError(f"{place}: no such folder; expected {_accepted(catalog)}")
    if _is_sharded(path, catalog):
        return Shards(path, catalog)
    if picture is None:
        raise MaskweaveError(
            f"{place}: contains no tar shards of the catalog's modalities, found {_found(path)}, and no modality of pictures is requested; expected {_accepted(catalog)}"
        )
    if not _holds(path, picture.value.endings if labeled else PICTURES):
        raise MaskweaveError(
            f"{place}: contains no pictures and no tar shards, found {_found(path)}; expected {_accepted(catalog)}"
        )
    if aligned := _aligned(path, catalog, picture):
        raise MaskweaveError(
            f"{place}: contains a folder of files for each modality ({', '.join(aligned)}), not imported yet; convert it to tar shards with 'maskweave data import'"
        )
    return ClassFolders(path, picture) if labeled else Pictures(path, picture)


def _is_sharded(root: Path, catalog: Catalog) -> bool:
    """Whether a folder is an imported data set or tar shards.

    Raises:
        MaskweaveError: it contains both tar shards and pictures.
    """
    if (root / RANGES).is_dir():
        return True
    sharded = [name for name in catalog if any((root / name).glob("*.tar"))]
    plain = [folder.name for folder in _folders(root) if _holds(folder, PICTURES)] if sharded else []
    if plain:
        raise MaskweaveError(
            f"{root}: contains tar shards ({', '.join(sharded)}) and pictures as files ({_some(plain)}), so the layout is ambiguous; "
            "expected only one of the two; move the other elsewhere"
        )
    return bool(sharded)


def _aligned(root: Path, catalog: Catalog, picture: Modality) -> list[str]:
    """Folders that `maskweave data import` can import: named like modalities, with files that share their names."""
    folders = [folder.name for folder in _folders(root)]
    called = [name for name in folders if name in catalog]
    if picture.name not in called and len(called) < len(folders):
        return []  # some have other names, so they are classes
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
    """Files at any depth, in no fixed order, without links and hidden files. Linked folders are followed only directly in `root`."""
    for top in (root, *_folders(root)):
        for folder, below, files in os.walk(top):
            below[:] = [] if top == root else [name for name in below if not name.startswith(".")]
            yield from (p for name in files if not name.startswith(".") and not (p := Path(folder, name)).is_symlink())


def _holds(root: Path, kinds: Sequence[str]) -> bool:
    return any(path.suffix[1:].lower() in kinds for path in _files(root))


def _found(root: Path) -> str:
    """Describes the contents of a folder."""
    counts = Counter(path.suffix.lower() or "no ending" for path in islice(_files(root), LOOKED_AT))
    files = ", ".join(f"{ending} ({count})" for ending, count in counts.most_common(5))
    folders = _some([folder.name for folder in _folders(root)])
    return f"{f'files of {files}' if files else 'no files'}{f' and the folders {folders}' if folders else ''}"


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + " …" * (len(names) > most)


def _accepted(catalog: Catalog) -> str:
    own = _some([name for name, m in catalog.items() if not m.source])
    return (
        f"an imported data set or tar shards (MODALITY/NAME.tar, MODALITY one of {own}), WebDataset tars (NAME.tar or NAME.tar.gz), "
        f"a table (NAME.csv, NAME.tsv, parquet files, an npz or HDF5 file whose arrays have one row for each sample, or a folder that Hugging Face datasets saved), a LeRobot folder, scans of ARKitScenes, folders of pictures ({', '.join(PICTURES)}; links are ignored), "
        f"a COCO JSON file or folder, or a named source ({', '.join(source_names())}, or python: package.module:function). "
        "Import a folder of files for each modality first, with 'maskweave data import'"
    )
