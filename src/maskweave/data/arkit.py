"""ARKitScenes (https://arxiv.org/abs/2111.08897), as its part `3dod` is downloaded: a sample is a frame of a scan.

    ROOT[/Training]/SCAN/SCAN_3dod_annotation.json
    ROOT[/Training]/SCAN/SCAN_frames/lowres_wide/SCAN_TIME.png              pictures
                                     lowres_depth/SCAN_TIME.png            depth in millimeters, 0: unknown
                                     lowres_wide_intrinsics/SCAN_TIME.pincam
                                     lowres_wide.traj                      camera poses

| feature | becomes |
| --- | --- |
| `lowres_wide`, `lowres_depth` | the file |
| `3dod` | the camera of the frame, and the boxes of the scan that the frame shows |

A frame shows a box if at least `LEAST_POINTS` of its measured depths lie in the box; without depth, all boxes in front of its camera are taken, and the value type drops those
outside the picture. Poses map the world, whose z points up, to the camera (x right, y down, z forward).
"""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.data.features import named_features, with_likely_features
from maskweave.data.mirror import origin, version
from maskweave.data.part_source import FilePart, PartSource, read_entries
from maskweave.data.source import check_key
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.files import read_json_object
from maskweave.modality.catalogs import Catalog
from maskweave.values.boxes3d import Boxes3D, as_rows
from maskweave.values.camera import unproject
from maskweave.values.files import read_bytes, read_levels, read_text
from maskweave.values.items import is_number
from maskweave.values.oriented import contain
from maskweave.values.remarks import remark

ANNOTATION = "_3dod_annotation.json"
PICTURES, DEPTHS, INTRINSICS, POSES, BOXES = (
    "lowres_wide", "lowres_depth", "lowres_wide_intrinsics", "lowres_wide.traj", "3dod",
)  # fmt: skip
FEATURES = (PICTURES, DEPTHS, BOXES)
FOLDS = ("Training", "Validation")
LEAST_POINTS = 30
"""Measured depths in a box that a frame shows, of about 49,000."""
MARGIN = 0.02
"""By how much boxes are enlarged for counting depths in them, in meters."""
SAME_TIME = 0.005
"""Largest difference between the times of a frame and of its pose, in seconds."""
UPRIGHT = 0.99
"""Least cosine between the upright axis of a box and the vertical."""
SPLIT_GROUP = r"[^/]+(?=/[^/]+$)"
"""What the names of one scan's frames share."""


class RoomScan(NamedTuple):
    """What all frames of a scan share."""

    boxes: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
    """Label, center (3,), axes (3, 3) and lengths (3,) of each box in the world."""
    times: np.ndarray
    """(P,) seconds of the poses, ascending."""
    poses: np.ndarray
    """(P, 3, 4), from the world to the camera."""


def scan_folders(place: Path) -> list[Path]:
    """Returns the folders of scans at a place: a scan, a folder of scans, or a folder with `Training` and `Validation`."""
    folders = [place, *(p for p in (place, *(place / fold for fold in FOLDS)) if p.is_dir() for p in p.iterdir())]
    return sorted({folder for folder in folders if _annotation(folder).is_file()})


def is_arkit(place: Path) -> bool:
    """Whether a folder holds scans of ARKitScenes."""
    return place.is_dir() and bool(scan_folders(place))


class ArkitScenes(PartSource):
    """Frames of scans. Values of the modalities are read from the features in `fields`; a modality that is not listed has the feature of its name. Of the rest,
    the first entry of color photographs reads `lowres_wide`, the first of boxes in space `3dod`, and the only map of one channel over a picture `lowres_depth`.

    Args:
        place: a folder as above.
        catalog: the entries of the modalities.
        fields: feature of each modality.

    Raises:
        MaskweaveError: there are no frames, a field is unknown, or no modality has a feature.
    """

    def __init__(self, place: str | os.PathLike[str], catalog: Catalog, fields: Mapping[str, str] | None = None):
        self.place, self.catalog, self.notes = Path(place), catalog, []
        self.chosen = _chosen(self.place, catalog, dict(fields or {}))
        self.frames: list[tuple[Path, str]] = []
        scans = scan_folders(self.place)
        self.split_group = group_of_scans(scans)
        """Regular expression for `data.split.group`, so that the frames of a scan are in one part."""
        for scan in scans:
            found = frame_names(scan)
            self.frames += [(scan, stem) for stem in found]
            if not found:
                self.notes.append(f"{scan}: no frames in {scan.name}_frames/{PICTURES}; left out")
        if not self.frames:
            raise MaskweaveError(
                f"{place}: no frames, SCAN/SCAN_frames/{PICTURES}/SCAN_TIME.png; download the part 3dod again"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.chosen)

    def __len__(self) -> int:
        return len(self.frames)

    def key(self, i: int) -> str:
        return frame_key(self.place, *self.frames[i])

    def state(self) -> list[Any]:
        scans = sorted({scan for scan, _ in self.frames})
        files = [path for scan in scans for path in (_annotation(scan), _frames(scan) / POSES)]
        return [[[origin(path), *(version(path) if path.is_file() else [])] for path in files], len(self), self.chosen]

    def named_files(self, i: int) -> Sequence[Path]:
        scan, stem = self.frames[i]
        return [_frames(scan) / folder / f"{stem}.png" for folder in (PICTURES, DEPTHS)]

    def part(self, i: int, name: str) -> FilePart | None:
        scan, stem = self.frames[i]
        feature = self.chosen[name]
        if feature == BOXES:
            value = frame_boxes(scan, stem, self.catalog[name].value.classes)
            return None if value is None else FilePart(json.dumps(value).encode(), "json", f"{scan}: frame {stem}")
        path = frame_file(scan, stem, feature)
        return FilePart(read_bytes(path), "png", str(path)) if path.is_file() else None


