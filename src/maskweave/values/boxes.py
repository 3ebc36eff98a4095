"""Bounding boxes with classes: detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.values.average_precision import Items, coco_average_precision, match, precisions
from maskweave.values.base import Size, TextLabels, as_labels
from maskweave.values.bootstrap import Interval, counted_intervals
from maskweave.values.classes import check_classes
from maskweave.values.codec import Bins, Codec, Slot, TextWriter, corner_distance
from maskweave.values.detection import Detected, box_corners, generalized_overlap
from maskweave.values.geometry import Geometry, corner_first
from maskweave.values.items import (
    COORDINATES,
    FIRST,
    check_bins,
    check_box,
    check_class,
    check_items,
    check_max_items,
    first_class,
    overlapping_once,
)
from maskweave.values.matching import by_class, class_names, matched_f1
from maskweave.values.metrics import Metric, label_f1

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
"""Overlaps of COCO's average precision."""
LAYOUT = f'{{"class": name, "box": [xmin, ymin, xmax, ymax]}} with {COORDINATES}'


@dataclass(frozen=True)
class Boxes(Detected):
    """A list of boxes, each with its class."""

    type: ClassVar[str] = "boxes"
    python: ClassVar[str] = (
        'list of {"class": str, "box": [xmin, ymin, xmax, ymax]}, coordinates 0 to 1 from the top left'
    )
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    mergeable = True
    box_numbers = 4
    default_metrics = ("f1", "f1_50")
    sees_color = True

    classes: tuple[str, ...] = ()
    """Class names; each is one of the vocabulary's `words`."""
    bins: int = 64
    """Bins of each coordinate."""
    max_items: int = 0
    """Most boxes that are written; extra boxes at the end are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        check_classes(self.classes)
        check_bins(self.bins)
        check_max_items(self.max_items)

    def describe(self) -> str:
        return f"{self.type}, {len(self.classes)} classes"

    def describe_range(self) -> str:
        return "0 to 1"

    def check(self, value: Any, where: str) -> list[dict[str, Any]]:
        return [
            {
                "class": check_class(item, i, self.classes, where),
                "box": check_box(item["box"], f"item {i} with box", LAYOUT, where),
            }
            for i, item in enumerate(check_items(value, where, ("class", "box"), LAYOUT))
        ]

    def transform(self, value: list[dict[str, Any]], geometry: Geometry) -> list[dict[str, Any]]:
        """Clips boxes and drops those of which too little is left; returns them in 4M's order."""
        moved = [{**item, "box": box} for item in value if (box := geometry.move_box(item["box"])) is not None]
        return corner_first(moved, lambda item: item["box"])

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        return {FIRST: self.classes}

    def label_of(self, value: list[dict[str, Any]], label: str) -> str:
        return first_class(value)

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "BoxesCodec":
        return BoxesCodec(name, self, max_tokens, text)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """Over the whole set, `f1`: of the multisets of classes; `f1_50`: of boxes, which are right if they overlap a true one of their class by 0.5 or more."""
        return {
            "f1": label_f1(partial(as_labels, parse=class_names)),
            "f1_50": matched_f1("F1@50", pair_overlaps, 0.5, median_boxes),
        }

    def merge(self, values: Sequence[list[dict[str, Any]]], overlap: float) -> list[dict[str, Any]]:
        pool = [item for value in values for item in value]
        return overlapping_once(pool, pair_overlaps(pool, pool), overlap) if pool else []

    # Detection: center, width and height.

    def box_rows(self, value: list[dict[str, Any]]) -> np.ndarray:
        rows = []
        for item in value:
            x0, y0, x1, y1 = item["box"]
            rows.append([self.classes.index(item["class"]), (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
        return np.array(rows, np.float32).reshape(-1, 5)

    def detections(self, rows: np.ndarray, names: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
        boxes = box_corners(torch.from_numpy(rows)).clamp(0, 1).tolist()
        return [
            {"class": name, "box": box, "score": float(score)}
            for name, box, score in zip(names, boxes, scores, strict=True)
        ]

    def box_distance(self, predicted: Tensor, true: Tensor) -> Tensor:
        return (predicted - true).abs().sum(dim=-1)

    def box_overlap(self, predicted: Tensor, true: Tensor) -> Tensor:
        return generalized_overlap(box_corners(predicted), box_corners(true))

    def detection_scores(self, found: Sequence[Any], truth: Sequence[Any]) -> dict[str, float]:
        """COCO's AP and AP50; needs pycocotools."""
        return coco_average_precision(found, truth, self.classes)

    def detection_intervals(self, found: Sequence[Any], truth: Sequence[Any], seed: int = 0) -> dict[str, Interval]:
        matches = match(found, truth, pair_overlaps, THRESHOLDS)

        def scores(counts_S: np.ndarray) -> dict[str, float]:
            each = precisions(matches, counts_S)
            return {"AP": float(each.mean()), "AP50": float(each[0])}

        return counted_intervals(scores, len(truth), seed)

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing_objects import Annotation, draw_annotations

        return draw_annotations(
            [Annotation(item["class"], box=item["box"]) for item in value], self.classes, size, over
        )


class BoxesCodec(Codec):
    """Encodes boxes, nearest to the top left first: by squared distance of the (binned) top-left corner from the origin, then by ids."""

    item = "box"

    def __init__(self, name: str, value: Boxes, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text)
        self.bins = Bins(0.0, 1.0, value.bins)
        self.classes = self.class_ids()
        self.most = self.capacity(5)
        enough = {p for p, count in text.vocabulary.values.items() if count >= value.bins}
        prefixes = [p if p in enough else "v0" for p in ("v0", "v1", "v2", "v3")]
        self.require("v0", value.bins, "value.bins")
        self.starts = [text.value(prefix, 0) for prefix in prefixes]
        names = {id: name for name, id in self.classes.items()}
        self.slots = [*(self.slot(prefix, value.bins) for prefix in prefixes), Slot("class", names)]

    def encode(self, value: list[dict[str, Any]], rng: np.random.Generator | None = None) -> list[int]:
        items = []
        for item in value:
            bins = [self.bins.encode(x) for x in item["box"]]
            ids = [s + b for s, b in zip(self.starts, bins, strict=True)] + [self.classes[item["class"]]]
            items.append((corner_distance(bins), ids))
        return self.join(ids for _, ids in sorted(items)[: self.most])

    def parse(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        boxes = []
        for n, (*bins, name) in enumerate(self.parse_items(ids, self.slots, problems)):
            if bins[0] > bins[2] or bins[1] > bins[3]:
                problems.append(f"box {n} is reversed: bins {bins}")
            else:
                boxes.append({"class": name, "box": [self.bins.centers[b] for b in bins]})
        return boxes


def pair_overlaps(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(n, m) intersection over union of boxes."""
    a, b = (np.array([item["box"] for item in items], np.float64).reshape(-1, 4) for items in (first, second))
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    common = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-12)


def median_boxes(items: Items) -> list[dict[str, Any]]:
    """Returns the box of each class whose coordinates are the medians of its boxes."""
    return [
        {"class": name, "box": np.median([item["box"] for item in some], axis=0).tolist()}
        for name, some in by_class(items).items()
    ]
