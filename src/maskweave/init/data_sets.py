"""Data sets that `maskweave.data.opening` reads as they are, looked at without a catalog: what each of their columns or features holds.

| data set | modalities |
| --- | --- |
| a table: csv, JSON lines, parquet, a folder of Hugging Face `datasets`, one npz or HDF5 file with all samples | columns |
| a LeRobot folder | cameras, columns over time, the text of the task |
| COCO | pictures, boxes, captions, categories |
| ARKitScenes | pictures, depth, boxes in space |
| WebDataset tars | fields |
| tar shards, `ROOT/MODALITY/*.tar` | folders |
"""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from maskweave.data import arkit
from maskweave.data.arkit import is_arkit
from maskweave.data.array_table import ArrayTable, find_array_table
from maskweave.data.arrow import DatasetsFolder, ParquetTable, is_datasets_folder, parquet_files
from maskweave.data.cells import MAGIC
from maskweave.data.coco import CocoFolder, coco_files
from maskweave.data.lerobot import EPISODE, GROUP, TASK, TASK_INDEX, TIME, RobotFolder, Window, is_lerobot
from maskweave.data.lerobot_videos import read_clip
from maskweave.data.shards import RANGES, scan
from maskweave.data.source import check_key
from maskweave.data.table_source import NAME, Table, is_line_table, open_line_table
from maskweave.data.webdataset import PACKED, TEXTS, bytes_at, split_field, tars_in, unpacked
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import stamp
from maskweave.init.contents import FileContent, content_of, read_content, video_content
from maskweave.init.listing import RESERVED, FileSet, FolderListing, Layout
from maskweave.modality.checks import check_name
from maskweave.values import formats
from maskweave.values.files import PICTURES, read_bytes, read_levels
from maskweave.values.formats.sound import SOUNDS

NAMES = ("name", "id", "key", "uid", "uuid", "filename", "file_name", "__key__")
"""Columns that may have the samples' names, if all are different."""
ROW_NUMBERS = ("index", "__index_level_0__", "unnamed: 0")
PATH_SUFFIX = re.compile(r"(?<=.)_(path|file|filename)$", re.IGNORECASE)
"""What the names of columns with paths end in, and those of their modalities do not."""
OF_FRAMES = (EPISODE, "frame_index", "index", TASK_INDEX, TIME, "next.done")
"""Columns of LeRobot that number its frames."""
MOST_VIDEOS = 4
MOST_FRAMES = 1000
"""Frames of ARKitScenes whose boxes are looked at: each takes its depth, too."""
LONG = 128
"""Episodes of more frames, typically, are cut into windows of `WINDOW` frames."""
WINDOW = 64
COLUMN_LOOKED_AT = 1000


@dataclass(frozen=True)
class ValueSet(FileSet):
    """The values of one column, field or feature; the paths of its files are empty."""

    load: Callable[[str], FileContent | None] = lambda key: None
    holds: str = ""
    """Ending of files that hold such values, as far as it is known."""
    most: int = 0
    """Most values that are looked at; 0: as many as of files."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the entry's value that the data set's documentation says, by which `load` already goes."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Cells of a table beside files, by the sample's name; empty for other sets."""

    @property
    def most_looked(self) -> int:  # type: ignore[override]
        return self.most

    @property
    def endings(self) -> Counter[str]:
        return Counter({self.holds: len(self.files)})

    def content(self, key: str, array: str = "") -> FileContent | None:
        return self.load(key)


def list_data_set(root: Path) -> FolderListing | None:
    """Find the modalities of a data set; None if there is none of the known ones.

    Raises:
        MaskweaveError: it is damaged, ambiguous, or holds nothing.
    """
    if is_lerobot(root):
        return _robot(root)
    if is_arkit(root):
        return _arkit(root)
    if is_datasets_folder(root):
        return _table(root, root, DatasetsFolder(str(root)))
    if root.is_file() and is_line_table(root):
        return _table(root, root.parent, open_line_table(root))
    if (root.is_file() and root.suffix.lower() == ".json") or (root.is_dir() and coco_files(root)):
        return _coco(root)
    if not (root / RANGES).is_dir() and tars_in(root):
        return _tars(root)
    if (arrays := find_array_table(root)) is not None:
        return _table(root, arrays.place.parent, arrays)
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and any(p.glob("*.tar"))] if root.is_dir() else []
    if folders:
        return _shards(root, folders)
    if root.suffix.lower() == ".parquet" or (root.is_dir() and not _has_pictures(root) and parquet_files(str(root))):
        return _table(root, root if root.is_dir() else root.parent, ParquetTable(str(root)))
    return None