def frame_names(scan: Path) -> list[str]:
    """Returns the names of the frames of a scan, SCAN_TIME, in order."""
    return sorted(path.stem for path in (_frames(scan) / PICTURES).glob(f"{scan.name}_*.png"))


def frame_key(place: Path, scan: Path, stem: str) -> str:
    return check_key(f"{scan.relative_to(place).as_posix()}/{stem}".removeprefix("./"), str(place))


def frame_file(scan: Path, stem: str, feature: str) -> Path:
    return _frames(scan) / feature / f"{stem}.png"


def group_of_scans(scans: Sequence[Path]) -> str:
    return SPLIT_GROUP if len(scans) > 1 else ""


def frame_boxes(scan: Path, stem: str, classes: Collection[str] | None = None) -> dict[str, Any] | None:
    """Returns a value of boxes in space; None if the frame has no pose or no intrinsics.

    Args:
        classes: labels of the boxes; None: all.

    Raises:
        BadSample: a file is missing or damaged.
    """
    content = _scan(scan)
    time = _time(stem, scan)
    pose, intrinsics = _nearest(content, time), _intrinsics(scan, time)
    if pose is None or intrinsics is None:
        remark("frames without a camera pose or intrinsics have no boxes")
        return None
    camera, level = _level_camera(pose, intrinsics)
    items = []
    for label, center, axes, lengths in content.boxes:
        if classes is not None and label not in classes:
            remark("boxes of labels that are not among the entry's classes are left out")
            continue
        items.append({"class": label, **_level_box(center, axes, lengths, pose, level)})
    depth = frame_file(scan, stem, DEPTHS)
    if items and depth.is_file():
        levels = read_levels(read_bytes(depth), "png", str(depth))
        points = unproject(levels.reshape(levels.shape[:2]) / 1000.0, camera)
        seen = contain(as_rows(items), points, MARGIN).sum(axis=1) >= LEAST_POINTS
        items = [item for item, is_seen in zip(items, seen, strict=True) if is_seen]
    return {"camera": camera, "boxes": items}


def _chosen(place: Path, catalog: Catalog, fields: dict[str, str]) -> dict[str, str]:
    """Returns the feature of each modality that has one."""
    entries = read_entries(catalog)
    found = named_features(place, list(entries), fields, list(FEATURES))
    rest = {name: m.value for name, m in entries.items() if name not in found}
    flat = {name: value for name, value in rest.items() if len(value.size) == 2}
    maps = [name for name, value in flat.items() if value.is_mask and value.channels == 1 and not value.is_photograph]
    likely = {
        PICTURES: [name for name, value in flat.items() if value.is_picture][:1],
        BOXES: [name for name, value in rest.items() if isinstance(value, Boxes3D)][:1],
        DEPTHS: maps if len(maps) == 1 else [],
    }
    return with_likely_features(place, list(entries), found, likely, FEATURES)


def _annotation(scan: Path) -> Path:
    return scan / f"{scan.name}{ANNOTATION}"


def _frames(scan: Path) -> Path:
    return scan / f"{scan.name}_frames"


def _time(stem: str, scan: Path) -> float:
    try:
        return float(stem.removeprefix(f"{scan.name}_"))
    except ValueError:
        raise BadSample(f"{scan}: the frame {stem!r} is not named SCAN_TIME, such as {scan.name}_1234.567") from None


