"""Boxes in space with classes: 3-D detections, in front of a camera whose intrinsics and tilt each value carries.

Boxes stand upright and are turned about the vertical axis; `oriented.py` has their geometry, `camera.py` that of the camera. Coordinates are those of the
camera's level frame: x right, y down along gravity, z forward along the horizon. A crop changes the camera, a flip also mirrors the boxes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values import camera as cameras
from maskweave.values.average_precision import Items, Matches, match, precisions
from maskweave.values.base import Size, TextLabels, as_labels, refuse
from maskweave.values.bootstrap import Interval, counted_intervals
from maskweave.values.camera import check_camera, move_camera, rectangle, segments, within_picture
from maskweave.values.classes import check_classes
from maskweave.values.codec import Bins, Codec, Slot, TextWriter
from maskweave.values.detection import Detected, box_corners, generalized_overlap
from maskweave.values.geometry import Geometry
from maskweave.values.items import (
    FIRST,
    check_bins,
    check_class,
    check_items,
    check_max_items,
    check_numbers,
    first_class,
    overlapping_once,
)
from maskweave.values.matching import best_items, by_class, class_names, matched_counts
from maskweave.values.metrics import Metric, f1_of_labels, label_f1
from maskweave.values.oriented import EDGES, corners, overlaps, same_yaw
from maskweave.values.remarks import remark

BOX_LAYOUT = '{"class": name, "center": [x, y, z], "size": [width, height, depth], "yaw": radians} in meters'
LAYOUT = f'{{"camera": {cameras.LAYOUT}, "boxes": list of {BOX_LAYOUT}}}'
THRESHOLDS = tuple(np.linspace(0.05, 0.5, 10).round(2).tolist())
"""Overlaps over which `AP3D` is averaged, as in Omni3D (https://arxiv.org/abs/2207.10660)."""
YAW_WEIGHT = 0.1
"""Weight of the yaw in the distance of boxes, in which lengths are shares of the largest size."""
DISTANCE_WEIGHT = 0.4
"""Weight of the distance, so that its ten numbers count as much as the four of boxes in a picture."""


@dataclass(frozen=True)
class Boxes3D(Detected):
    """A camera, and a list of upright boxes in front of it, each with its class."""

    type: ClassVar[str] = "boxes3d"
    python: ClassVar[str] = (
        '{"camera": {"focal": [fx, fy], "center": [cx, cy], "pitch": radians, "roll": radians}, "boxes": list of {"class": str, "center": [x, y, z], '
        '"size": [width, height, depth], "yaw": radians}}; focal lengths and principal point as shares of the picture\'s width and height, lengths in meters, in '
        "the level frame at the camera: x right, y down along gravity, z forward along the horizon; yaw turns x towards z, and yaw + π is the same box"
    )
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    mergeable = True
    box_numbers = 10
    free_numbers = 2
    default_metrics = ("f1", "f1_25")
    sees_color = True

    classes: tuple[str, ...] = ()
    """Class names; each is one of the vocabulary's `words`."""
    range: tuple[tuple[float, float], tuple[float, float], tuple[float, float]] = (
        (-8.0, 8.0),
        (-4.0, 4.0),
        (0.0, 16.0),
    )
    """Lowest and highest x, y and z of centers, in meters; boxes with others are left out, which is told."""
    largest: float = 4.0
    """Largest width, height and depth, in meters; tokens and heads clip larger ones."""
    bins: int = 64
    """Bins of each number."""
    max_items: int = 0
    """Most boxes that are written, the nearest first; further ones are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        check_classes(self.classes)
        check_bins(self.bins)
        check_max_items(self.max_items)
        if not all(-math.inf < low < high < math.inf for low, high in self.range):
            raise MaskweaveError(f"value.range must be lowest and highest x, y and z, found {shown(self.range)}")
        if not 0 < self.largest < math.inf:
            raise MaskweaveError(f"value.largest must be above 0 meters, found {self.largest}")

    def describe(self) -> str:
        return f"{self.type}, {len(self.classes)} classes"

    def describe_range(self) -> str:
        return " × ".join(f"{low:g} to {high:g}" for low, high in self.range) + " m"

    def check(self, value: Any, where: str) -> dict[str, Any]:
        """Returns the value with each yaw from −π/2 up to π/2."""
        if not isinstance(value, Mapping) or "camera" not in value or "boxes" not in value:
            raise refuse(where, shown(value), LAYOUT)
        boxes = []
        for i, item in enumerate(check_items(value["boxes"], where, ("class", "center", "size", "yaw"), BOX_LAYOUT)):
            name = check_class(item, i, self.classes, where)
            center = _numbers(item["center"], 3, f"item {i} with center", where)
            size = _numbers(item["size"], 3, f"item {i} with size", where)
            [yaw] = _numbers([item["yaw"]], 1, f"item {i} with yaw", where)
            if min(size) <= 0:
                raise refuse(where, f"item {i} with size {size}", "width, height and depth above 0")
            boxes.append({"class": name, "center": center, "size": size, "yaw": same_yaw(yaw)})
        return {"camera": check_camera(value["camera"], where), "boxes": boxes}

    def transform(self, value: dict[str, Any], geometry: Geometry) -> dict[str, Any]:
        """Moves the camera and mirrors the boxes. Drops boxes outside the picture, or of which the crop leaves too little of what the picture shows, and those
        whose center is outside the range; returns the others nearest first."""
        sign, kept = -1 if geometry.flip else 1, []
        for item in value["boxes"]:
            seen = rectangle(outline(item, value["camera"]))
            if seen is None or geometry.move_box(seen) is None:
                continue
            x, y, z = item["center"]
            moved = {**item, "center": [sign * x, y, z], "yaw": same_yaw(sign * item["yaw"])}
            if all(low <= c <= high for c, (low, high) in zip(moved["center"], self.range, strict=True)):
                kept.append(moved)
            else:
                remark("boxes whose center is outside value.range are left out")
        return {
            "camera": move_camera(value["camera"], geometry),
            "boxes": sorted(kept, key=lambda item: math.hypot(*item["center"])),
        }

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        return {FIRST: self.classes}

    def label_of(self, value: dict[str, Any], label: str) -> str:
        return first_class(value["boxes"])

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "Boxes3DCodec":
        return Boxes3DCodec(name, self, max_tokens, text)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """Over the whole set, `f1`: of the multisets of classes; `f1_25`: of boxes, which are right if they overlap a true one of their class by 0.25 or more."""
        return {
            "f1": label_f1(partial(as_labels, parse=lambda value: class_names(value["boxes"]))),
            "f1_25": Metric("F1@25", "higher", matched_boxes, f1_of_labels, best_boxes),
        }

    def merge(self, values: Sequence[dict[str, Any]], overlap: float) -> dict[str, Any]:
        """Pools the boxes, and takes the median of each number of the cameras."""
        pool = [item for value in values for item in value["boxes"]]
        boxes = overlapping_once(pool, item_overlaps(pool, pool), overlap) if pool else []
        numbers = {name: np.median([value["camera"][name] for value in values], axis=0) for name in cameras.LIMITS}
        return {"camera": {name: number.tolist() for name, number in numbers.items()}, "boxes": boxes}

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws the edges of each box where they appear in the picture; predictions of a head, which have no camera, through that of `reference`."""
        from maskweave.values.drawing_objects import Annotation, draw_annotations
        from maskweave.values.lettering import message

        camera = value.get("camera") or (reference or {}).get("camera")
        if camera is None:
            return message("no camera", size)
        lines = [(item["class"], within_picture(outline(item, camera))) for item in value["boxes"]]
        annotations = [Annotation(name, outline=edges) for name, edges in lines if len(edges)]
        return draw_annotations(annotations, self.classes, size, over)

    # Detection: center in the picture, center as shares of the range, size as shares of the largest, cosine and sine of twice the yaw. The first only says
    # to the head where to look.

    def box_rows(self, value: dict[str, Any]) -> np.ndarray:
        items = value["boxes"]
        classes = np.array([self.classes.index(item["class"]) for item in items], np.float64)
        low, high = np.array(self.range).T
        boxes = as_rows(items)
        seen = cameras.project(boxes[:, :3], value["camera"]).clip(0, 1)
        center, size = (boxes[:, :3] - low) / (high - low), boxes[:, 3:6] / self.largest
        turns = np.stack([np.cos(2 * boxes[:, 6]), np.sin(2 * boxes[:, 6])], axis=1)
        return np.concatenate([classes[:, None], seen, center, size.clip(0, 1), turns], axis=1).astype(np.float32)

    def detections(self, rows: np.ndarray, names: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
        """Returns `{"boxes": ...}` without a camera, which a head does not predict."""
        low, high = np.array(self.range).T
        rows = rows[:, 2:].astype(np.float64)
        numbers = zip(
            names,
            (low + rows[:, :3] * (high - low)).tolist(),
            (rows[:, 3:6].clip(1e-3, 1) * self.largest).tolist(),
            (np.arctan2(rows[:, 7], rows[:, 6]) / 2).tolist(),
            map(float, scores),
            strict=True,
        )
        return {
            "boxes": [dict(zip(("class", "center", "size", "yaw", "score"), item, strict=True)) for item in numbers]
        }

    def box_distance(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Differences of the center in the picture, of center and size as shares of the largest size, and of the yaw; the nearer of both descriptions of a true
        box counts."""
        spans = [1.0, 1.0, *((high - low) / self.largest for low, high in self.range)]
        center = sum(span * (predicted[..., i] - true[..., i]).abs() for i, span in enumerate(spans))
        forms = [
            (predicted[..., 5:] - form).abs() @ predicted.new_tensor([1, 1, 1, YAW_WEIGHT, YAW_WEIGHT])
            for form in _descriptions(true[..., 5:])
        ]
        return DISTANCE_WEIGHT * (center + torch.minimum(*forms))

    def box_overlap(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Of the boxes without their yaw; the description of a true box that overlaps more counts."""
        first = box_corners(self._lengths(predicted, predicted[..., 5:8]))
        forms = [
            generalized_overlap(first, box_corners(self._lengths(true, form[..., :3])))
            for form in _descriptions(true[..., 5:])
        ]
        return torch.maximum(*forms)

    def _lengths(self, numbers: Tensor, size: Tensor) -> Tensor:
        """Centers and sizes (…, 6) as shares of the largest size."""
        center = [numbers[..., 2 + i] * (high - low) / self.largest for i, (low, high) in enumerate(self.range)]
        return torch.cat([torch.stack(center, dim=-1), size], dim=-1)

    def detection_scores(self, found: Sequence[Any], truth: Sequence[Any]) -> dict[str, float]:
        """`AP3D`, the mean over the overlaps 0.05, 0.10, …, 0.50, and the average precisions at 0.25 and 0.50."""
        return _named(precisions(_matches(found, truth)))

    def detection_intervals(self, found: Sequence[Any], truth: Sequence[Any], seed: int = 0) -> dict[str, Interval]:
        matches = _matches(found, truth)
        return counted_intervals(lambda counts_S: _named(precisions(matches, counts_S)), len(truth), seed)

    def constant_detections(self, seen: Sequence[Any], found: Sequence[Any], truth: Sequence[Any]) -> list[Any]:
        """Returns the detections as boxes in the picture, lifted to space with constants: the median distance, size and yaw of their class in training
        examples, in the direction of the middle of the box in the picture of the true camera.

        Classes, scores and places in the picture stay, so that the comparison shows what the detections know of space.
        """
        rows = {name: [] for name in self.classes}  # type: dict[str, list[list[float]]]
        for value in seen:
            for item in value["boxes"]:
                rows[item["class"]].append([math.hypot(*item["center"]), *item["size"], item["yaw"]])
        every = [row for found in rows.values() for row in found]
        if not every:
            return [{"boxes": []} for _ in truth]
        medians = {name: np.median(known or every, axis=0).tolist() for name, known in rows.items()}
        return [
            {"boxes": [lifted(item, value["camera"], medians[item["class"]]) for item in answer["boxes"]]}
            for answer, value in zip(found, truth, strict=True)
        ]


class Boxes3DCodec(Codec):
    """Encodes the camera as `v0=` of both focal lengths, both coordinates of the principal point, pitch and roll; then boxes, nearest first by their binned
    centers, then by ids: `v0=` of center, size and yaw, and the class."""

    item = "box"
    camera_bins: ClassVar[Sequence[tuple[float, float]]] = (
        (0.0, 4.0), (0.0, 4.0), (-0.5, 1.5), (-0.5, 1.5), (-math.pi / 2, math.pi / 2), (-math.pi, math.pi),
    )  # fmt: skip

    def __init__(self, name: str, value: Boxes3D, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text)
        self.require("v0", value.bins, "value.bins")
        ranges = (*value.range, *[(0.0, value.largest)] * 3, (-math.pi / 2, math.pi / 2))
        self.camera = [Bins(*ends, value.bins) for ends in self.camera_bins]
        self.numbers = [Bins(*ends, value.bins) for ends in ranges]
        self.classes = self.class_ids()
        self.most = self.capacity(len(self.numbers) + 1, fixed=1 + len(self.camera))
        number = self.slot("v0", value.bins)
        self.camera_slots = [number] * len(self.camera)
        self.slots = [*[number] * len(self.numbers), Slot("class", {id: name for name, id in self.classes.items()})]

    def encode(self, value: dict[str, Any], rng: np.random.Generator | None = None) -> list[int]:
        start, items = self.text.value("v0", 0), []
        for item, row in zip(value["boxes"], as_rows(value["boxes"]).tolist(), strict=True):
            bins = [b.encode(x) for b, x in zip(self.numbers, row, strict=True)]
            distance = sum(b.centers[n] ** 2 for b, n in zip(self.numbers[:3], bins[:3], strict=True))
            items.append((distance, [*(start + n for n in bins), self.classes[item["class"]]]))
        camera = value["camera"]
        numbers = [*camera["focal"], *camera["center"], camera["pitch"], camera["roll"]]
        first = [start + b.encode(x) for b, x in zip(self.camera, numbers, strict=True)]
        return self.join([first, *(ids for _, ids in sorted(items)[: self.most])])

    def parse(self, ids: list[int], problems: list[str]) -> dict[str, Any]:
        count = len(self.camera)
        bins = [slot.meaning.get(id) for slot, id in zip(self.camera_slots, ids, strict=False)]
        if len(bins) < count or None in bins:
            problems.append(
                f"the sequence does not start with the {count} numbers of a camera; it is taken as level, with focal length 1"
            )
            numbers, first = [1.0, 1.0, 0.5, 0.5, 0.0, 0.0], 0
        else:
            numbers, first = [b.centers[n] for b, n in zip(self.camera, bins, strict=True) if n is not None], count
        boxes = []
        for *found, name in self.parse_items(ids, self.slots, problems, first):
            row = [b.centers[n] for b, n in zip(self.numbers, found, strict=True)]
            boxes.append({"class": name, "center": row[:3], "size": row[3:6], "yaw": row[6]})
        camera = {"focal": numbers[:2], "center": numbers[2:4], "pitch": numbers[4], "roll": numbers[5]}
        return {"camera": camera, "boxes": boxes}


def _matches(found: Sequence[Any], truth: Sequence[Any]) -> list[Matches]:
    predicted, true = ([value["boxes"] for value in values] for values in (found, truth))
    return match(predicted, true, item_overlaps, THRESHOLDS)


def _named(precisions_T: np.ndarray) -> dict[str, float]:
    at = dict(zip(THRESHOLDS, np.broadcast_to(precisions_T, len(THRESHOLDS)).tolist(), strict=True))
    return {"AP3D": float(np.mean(precisions_T)), "AP3D@25": at[0.25], "AP3D@50": at[0.5]}


def as_rows(items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns boxes as rows, float64 (N, 7); see `oriented.py`."""
    rows = [[*item["center"], *item["size"], item["yaw"]] for item in items]
    return np.array(rows, np.float64).reshape(-1, 7)


def item_overlaps(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(n, m) intersection over union of boxes."""
    return overlaps(as_rows(a), as_rows(b))


def outline(item: Mapping[str, Any], camera: cameras.Camera) -> np.ndarray:
    """Returns the edges of a box in front of the camera, (n, 2, 2), where they appear in the picture and beyond it."""
    return segments(corners(as_rows([item]))[0][EDGES], camera)


def lifted(item: Mapping[str, Any], camera: cameras.Camera, constants: Sequence[float]) -> dict[str, Any]:
    """Returns a box whose distance, size and yaw are constants, in the direction of the middle of where a box appears in the picture."""
    distance, *size, yaw = constants
    found = rectangle(outline(item, camera))
    ray = (
        np.array(item["center"])
        if found is None
        else cameras.direction((found[0] + found[2]) / 2, (found[1] + found[3]) / 2, camera)
    )
    center = ray * (distance / np.linalg.norm(ray))
    return {**item, "center": center.tolist(), "size": size, "yaw": yaw}


def matched_boxes(prediction: Mapping[str, Any], truth: Mapping[str, Any]) -> np.ndarray:
    """(true positives, false positives, false negatives) of boxes; matches overlap by at least 0.25."""
    return _matched(prediction["boxes"], truth["boxes"])


def _matched(found: Items, true: Items) -> np.ndarray:
    return matched_counts(found, true, item_overlaps, 0.25)


def best_boxes(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the boxes with the highest F1 among the median boxes of the classes."""
    return {"boxes": best_items([value["boxes"] for value in values], _matched, median_boxes)}


def median_boxes(items: Items) -> list[dict[str, Any]]:
    """Returns the box of each class whose numbers are the medians of its boxes."""
    found = []
    for name, some in by_class(items).items():
        middle = np.median(as_rows(some), axis=0).tolist()
        found.append({"class": name, "center": middle[:3], "size": middle[3:6], "yaw": middle[6]})
    return found


def _descriptions(form: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the size and turns (…, 5) of boxes, and those with width and depth exchanged, which are the same boxes."""
    return form, torch.cat([form[..., [2, 1, 0]], -form[..., 3:]], dim=-1)


def _numbers(numbers: Any, count: int, what: str, where: str) -> list[float]:
    return check_numbers(numbers, count, None, f"{what} {shown(numbers)}", BOX_LAYOUT, where)