def _has_pictures(root: Path) -> bool:
    return any(p.suffix[1:].lower() in PICTURES for p in root.rglob("*"))


class Namer:
    """Names of modalities, each once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, text: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-") or "value"
        name = f"{name}_" if name in RESERVED or name == NAME else name
        check_name(name, name)
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _listing(root: Path, layout: Layout, sets: dict[str, FileSet], left_out: list[str], **more: Any) -> FolderListing:
    """The listing; `sets` are named by field, and only fields with another name than their modality are kept."""
    if not sets:
        raise MaskweaveError(f"{root}: nothing usable: {'; '.join(left_out) or 'it is empty'}")
    fields = {one.name: field for field, one in sets.items() if field != one.name}
    return FolderListing(root, layout, list(sets.values()), left_out, fields | more.pop("fields", {}), **more)


# Tables


def _table(root: Path, folder: Path, table: Table) -> FolderListing:
    name, fields = Namer(), {}
    left_out = list(table.left_out) if isinstance(table, ArrayTable) else []
    keys = [table.name(i) for i in range(len(table))]
    own = next((c for c in table.columns if c.lower() in NAMES and (found := _names(table, c)) is not None), "")
    if own:
        fields[NAME], keys = own, found or []
        left_out.append(f"column {own}: names of the samples (data.fields.{NAME})")
    rows = {key: i for i, key in enumerate(keys)}
    shared = dict.fromkeys(keys, "")
    sets: dict[str, FileSet] = {}
    for column in table.columns:
        if column == own:
            continue
        if column.lower() in ROW_NUMBERS or not column.strip():
            left_out.append(f"column {column}: numbers of rows")
            continue
        ending = _paths_of(table, column)
        load = partial(_load_cell, table, rows, column, folder if ending else None)
        texts = "txt" if table.is_text(column) and not ending else ending
        short = PATH_SUFFIX.sub("", column) if ending else column
        holds = texts or ("json" if isinstance(table, ArrayTable) and table.is_number(column) else "")
        sets[column] = ValueSet(name(short), folder, shared, load, holds)
    return _listing(root, "table", sets, left_out, fields=fields)


def _names(table: Table, column: str) -> list[str] | None:
    """The cells of a column, if they can be the samples' names."""
    found = ["" if cell is None else str(cell).strip() for cell in table.column(column)]
    try:
        keys = {check_key(key, column) for key in found}
    except BadSample:
        return None
    return found if len(keys) == len(found) else None


def _paths_of(table: Table, column: str) -> str:
    """The most frequent ending if a column has paths, else empty."""
    if not table.is_text(column):
        return ""
    cells = (cell for _, cell in zip(range(COLUMN_LOOKED_AT), table.column(column), strict=False))
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    endings = Counter(ending for text in texts if (ending := formats.split_ending(text)[1]) in readable())
    return endings.most_common(1)[0][0] if 2 * endings.total() > len(texts) else ""


def readable() -> set[str]:
    """Endings of files that can be read."""
    return {*PICTURES, *SOUNDS, *formats.BUILT_IN, *formats.installed(), "txt", "json"}


def _load_cell(table: Table, rows: Mapping[str, int], column: str, folder: Path | None, key: str) -> FileContent | None:
    i = rows[key]
    cell, where = table.row(i, [column])[column], f"{table.where(i)}: {column}"
    if isinstance(cell, Mapping) and {*cell} == {"bytes", "path"}:
        if cell["bytes"] is None:
            return None
        return content_of(cell["bytes"], formats.split_ending(cell["path"] or "")[1] or _sniffed(cell["bytes"]), where)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bytes):
        return content_of(cell, _sniffed(cell), where)
    if isinstance(cell, str) and folder is not None:
        path = folder / cell.strip()
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BadSample(
                f"{where}: {cell!r} leads out of the folder {folder}; see data.outside_paths in docs/data.md"
            )
        return read_content(path) if path.is_file() else None
    return value_content(cell)