@lru_cache(maxsize=64)
def _scan(scan: Path) -> RoomScan:
    """Reads the annotation and the poses of a scan.

    Raises:
        BadSample: a file is missing or damaged.
    """
    path, boxes = _annotation(scan), []
    try:
        for item in read_json_object(path)["data"]:
            box = item["segments"]["obbAligned"]
            numbers = [
                np.array(box[key], np.float64).reshape(shape)
                for key, shape in (("centroid", 3), ("normalizedAxes", (3, 3)), ("axesLengths", 3))
            ]
            if not all(np.isfinite(array).all() for array in numbers) or numbers[2].min() <= 0:
                raise ValueError(f"the box of {item['label']!r} has numbers that are not finite, or lengths of 0")
            label = str(item["label"]).translate(str.maketrans(" -/", "___"))
            boxes.append((label, numbers[0], numbers[1], numbers[2]))
    except (KeyError, TypeError, ValueError, MaskweaveError) as error:
        raise BadSample(
            f"{path}: {type(error).__name__}: {error}; expected data, a list of boxes with label and segments.obbAligned of centroid, axesLengths and normalizedAxes"
        ) from error
    lines = read_text(read_bytes(_frames(scan) / POSES), str(_frames(scan) / POSES)).split("\n")
    rows = [[*map(_number, line.split())] for line in lines if line.strip()]
    if any(len(row) != 7 or not all(map(is_number, row)) for row in rows):
        raise BadSample(
            f"{_frames(scan) / POSES}: expected seven numbers on each line: time, axis-angle rotation, translation"
        )
    poses = np.array(sorted(rows), np.float64).reshape(-1, 7)
    matrices = [np.column_stack([rotation_matrix(row[1:4]), row[4:]]) for row in poses]
    return RoomScan(boxes, poses[:, 0], np.array(matrices).reshape(-1, 3, 4))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Returns the rotation (3, 3) about a vector by its length in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)


def _nearest(scan: RoomScan, time: float) -> np.ndarray | None:
    """Returns the pose (3, 4) at a time; None if there is none."""
    if not len(scan.times):
        return None
    nearest = int(np.abs(scan.times - time).argmin())
    return scan.poses[nearest] if abs(scan.times[nearest] - time) <= SAME_TIME else None


def _intrinsics(scan: Path, time: float) -> list[float] | None:
    """Returns width, height, both focal lengths and the principal point of a frame, in pixels; None if it has none. Names may differ by a millisecond."""
    for offset in (0.0, -0.001, 0.001):
        path = _frames(scan) / INTRINSICS / f"{scan.name}_{time + offset:.3f}.pincam"
        if path.is_file():
            numbers = [_number(text) for text in read_text(read_bytes(path), str(path)).split()]
            if len(numbers) != 6 or not all(map(is_number, numbers)) or min(numbers[:4]) <= 0:
                raise BadSample(
                    f"{path}: found {shown(numbers)}; expected width, height, focal lengths and principal point"
                )
            return numbers
    return None


def _level_camera(pose: np.ndarray, intrinsics: Sequence[float]) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the camera of a frame, and the matrix (3, 3) from the world to its level frame."""
    width, height, fx, fy, cx, cy = intrinsics
    down, forward = np.array([0.0, 0.0, -1.0]), pose[2, :3].copy()
    steep = (
        abs(forward[2]) > 1 - 1e-9
    )  # the camera looks straight down or up: the top of the picture tells where ahead is
    if steep:
        forward = pose[1, :3] * np.sign(forward[2])
    forward[2] = 0
    forward /= np.linalg.norm(forward)
    level = np.stack([np.cross(down, forward), down, forward])
    tilt = pose[:, :3] @ level.T
    camera = {
        "focal": [fx / width, fy / height],
        "center": [(cx + 0.5) / width, (cy + 0.5) / height],  # pixel 0 has its middle at 0
        "pitch": math.atan2(tilt[2, 1], tilt[2, 2]),
        "roll": math.atan2(-tilt[1, 0], tilt[0, 0]),
    }
    return camera, level


def _level_box(
    center: np.ndarray, axes: np.ndarray, lengths: np.ndarray, pose: np.ndarray, level: np.ndarray
) -> dict[str, Any]:
    """Returns center, size and yaw of a box in the level frame of a camera.

    Raises:
        BadSample: the box is not upright.
    """
    up = int(np.abs(axes[:, 2]).argmax())
    if abs(axes[up, 2]) < UPRIGHT:
        raise BadSample(
            f"a box with the axes {axes.round(2).tolist()} is not upright; expected obbAligned boxes, one of whose axes is vertical"
        )
    across, along = (k for k in range(3) if k != up)
    position = -pose[:, :3].T @ pose[:, 3]
    direction = level @ axes[across]
    return {
        "center": (level @ (center - position)).tolist(),
        "size": [float(lengths[across]), float(lengths[up]), float(lengths[along])],
        "yaw": math.atan2(direction[2], direction[0]),
    }
