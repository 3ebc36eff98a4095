"""LeRobot folders, versions 2 and 3 (https://github.com/huggingface/lerobot): a sample is an episode, or a window of its frames.

| feature | becomes |
| --- | --- |
| a video, `observation.images.top` | frames, uint8 (T, H, W, 3), scaled down to the entry's size |
| a column of numbers, `observation.state`, `action` | (T, C), one row per frame |
| a column of pictures | frames, as of a video |
| `task` | the text of the episode's task |

For entries of one number or class, such as `scalar` and `label`, a column must have the same value in all frames. Videos are found by their
folders, and no file that the metadata name is opened. Needs the extras `[tables]` and, for videos, `[av]`.
"""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.data.arrow import ParquetTable, parquet_files
from maskweave.data.cells import NamedFiles, cell_part
from maskweave.data.lerobot_videos import VideoPart, chosen_frames, read_clip
from maskweave.data.mirror import origin, version
from maskweave.data.part_source import FilePart, PartSource, read_entries
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.files import read_json_lines, read_json_object
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.files import PICTURES, read_picture, write_npy
from maskweave.values.formats import split_ending
from maskweave.values.items import is_number

INFO, DATA, VIDEOS = "meta/info.json", "data", "videos"
TASK, EPISODE, TASK_INDEX, TIME = "task", "episode_index", "task_index", "timestamp"
GROUP = r"^episode_\d+"
"""What the names of one episode's windows share."""
MAX_WINDOW = 100_000


class Window(NamedTuple):
    episode: int
    start: int
    """First row of the table."""
    stop: int
    offset: int
    """Frame of the episode at which the window starts."""


def is_lerobot(path: Path) -> bool:
    """Whether a folder is a LeRobot data set."""
    return (path / INFO).is_file() and (path / DATA).is_dir()


class RobotFolder:
    """What a LeRobot folder holds.

    Raises:
        MaskweaveError: files are missing or damaged.
    """

    def __init__(self, place: str | Path):
        self.place = Path(place)
        self.fps = _rate(read_json_object(self.place / INFO).get("fps"), self.place)
        self.table = ParquetTable(str(self.place / DATA))
        if EPISODE not in self.table.columns:
            raise MaskweaveError(
                f"{place}: its tables have no column {EPISODE}; expected those of LeRobot; found {', '.join(self.table.columns[:20])}"
            )
        self.tasks = _tasks(self.place)
        self.videos = _videos(self.place)
        self._segments = _segments(self.place, list(self.videos))
        self.features = [
            *self.table.columns,
            *self.videos,
            *([TASK] if self.tasks and TASK_INDEX in self.table.columns else []),
        ]

    def cells(self, window: Window, column: str) -> Any:
        """Returns a column's cells: one array (T, …) of numbers, or a list."""
        return self.table.cells(window.start, window.stop, column)

    def task(self, window: Window) -> str | None:
        number = self.cells(window, TASK_INDEX)[0]
        return self.tasks.get(int(number)) if is_number(number) else None

    def clip(self, window: Window, feature: str, whole: bool) -> VideoPart | None:
        """Returns the frames of a window in a video; None if the episode has no video.

        Args:
            whole: the window is the whole episode.
        """
        segment = self._segments.get((feature, window.episode))
        if segment is not None:
            path = self.videos[feature].get(segment.file)
            start, stop = segment.start, segment.stop
        else:
            path, start, stop = self.videos[feature].get(window.episode), 0.0, np.inf
        if path is None:
            return None
        if not whole:
            start += window.offset / self.fps
            stop = min(stop, start + (window.stop - window.start) / self.fps)
        return VideoPart(path, start, stop, self.fps)

    def windows(self, length: int) -> list[Window]:
        """Returns the windows of all episodes; whole episodes if length is 0."""
        windows, seen = [], set()
        index = np.asarray(self.table.cells(0, len(self.table), EPISODE))
        if index.ndim != 1 or index.dtype.kind not in "iuf" or not np.isfinite(index).all():
            raise MaskweaveError(
                f"{self.place}: the column {EPISODE} has cells that are no numbers; expected the number of its episode in each row; restore the tables"
            )
        cuts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
        for start, stop in pairwise(cuts):
            episode = int(index[start])
            if episode in seen or episode < 0:
                raise MaskweaveError(
                    f"{self.place}: episode {episode} is in two places of the tables; expected the frames of an episode one after another"
                )
            seen.add(episode)
            frames = stop - start
            step = length or frames
            offsets = [*range(0, max(frames - step, 0) + 1, step)]
            if offsets[-1] + step < frames:
                offsets.append(frames - step)
            windows += [Window(episode, start + o, min(start + o + step, stop), o) for o in offsets]
        return windows