def value_content(cell: Any) -> FileContent:
    """Returns what a cell holds that is neither missing, nor a path, nor the bytes of a file."""
    if isinstance(cell, str):
        return FileContent("text", cell)
    if isinstance(cell, (np.ndarray, np.integer)):
        return FileContent("array", np.asarray(cell))
    return FileContent("json", int(cell) if isinstance(cell, bool) else cell)


def _sniffed(content: bytes) -> str:
    return next((ending for at, start, ending in MAGIC if content.startswith(start, at)), "txt")


# LeRobot


def _robot(root: Path) -> FolderListing:
    folder = RobotFolder(root)
    episodes = folder.windows(0)
    window = WINDOW if np.median([w.stop - w.start for w in episodes]) > LONG else 0
    windows = {
        f"episode_{w.episode:06d}" + (f"/{w.offset:06d}" if window else ""): w
        for w in (folder.windows(window) if window else episodes)
    }
    name, left_out, shared = Namer(), [], dict.fromkeys(windows, "")
    ends = Counter(feature.rpartition(".")[2] for feature in folder.features)
    sets: dict[str, FileSet] = {}
    for feature in folder.features:
        if feature in OF_FRAMES:
            continue
        short = feature.rpartition(".")[2]
        load = partial(_load_feature, folder, windows, feature, not window)
        is_video = feature in folder.videos
        holds = "mp4" if is_video else "txt" if feature == TASK else "npy"
        modality = name(short if ends[short] == 1 else feature)
        sets[feature] = ValueSet(modality, root, shared, load, holds, MOST_VIDEOS if is_video else 0)
    if window:
        left_out.append(f"episodes are cut into windows of {window} frames (data.window)")
    return _listing(root, "robot", sets, left_out, window=window, group=GROUP if window else "")


def _load_feature(
    folder: RobotFolder, windows: Mapping[str, Window], feature: str, whole: bool, key: str
) -> FileContent | None:
    window = windows[key]
    if feature in folder.videos:
        clip = folder.clip(window, feature, whole)
        every: Any = SimpleNamespace(size=())  # all frames, as they are
        return None if clip is None else video_content(*read_clip(clip, every, f"{key}: {feature}"))
    if feature == TASK and TASK not in folder.table.columns:
        task = folder.task(window)
        return None if not task else FileContent("text", task)
    cells = folder.cells(window, feature)
    if isinstance(cells, np.ndarray):
        return FileContent("array", cells.astype(np.uint8) if cells.dtype == bool else cells)
    if isinstance(cells[0], str):
        return FileContent("text", cells[0])
    if isinstance(cells[0], Mapping) and cells[0].get("bytes"):
        frames = [content_of(cell["bytes"], _sniffed(cell["bytes"]), f"{key}: {feature}").data for cell in cells]
        return video_content(np.stack(frames), folder.fps)
    raise BadSample(f"{key}: {feature} holds neither numbers, pictures nor text")


# COCO


def has_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _coco(root: Path) -> FolderListing:
    data = CocoFolder(root)
    pictures, name = data.find_pictures(), Namer()
    indices = {data.key(i): i for i in range(len(data.images))}
    shared = dict.fromkeys(indices, "")
    sets: dict[str, FileSet] = {}
    for feature in data.features:
        if feature != "instances" or (data.has_masks and has_package("pycocotools")):
            load = partial(_load_coco, data, pictures, indices, feature)
            sets[feature] = ValueSet(name(feature), root, shared, load, "" if feature == "image" else "json")
    left_out = list(data.notes)
    if data.has_masks and not has_package("pycocotools"):
        left_out.append(
            "masks of objects: reading them needs pycocotools; install it with: pip install 'maskweave[eval]'"
        )
    return _listing(root, "coco", sets, left_out)


