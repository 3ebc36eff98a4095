"""Instance masks as text-like tokens: a class, a box in bins, and the mask on a small grid stretched over the box.

4M-21 (https://arxiv.org/abs/2406.09406) writes masks as codes of a separate tokenizer; rows of bits need no tokenizer and are readable.

Exactness. A pixel of a row of W pixels belongs to bin floor(pixel * bins / W). The box is the range of bins that the mask touches, and
covers all pixels of those bins. The grid divides these pixels into rows x columns cells (into single pixels along an axis that
has fewer); a cell is set if the mask covers at least half of it. Each outer row and column has at least one set cell, its
fullest one if none is half covered, so that the decoded mask touches the same bins and encodes to the same ids.
Decoding is exact if there are at least as many bins as pixels and the box is no larger than the grid; a larger mask
is decoded at the grid's resolution.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.values import files
from maskweave.values.array import as_numbers
from maskweave.values.average_precision import Items
from maskweave.values.base import Size, TextLabels, ValueType, as_labels, refuse
from maskweave.values.classes import check_classes
from maskweave.values.codec import Codec, Slot, TextWriter, corner_distance
from maskweave.values.geometry import Geometry, box_around, corner_first, resize_nearest
from maskweave.values.items import (
    FIRST,
    check_bins,
    check_class,
    check_items,
    check_max_items,
    first_class,
    overlapping_once,
)
from maskweave.values.matching import by_class, class_names, panoptic_quality
from maskweave.values.metrics import Metric, label_f1

MAX_INSTANCES = 2048
"""Instances of one value: each takes a mask of the entry's size."""
MAX_MASK_POINTS = 4 * files.MAX_PIXELS
"""Points of all masks of one sample together."""
LAYOUT = '{"class": name, "mask": mask}'


class Axis(NamedTuple):
    """How the pixels of a box are divided over the grid along one axis: C cells, those of the grid, or one per pixel if those are fewer."""

    starts: NDArray[np.intp]
    """(C,) first pixel of each cell."""
    widths: NDArray[np.intp]
    """(C,) pixels of each cell, at least 1."""
    spread: NDArray[np.intp]
    """(grid,) cell of each grid position."""
    pick: NDArray[np.intp]
    """(C,) a grid position of each cell."""


@lru_cache(maxsize=4096)
def axis(pixels: int, grid: int) -> Axis:
    cells = min(pixels, grid)
    ends = np.arange(cells + 1) * pixels // cells
    spread = (2 * np.arange(grid) + 1) * cells // (2 * grid)
    pick = (2 * np.arange(cells) + 1) * grid // (2 * cells)
    return Axis(ends[:-1], np.diff(ends), spread, pick)