class LeRobot(PartSource):
    """The episodes of a LeRobot folder.

    Args:
        place: the folder.
        catalog: the entries of the modalities.
        fields: feature of each modality, `{"top": "observation.images.top", "caption": "task"}`. A modality that is not listed is read from
            the feature whose name, or its last part, is the modality's.
        window: frames of a sample; 0: whole episodes. Windows follow each other; the last one of an episode ends with it and may overlap the one
            before. Shorter episodes are one sample.

    Raises:
        MaskweaveError: files are missing or damaged, a feature does not exist, or no modality has one.
    """

    def __init__(self, place: str | Path, catalog: Catalog, fields: Mapping[str, str] | None = None, window: int = 0):
        self.place, self.catalog = Path(place), catalog
        self.notes: list[str] = []
        if not 0 <= window <= MAX_WINDOW:
            raise MaskweaveError(f"data.window must be 0 (whole episodes) to {MAX_WINDOW:,} frames, found {window}")
        self.folder = RobotFolder(place)
        self.chosen = self._choose(dict(fields or {}))
        self.windows = self.folder.windows(window)
        self.split_group = GROUP if window else ""
        """Regular expression for `data.split.group`, so that windows of one episode are in one part."""
        if window:
            self.notes.append(f"{place}: windows of {window} frames; set data.split.group: '{GROUP}' when you use them")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.chosen)

    def __len__(self) -> int:
        return len(self.windows)

    def key(self, i: int) -> str:
        window = self.windows[i]
        return f"episode_{window.episode:06d}" + (f"/{window.offset:06d}" if self.split_group else "")

    def state(self) -> list[Any]:
        folder = self.folder
        videos = [path for files in folder.videos.values() for path in files.values()]
        states = [[origin(path), *version(path)] for path in videos]
        return [folder.table.state(), states, self.chosen, len(self.windows)]

    def part(self, i: int, name: str) -> FilePart | None:
        window, feature, entry = self.windows[i], self.chosen[name], self.catalog[name]
        where = f"{self.place}: {self.key(i)}: {feature} ({name})"
        if feature in self.folder.videos:
            clip = self.folder.clip(window, feature, whole=not self.split_group)
            return None if clip is None else FilePart(write_npy(read_clip(clip, entry.value, where)[0]), "npy", where)
        if feature == TASK and TASK not in self.folder.table.columns:
            return cell_part(self.folder.task(window), entry, where, NamedFiles(self.place), paths=False)
        return self._column(window, feature, entry, where)

    def _column(self, window: Window, column: str, entry: Modality, where: str) -> FilePart | None:
        cells = self.folder.cells(window, column)
        if isinstance(cells, list) and cells and isinstance(cells[0], Mapping) and {*cells[0]} == {"bytes", "path"}:
            return FilePart(write_npy(_pictures(cells, entry, self.folder.fps, where)), "npy", where)
        files = NamedFiles(self.place)
        if len(entry.value.size) > 0 or "json" not in entry.value.endings:
            return cell_part(cells, entry, where, files, paths=False)
        cells = cells.tolist() if isinstance(cells, np.ndarray) else cells
        first = cells[0]
        if any(cell != first for cell in cells[1:]):
            raise BadSample(
                f"{where}: has other values in other frames, such as {shown(first)} and {shown(cells[-1])}; expected one for the sample, because the entry is of type {entry.value.type!r}; use a type for arrays over time"
            )
        return cell_part(first, entry, where, files, paths=False)

    def _choose(self, fields: dict[str, str]) -> dict[str, str]:
        entries, found = read_entries(self.catalog), {}
        if unknown := [name for name in fields if name not in entries]:
            raise MaskweaveError(
                f"{self.place}: data.fields has {unknown[0]!r}; expected modalities of the catalog: {', '.join(entries)}"
            )
        for name in entries:
            ends = [feature for feature in self.folder.features if feature == name or feature.endswith(f".{name}")]
            feature = fields.get(name) or (name if name in ends else ends[0] if len(ends) == 1 else "")
            if feature and feature not in self.folder.features:
                raise MaskweaveError(
                    f"{self.place}: data.fields.{name}: there is no feature {shown(feature)}; found {', '.join(self.folder.features)}"
                )
            if feature:
                found[name] = feature
        if not found:
            raise MaskweaveError(
                f"{self.place}: no feature is named like a modality ({', '.join(list(entries)[:12])}); found the features {', '.join(self.folder.features)}; set data.fields: {{MODALITY: FEATURE}}"
            )
        return found