def _load_coco(
    data: CocoFolder, pictures: Path, indices: Mapping[str, int], feature: str, key: str
) -> FileContent | None:
    if feature == "image":
        return content_of(*data.picture(indices[key], pictures))
    content = data.content(indices[key], feature)
    if feature == "captions":  # entries of text use the first
        return FileContent("text", content[0]) if content else None
    return None if content is None else FileContent("json", content)


# ARKitScenes


def _arkit(root: Path) -> FolderListing:
    scans = arkit.scan_folders(root)
    frames = {arkit.frame_key(root, scan, stem): (scan, stem) for scan in scans for stem in arkit.frame_names(scan)}
    name, shared = Namer(), dict.fromkeys(frames, "")
    kinds: dict[str, tuple[str, str, int, dict[str, Any]]] = {
        arkit.PICTURES: (arkit.PICTURES, "png", 0, {}),
        arkit.DEPTHS: (arkit.DEPTHS, "png", 0, {"unit": "m", "scale": 0.001, "missing": 0}),
        arkit.BOXES: ("boxes", "json", MOST_FRAMES, {}),
    }
    sets: dict[str, FileSet] = {
        feature: ValueSet(name(short), root, shared, partial(_load_arkit, frames, feature), ending, most, stated)
        for feature, (short, ending, most, stated) in kinds.items()
        if frames
    }
    return _listing(root, "arkit", sets, [], group=arkit.group_of_scans(scans))


def _load_arkit(frames: Mapping[str, tuple[Path, str]], feature: str, key: str) -> FileContent | None:
    scan, stem = frames[key]
    if feature == arkit.BOXES:
        boxes = arkit.frame_boxes(scan, stem)
        return None if boxes is None else FileContent("json", boxes)
    path = arkit.frame_file(scan, stem, feature)
    if not path.is_file():
        return None
    if feature == arkit.PICTURES:
        return read_content(path)
    levels = read_levels(read_bytes(path), "png", str(path))
    meters = np.where(levels > 0, levels / np.float32(1000), np.float32(np.nan))
    return FileContent("array", meters.reshape(levels.shape[:2]), plane=True)


# Tars


def _tars(root: Path) -> FolderListing:
    places: dict[str, dict[str, tuple[Path, int, int]]] = {}
    keys: dict[str, str] = {}
    for path in tars_in(root):
        plain = unpacked(path, tuple(stamp(path))) if path.name.lower().endswith(PACKED) else path
        for member, (_, offset, size) in scan(plain, split=lambda name: (name, "-")).members.items():
            key, field = split_field(member)
            keys[key] = ""
            places.setdefault(field, {})[key] = (plain, offset, size)
    name, left_out = Namer(), list[str]()
    sets: dict[str, FileSet] = {}
    for field, found in places.items():
        first, _, rest = field.partition(".")
        ending = formats.split_ending(f"x.{field}")[1]
        ending = TEXTS.get(ending, ending)
        usual = "picture" if ending in PICTURES else {"cls": "class", "txt": "text", "json": "facts"}.get(first, first)
        modality = name(first if rest and ending != first else usual)
        load = partial(_load_member, found, ending)
        sets[field] = ValueSet(modality, root, dict.fromkeys(found, ""), load, ending)
    return _listing(root, "tars", sets, left_out)


def _shards(root: Path, folders: list[Path]) -> FolderListing:
    sets: dict[str, FileSet] = {}
    for folder in folders:
        found: dict[str, tuple[Path, int, int]] = {}
        endings: dict[str, str] = {}
        for path in sorted(folder.glob("*.tar")):
            for key, (ending, offset, size) in scan(path).members.items():
                found[key], endings[key] = (path, offset, size), ending
        if found:
            usual = Counter(endings.values()).most_common(1)[0][0]
            load = partial(_load_member, found, endings)
            sets[folder.name] = ValueSet(folder.name, root, dict.fromkeys(found, ""), load, usual)
    return _listing(root, "shards", sets, [])


def _load_member(places: Mapping[str, tuple[Path, int, int]], ending: str | Mapping[str, str], key: str) -> FileContent:
    path, offset, size = places[key]
    ending = ending if isinstance(ending, str) else ending[key]
    where = f"{path}: {key}"
    return content_of(bytes_at(path, offset, size, where), ending, where)