@dataclass(frozen=True)
class Instances(ValueType):
    """Masks of single objects, each with its class."""

    type: ClassVar[str] = "instances"
    python: ClassVar[str] = 'list of {"class": str, "mask": bool (*size)}'
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    mergeable = True
    default_metrics = ("f1", "pq")
    sees_color = True

    size: tuple[int, ...] = ()
    """[height, width] of the masks."""
    classes: tuple[str, ...] = ()
    """Class names; each is one of the vocabulary's `words`."""
    bins: int = 64
    """Bins of each coordinate of a mask's box."""
    mask: tuple[int, int] = (8, 8)
    """Rows and columns of the grid on which a mask is written, stretched over its box; at most 8 columns."""
    max_items: int = 0
    """Most instances that are written; extra instances at the end are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        check_classes(self.classes)
        check_bins(self.bins)
        check_max_items(self.max_items)
        points = self.size[0] * self.size[1] if len(self.size) == 2 else 0
        if (
            not 0 < points <= files.MAX_PIXELS
            or min(self.size) < 1
            or not 1 <= self.mask[1] <= 8
            or not 1 <= self.mask[0] <= 1024
        ):
            raise MaskweaveError(
                f"instances need value.size [height, width] and value.mask of at most 8 columns, found {shown(list(self.size))} and {shown(list(self.mask))}"
            )

    def describe(self) -> str:
        return f"{super().describe()}, {len(self.classes)} classes"

    def check(self, value: Any, where: str) -> list[dict[str, Any]]:
        instances: list[dict[str, Any]] = []
        self._check_points(value, where)
        for i, item in enumerate(check_items(value, where, ("class", "mask"), LAYOUT)):
            mask = as_numbers(item["mask"], f"{where}: item {i}: mask")
            mask = mask[..., 0] if mask.ndim == 3 and mask.shape[-1] == 1 else mask
            if mask.dtype.kind not in "bui" or mask.ndim != 2 or not 0 < mask.size <= files.MAX_PIXELS:
                raise refuse(
                    where, f"item {i} with a mask of type {mask.dtype} and shape {mask.shape}", "bool (height, width)"
                )
            mask = mask.astype(bool)
            if instances and mask.shape != instances[0]["mask"].shape:
                raise refuse(
                    where, f"item {i} with a mask of {mask.shape}", f"{instances[0]['mask'].shape} like item 0"
                )
            instances.append({"class": check_class(item, i, self.classes, where), "mask": mask})
        return instances

    def _check_points(self, value: Any, where: str) -> None:
        """Refuses more masks than fit into memory at the entry's size."""
        count = len(value) if isinstance(value, (list, tuple)) else 0
        most = min(MAX_INSTANCES, MAX_MASK_POINTS // (self.size[0] * self.size[1]))
        if count > most:
            raise refuse(
                where, f"{count:,} instances", f"at most {most:,} masks of the entry's size {tuple(self.size)}"
            )

    def check_item(self, value: Any, where: str) -> list[dict[str, Any]]:
        checked = super().check_item(value, where)
        for n, item in enumerate(checked):
            at = f"{where}: instance {n}"
            if item["mask"].shape != tuple(self.size):
                raise refuse(at, f"a mask of shape {item['mask'].shape}", f"the entry's size {tuple(self.size)}")
            if not item["mask"].any():
                raise refuse(
                    at, "an empty mask", "masks with at least one pixel", "leave out instances that are not visible"
                )
        return checked

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """Parse JSON in which a mask is {"size": [height, width], "counts": [...]}: COCO's uncompressed run lengths down the columns, starting
        with points outside (https://cocodataset.org/#format-data)."""
        value = files.read_json_value(content, where)
        if not isinstance(value, list):
            return value
        if len(value) > MAX_INSTANCES:
            raise BadSample(f"{where}: {len(value):,} instances; expected at most {MAX_INSTANCES:,}")
        masks, points = [], 0
        for i, item in enumerate(value):
            masks.append(_unpack(item, i, where))
            points += masks[-1]["mask"].size
            if points > MAX_MASK_POINTS:  # a few bytes of run lengths can take any amount of memory
                raise BadSample(
                    f"{where}: the first {i + 1} masks have {points:,} points; expected at most {MAX_MASK_POINTS:,} in total"
                )
        return masks

    def write(self, value: list[dict[str, Any]]) -> tuple[bytes, str]:
        return json.dumps(
            [{"class": item["class"], "mask": run_lengths(item["mask"])} for item in value]
        ).encode(), "json"

    def extent(self, value: list[dict[str, Any]]) -> tuple[int, ...] | None:
        return value[0]["mask"].shape if value else None

    def transform(self, value: list[dict[str, Any]], geometry: Geometry) -> list[dict[str, Any]]:
        """Resizes masks by their nearest points and drops empty ones; returns them in 4M's order."""
        moved = []
        for item in value:
            mask = resize_nearest(item["mask"], self.size, geometry)
            if mask.any():
                moved.append({**item, "mask": mask[:, ::-1].copy() if geometry.flip else mask})
        return corner_first(moved, lambda item: box_around(item["mask"]))

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        return {FIRST: self.classes}

    def label_of(self, value: list[dict[str, Any]], label: str) -> str:
        return first_class(value)

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "InstancesCodec":
        return InstancesCodec(name, self, max_tokens, text)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """Over the whole set, `f1`: of the multisets of classes; `pq`: panoptic quality, of the masks."""
        return {
            "f1": label_f1(partial(as_labels, parse=class_names)),
            "pq": panoptic_quality(mask_overlaps, self.classes, typical_masks),
        }

    def merge(self, values: Sequence[list[dict[str, Any]]], overlap: float) -> list[dict[str, Any]]:
        pool = [item for value in values for item in value]
        return overlapping_once(pool, mask_overlaps(pool, pool), overlap) if pool else []

    def natural_size(self) -> Size:
        return self.size[0], self.size[1]

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing_objects import Annotation, draw_annotations

        annotations = [Annotation(item["class"], mask=item["mask"]) for item in value]
        return draw_annotations(annotations, self.classes, size, over, blank=self.natural_size())


def mask_overlaps(first: Items, second: Items) -> np.ndarray:
    """(n, m) intersection over union of masks."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    a = _rows(first)
    b = a if second is first else _rows(second)
    common = (a @ b.T).astype(np.float64)
    return common / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1) - common, 1)


def _rows(items: Items) -> np.ndarray:
    return np.stack([item["mask"].ravel() for item in items]).astype(np.float32)


def typical_masks(items: Items) -> list[dict[str, Any]]:
    """Returns a mask of each class: the points that at least half as many of its masks have as the point that most have."""
    found = []
    for name, some in by_class(items).items():
        counts = np.zeros(some[0]["mask"].shape, np.int64)
        for item in some:
            counts += item["mask"]
        found.append({"class": name, "mask": counts >= max(1, counts.max() / 2)})
    return found


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask, bool (H, W), as COCO's uncompressed run lengths."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))  # the first run counts points outside, and may be 0 long
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return {"size": [int(s) for s in mask.shape], "counts": [int(r) for r in runs]}


def _unpack(item: Any, i: int, where: str) -> Any:
    """Returns an instance with its run lengths unpacked to a mask, bool (H, W)."""
    runs = item.get("mask") if isinstance(item, dict) else None
    size: Any = runs.get("size") if isinstance(runs, dict) else None
    counts: Any = runs.get("counts") if isinstance(runs, dict) else None

    def whole(numbers: Any) -> bool:
        return isinstance(numbers, list) and all(type(n) is int and 0 <= n <= files.MAX_PIXELS for n in numbers)

    if (
        not whole(size)
        or len(size) != 2
        or not whole(counts)
        or not 0 < size[0] * size[1] <= files.MAX_PIXELS
        or sum(counts) != size[0] * size[1]
    ):
        raise BadSample(
            f'{where}: item {i} has no valid mask, found {shown(runs)}; expected {{"class": name, "mask": {{"size": [height, width], "counts": '
            "[run lengths]}}, the run lengths adding up to height × width"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return {**item, "mask": np.repeat(inside, counts).reshape(size[::-1]).T}


class InstancesCodec(Codec):
    """Encodes instances in the order of their boxes; see `boxes.py`."""

    item = "instance"

    def __init__(self, name: str, value: Instances, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text)
        height, width = value.size
        bins, (self.rows, self.columns) = self.spec.bins, self.spec.mask
        self.classes = self.class_ids()
        self.most = self.capacity(5 + self.rows)
        self.require("v0", bins, "value.bins")
        self.require("v1", 2**self.columns, "value.mask (a row of n columns takes 2**n values)")
        self.y_bins = [p * bins // height for p in range(height)]
        self.x_bins = [p * bins // width for p in range(width)]
        self.weights = 2 ** np.arange(self.columns)[::-1]  # the leftmost column is the highest bit
        self.level, self.bits = text.value("v0", 0), text.value("v1", 0)
        names = Slot("class", {id: name for name, id in self.classes.items()})
        self.slots = [names, *[self.slot("v0", bins)] * 4, *[self.slot("v1", 2**self.columns)] * self.rows]

    def encode(self, value: list[dict[str, Any]], rng: np.random.Generator | None = None) -> list[int]:
        items = []
        for item in value:
            box, rows = self._write(item["mask"])
            ids = [self.classes[item["class"]], *(self.level + b for b in box), *(self.bits + row for row in rows)]
            items.append((corner_distance(box), ids))
        return self.join(ids for _, ids in sorted(items)[: self.most])

    def _write(self, mask: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """Returns the bins xmin, ymin, xmax, ymax of a mask, and its rows of bits."""
        (top, bottom), (left, right) = _extent(mask, 1), _extent(mask, 0)
        box = [self.x_bins[left], self.y_bins[top], self.x_bins[right], self.y_bins[bottom]]
        (y0, y1), (x0, x1) = self._pixels(box)
        ys, xs = axis(y1 - y0, self.rows), axis(x1 - x0, self.columns)
        covered = np.add.reduceat(mask[y0:y1, x0:x1], ys.starts, axis=0, dtype=np.int64)
        covered = np.add.reduceat(covered, xs.starts, axis=1)  # (cells down, cells across): pixels of the mask
        cells = 2 * covered >= ys.widths[:, None] * xs.widths
        for set_, part in (
            (cells, covered),
            (cells[::-1], covered[::-1]),
            (cells.T, covered.T),
            (cells.T[::-1], covered.T[::-1]),
        ):
            if not set_[0].any():
                # With bins of many pixels the outermost cells may contain no pixel of the mask; the nearest that do are used then.
                set_[0, part[part.any(1).argmax()].argmax()] = True
        return box, (cells[ys.spread][:, xs.spread] @ self.weights).tolist()

    def _pixels(self, box: list[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """First pixel of the box's bins and the pixel after the last, along y, then along x."""
        down = bisect_left(self.y_bins, box[1]), bisect_right(self.y_bins, box[3])
        return down, (bisect_left(self.x_bins, box[0]), bisect_right(self.x_bins, box[2]))

    def parse(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        instances = []
        for n, (name, *numbers) in enumerate(self.parse_items(ids, self.slots, problems)):
            box, rows = numbers[:4], numbers[4:]
            (y0, y1), (x0, x1) = self._pixels(box)
            if y0 >= y1 or x0 >= x1:
                problems.append(f"instance {n}: its box is reversed or holds no pixel, bins {box}")
                continue
            ys, xs = axis(y1 - y0, self.rows), axis(x1 - x0, self.columns)
            grid = (np.array(rows)[:, None] & self.weights) > 0
            cells = grid[ys.pick][:, xs.pick]
            mask = np.zeros(self.spec.size, bool)
            mask[y0:y1, x0:x1] = cells.repeat(ys.widths, 0).repeat(xs.widths, 1)
            if mask.any():
                instances.append({"class": name, "mask": mask})
            else:
                problems.append(f"instance {n}: its mask is empty")
        return instances


def _extent(mask: NDArray[np.bool_], across: int) -> tuple[int, int]:
    """First and last row (across 1) or column (across 0) with a pixel of the mask, which must not be empty."""
    held = np.logical_or.reduce(mask, axis=across)
    return int(held.argmax()), len(held) - 1 - int(held[::-1].argmax())