class _Segment(NamedTuple):
    file: int
    """Number of the video's file."""
    start: float
    """Seconds."""
    stop: float


def _rate(fps: Any, place: Path) -> float:
    if not isinstance(fps, (int, float)) or not 0 < fps < 10_000:
        raise MaskweaveError(f"{place / INFO}: fps is {shown(fps)}; expected frames per second above 0")
    return float(fps)


def _videos(root: Path) -> dict[str, dict[int, Path]]:
    """The videos of each camera, by the number of the episode (version 2) or of the file (version 3)."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted((root / VIDEOS).glob("*/*/*.mp4")):
        chunk, number = path.parent.name, re.search(r"^(episode|file)[_-](\d+)$", path.stem)
        if number is None or path.is_symlink():
            continue
        key = path.parent.parent.name if number[1] == "file" else chunk
        index = int(number[2])
        if number[1] == "file":
            index += _chunk(chunk)
        found.setdefault(key, {})[index] = path
    return found


def _chunk(name: str) -> int:
    """First number of the files of a folder `chunk-003`."""
    return 10**6 * int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdecimal() else 0


def _segments(root: Path, cameras: list[str]) -> dict[tuple[str, int], _Segment]:
    """Where each episode is in the videos of version 3."""
    files = parquet_files(str(root / "meta/episodes"))
    if not files:
        return {}
    table, found = ParquetTable(str(root / "meta/episodes")), {}
    keys = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    for camera in cameras:
        columns = [f"{VIDEOS}/{camera}/{key}" for key in keys]
        if not {*columns} <= {*table.columns}:
            continue
        for i in range(len(table)):
            row = table.row(i, [EPISODE, *columns])
            chunk, file, start, stop = (row[column] for column in columns)
            if all(map(is_number, (row[EPISODE], chunk, file, start, stop))):
                found[camera, int(row[EPISODE])] = _Segment(10**6 * int(chunk) + int(file), float(start), float(stop))
    return found


def _tasks(root: Path) -> dict[int, str]:
    """Texts of the tasks by their index."""
    lines, table = root / "meta/tasks.jsonl", root / "meta/tasks.parquet"
    try:
        if table.is_file():
            tasks = ParquetTable(str(table))
            text = next(name for name in tasks.columns if name != TASK_INDEX)
            rows = (tasks.row(i, [TASK_INDEX, text]) for i in range(len(tasks)))
            return {int(row[TASK_INDEX]): str(row[text]) for row in rows}
        if lines.is_file():
            return {int(line[TASK_INDEX]): str(line[TASK]) for line in read_json_lines(lines)}
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        if isinstance(error, MaskweaveError):
            raise
        raise MaskweaveError(
            f"{root}/meta: its tasks have no task_index and text ({error}); restore the file"
        ) from error
    return {}


def _pictures(cells: list[Any], entry: Modality, fps: float, where: str) -> np.ndarray:
    """The frames of a column of pictures."""
    frames = []
    for k in chosen_frames(len(cells), fps, entry.value):
        content, path = cells[k]["bytes"], cells[k]["path"] or "x.png"
        ending = split_ending(path)[1]
        if content is None or ending not in PICTURES:
            raise BadSample(
                f"{where}: frame {k} is {json.dumps(path)} without its bytes; expected pictures in the table"
            )
        frames.append(read_picture(content, ending, 3, (255, 255, 255), where))
    return np.stack(frames)
