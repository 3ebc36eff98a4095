"""Crops, flips and resizing in relative coordinates, so that the values of one sample may differ in resolution.

Shapes: H height, W width, C channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from maskweave.errors import BadSample, MaskweaveError

FULL = (0.0, 0.0, 1.0, 1.0)
WHOLE = 0.999
"""A box counts as uncut if at least this share of its area is kept."""


@dataclass(frozen=True)
class Geometry:
    """A crop, optionally followed by a flip."""

    crop: tuple[float, float, float, float] = FULL
    """Part to keep, (xmin, ymin, xmax, ymax), 0 to 1 from the top left."""
    flip: bool = False
    """Mirror left and right."""
    visible: float = 0.25
    """Boxes are dropped if less than this share of their area is kept."""

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.crop
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise MaskweaveError(f"crop must be (xmin, ymin, xmax, ymax) with 0 ≤ min < max ≤ 1, found {self.crop}")

    def window(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The crop in points of a value, (left, top, right, bottom)."""
        x0, y0, x1, y1 = self.crop
        return x0 * width, y0 * height, x1 * width, y1 * height

    def move_box(self, box: list[float], visible: float | None = None) -> list[float] | None:
        """Returns a box [xmin, ymin, xmax, ymax] after crop and flip; None if less than the share `visible` of its area is left."""
        visible = self.visible if visible is None else visible
        x0, y0, x1, y1 = self.crop
        width, height = x1 - x0, y1 - y0
        left, top = max(box[0], x0), max(box[1], y0)
        right, bottom = min(box[2], x1), min(box[3], y1)
        if (
            right <= left
            or bottom <= top
            or (right - left) * (bottom - top) < visible * (box[2] - box[0]) * (box[3] - box[1])
        ):
            return None
        left, right = (left - x0) / width, min((right - x0) / width, 1.0)
        if self.flip:
            left, right = 1 - right, 1 - left
        return [left, (top - y0) / height, right, min((bottom - y0) / height, 1.0)]

    def move_point(self, x: float, y: float) -> list[float] | None:
        """Returns a point after crop and flip; None if it is cut off."""
        x0, y0, x1, y1 = self.crop
        if not (x0 <= x <= x1 and y0 <= y <= y1):
            return None
        x, y = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return [1 - x if self.flip else x, y]


def nearest(start: float, stop: float, points: int, limit: int) -> np.ndarray:
    """Index of the source point under the middle of each target point."""
    middles = start + (np.arange(points) + 0.5) * ((stop - start) / points)
    return np.clip(np.floor(middles + 1e-9).astype(np.intp), 0, limit - 1)


def resize_nearest(value: np.ndarray, size: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """Crop and resize a plane (H, W[, C]) to `size` by its nearest points."""
    left, top, right, bottom = geometry.window(*value.shape[:2])
    rows, columns = nearest(top, bottom, size[0], value.shape[0]), nearest(left, right, size[1], value.shape[1])
    return value[rows[:, None], columns]


def resize_area(value: np.ndarray, size: tuple[int, ...], geometry: Geometry, sharp: bool = False) -> np.ndarray:
    """Crop and resize a plane (H, W[, C]) to `size`, antialiased; uint8 stays uint8, everything else becomes float32.

    Args:
        sharp: use the mean over the area of each target point; otherwise a triangle filter of twice its width, which is smoother.
    """
    from PIL import Image

    window = geometry.window(*value.shape[:2])
    dtype = np.uint8 if value.dtype == np.uint8 else np.float32
    how = Image.Resampling.BOX if sharp else Image.Resampling.BILINEAR
    # Points outside the window are cut off first, so that the filter cannot mix them in.
    left, top = math.floor(window[0] + 1e-6), math.floor(window[1] + 1e-6)
    value = value[top : math.ceil(window[3] - 1e-6), left : math.ceil(window[2] - 1e-6)]
    box = (
        max(window[0] - left, 0.0),
        max(window[1] - top, 0.0),
        min(window[2] - left, value.shape[1]),
        min(window[3] - top, value.shape[0]),
    )

    def resize(plane: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(plane, dtype))
        return np.array(picture.resize((size[1], size[0]), how, box=box))

    if value.ndim == 2 or (dtype is np.uint8 and value.shape[2] == 3):
        return resize(value)
    return np.stack([resize(value[..., c]) for c in range(value.shape[2])], -1)


def resize_axes(value: np.ndarray, size: tuple[int, ...], largest: bool = False) -> np.ndarray:
    """Resize a value of one or three axes (*axes[, C]) as float32: by area along axes that shrink, linearly along axes that grow.

    Args:
        largest: use the largest point along axes that shrink and the nearest along axes that grow, so that thin marks survive.
    """
    axes, found = len(size), value.shape[: len(size)]
    flat = value.reshape(*found, -1)
    x = torch.from_numpy(np.moveaxis(flat, -1, 0).astype(np.float32))[None]  # (1, C, *axes)
    smaller: Any = [min(n, s) for n, s in zip(found, size, strict=True)]
    pool: Callable[..., Any]
    if largest:
        pool = F.adaptive_max_pool1d if axes == 1 else F.adaptive_max_pool3d
        x = F.interpolate(pool(x, smaller), size=list(size), mode="nearest-exact")
    else:
        pool = F.adaptive_avg_pool1d if axes == 1 else F.adaptive_avg_pool3d
        x = F.interpolate(pool(x, smaller), size=list(size), mode="linear" if axes == 1 else "trilinear")
    return np.moveaxis(x[0].numpy(), 0, -1).reshape(*size, *value.shape[axes:])


def nearest_along_axes(value: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize a value of any number of axes by its nearest points."""
    index = [nearest(0.0, float(n), s, n) for n, s in zip(value.shape[: len(size)], size, strict=True)]
    return value[np.ix_(*index)]


def box_around(mask: np.ndarray) -> list[float]:
    """Returns the box [xmin, ymin, xmax, ymax] around the true points of a bool (H, W) mask, 0 to 1 from the top left.

    Raises:
        BadSample: the mask is empty.
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not columns.size:
        raise BadSample("an instance's mask is empty, expected at least one true point; leave the instance out")
    height, width = mask.shape
    return [
        int(columns[0]) / width,
        int(rows[0]) / height,
        (int(columns[-1]) + 1) / width,
        (int(rows[-1]) + 1) / height,
    ]


def corner_first(items: list[Any], box: Callable[[Any], list[float]]) -> list[Any]:
    """Sorts items in 4M's order: by the squared distance of their box's top-left corner from that of the picture. Ties keep their order.

    Args:
        box: returns the [xmin, ymin, xmax, ymax] of an item.
    """
    corners = [box(item) for item in items]
    order = sorted(range(len(items)), key=lambda k: corners[k][0] ** 2 + corners[k][1] ** 2)
    return [items[k] for k in order]
