"""Aligned transforms: one crop, flip and resize, applied to every value of a sample as its type asks.

A `Geometry` is relative to the picture, so values of one sample may differ in resolution. What happens to a value of each type:

| value type | crop and resize | flip |
| --- | --- | --- |
| image, map, features | averaged over the area (antialiased) | mirrored |
| direction | averaged, then unit length again | mirrored, x changes sign |
| classes | nearest | mirrored |
| binary | averaged, then cut so that lines one point wide survive | mirrored |
| boxes | clipped; dropped where too little is left | mirrored |
| instances | nearest; dropped where nothing is left | mirrored |
| poses | boxes clipped; dropped where too little is left | people without parts are mirrored |
| queries | points left outside are dropped, boxes as above | points without parts are mirrored |
| text | as it is | left and right change places |
| palette, metadata, vector | as they are | as they are |

Boxes and instances are returned in 4M's order. Lattices of one or three axes are resized alone. No rule mirrors the codes of a pose or of a
mask, so poses and queries that have parts are missing after a flip. Otherwise parts stay as they are: those of a pose are relative to
the camera, and the codes of a mask to its box, which is why an instance whose box is cut by the crop is dropped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskweave.errors import BadSample, MaskweaveError
from maskweave.label.measures import corner_first, extent
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import DENSE_TYPES, Modality
from maskweave.synthetic.grammar import mirror

FULL = (0.0, 0.0, 1.0, 1.0)
WHOLE = 0.999
"""A box of which this share is kept counts as uncut."""
SAME_ASPECT = 0.03
"""Aspect ratios that differ by less than this fraction are taken as equal: sizes are whole numbers."""


@dataclass(frozen=True)
class Geometry:
    """A crop, and then perhaps a flip."""

    crop: tuple[float, float, float, float] = FULL
    """Part that is kept, (xmin, ymin, xmax, ymax), 0 to 1 from the top left."""
    flip: bool = False
    """Mirror left and right."""

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.crop
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise MaskweaveError(f"crop must be (xmin, ymin, xmax, ymax) with 0 ≤ min < max ≤ 1, found {self.crop}")

    @property
    def is_identity(self) -> bool:
        return self.crop == FULL and not self.flip


def random_geometry(
    rng: np.random.Generator,
    area: tuple[float, float] = (0.5, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Geometry:
    """Draw a random resized crop, as in "Going deeper with convolutions" (https://arxiv.org/abs/1409.4842), section 6.

    Args:
        rng: source of randomness.
        area: least and most share of the picture that is kept.
        aspect: least and most stretch, width over height in relative units; drawn evenly in the logarithm.
        flip: probability of a flip.

    Raises:
        MaskweaveError: a range is empty or outside what a crop can be.
    """
    if not (0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1] and 0 <= flip <= 1):
        raise MaskweaveError(
            f"random crops need 0 < area ≤ 1, 0 < aspect, 0 ≤ flip ≤ 1, low before high; found {area}, {aspect}, {flip}"
        )
    share = rng.uniform(*area)
    stretch = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    stretch = min(max(stretch, share), 1 / share)  # what still fits into the picture
    width, height = min(math.sqrt(share * stretch), 1.0), min(math.sqrt(share / stretch), 1.0)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return Geometry((x, y, min(x + width, 1.0), min(y + height, 1.0)), bool(rng.random() < flip))


def apply(sample: Mapping[str, Any], catalog: Catalog, geometry: Geometry, visible: float = 0.25) -> dict[str, Any]:
    """Crop and flip a sample, each lattice value resized to its entry's `value.size`.

    Args:
        sample: `{modality: value}`, values as `maskweave.modality.entry.Value` says, of any size.
        catalog: entries of all the sample's modalities.
        geometry: what to keep, and whether to flip.
        visible: boxes of which less than this share of the area is kept are dropped.

    Returns:
        the sample, without the values that cannot be flipped.

    Raises:
        BadSample: a value has another shape than its type asks.
        MaskweaveError: an unknown modality, or a crop or flip of a lattice of three axes.
    """
    moved = {name: _transformed(value, catalog[name], geometry, visible) for name, value in sample.items()}
    return {name: value for name, value in moved.items() if value is not None}


def fit(sample: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Bring a sample to its entries' sizes: the largest centered crop of the right aspect ratio, the same for all values, then a resize.

    Values that are no pictures (lattices of one or three axes) are resized alone.

    Raises:
        BadSample: a value has another shape than its type asks, or the pictures differ in aspect ratio.
        MaskweaveError: an unknown modality, or entries of differing aspect ratio.
    """
    shapes: dict[str, tuple[int, int]] = {}
    target: tuple[str, float] | None = None
    for name, value in sample.items():
        modality = catalog[name]
        size = modality.value.size
        found = _lattice(value, modality) if len(size) == 2 else None  # text, vectors and spectra have no say
        if found is None:
            continue
        shapes[name] = (found[0], found[1])
        target = target or (name, size[1] / size[0])
        if _differ(size[1] / size[0], target[1]):
            raise MaskweaveError(
                f"{catalog.where}: {target[0]!r} and {name!r} cannot be cropped alike: their value.size differ in aspect ratio ({target[1]:.3g} and {size[1] / size[0]:.3g} wide to high)"
            )
    if target is None:
        return apply(sample, catalog, Geometry())
    largest = max(shapes, key=lambda name: math.prod(shapes[name]))
    aspect = shapes[largest][1] / shapes[largest][0]
    for name, shape in shapes.items():
        one_point = 1 / min(shape)  # halved sizes are rounded
        if _differ(shape[1] / shape[0], aspect, SAME_ASPECT + one_point):
            raise BadSample(
                f"{largest!r} is {_by(shapes[largest])} and {name!r} is {_by(shape)}: aligned values show the same view, so their aspect ratios must agree"
            )
    crop = FULL
    if aspect > target[1]:
        margin = (1 - target[1] / aspect) / 2
        crop = (margin, 0.0, 1 - margin, 1.0)
    elif aspect < target[1]:
        margin = (1 - aspect / target[1]) / 2
        crop = (0.0, margin, 1.0, 1 - margin)
    geometry = Geometry(crop)
    lone = {name for name in sample if len(catalog[name].value.size) in (1, 3)}
    return {
        name: _transformed(value, catalog[name], Geometry() if name in lone else geometry, visible=0.25)
        for name, value in sample.items()
    }


def _transformed(value: Any, modality: Modality, geometry: Geometry, visible: float) -> Any:
    """The value after crop and flip, None where it cannot be flipped."""
    if modality.kind == "vectors":
        return value
    match modality.value.type:
        case "text":
            return mirror(value) if geometry.flip else value
        case "boxes":
            moved = [
                {**item, "box": box} for item in value if (box := _moved(item["box"], geometry, visible)) is not None
            ]
            return corner_first(moved, lambda item: item["box"])
        case "poses":
            if geometry.flip and any(len(person) > 1 for person in value):
                return None
            return [
                {**person, "box": box}
                for person in value
                if (box := _moved(person["box"], geometry, visible)) is not None
            ]
        case "queries":
            if geometry.flip and any(len(found) > 1 for query in value for found in query["instances"]):
                return None
            return [kept for query in value if (kept := _moved_query(query, geometry)) is not None]
        case "instances":
            _lattice(value, modality)
            masks = [
                {**item, "mask": _resized(item["mask"], "classes", modality.value.size, geometry)} for item in value
            ]
            return corner_first([item for item in masks if item["mask"].any()], lambda item: extent(item["mask"]))
        case kind if kind in DENSE_TYPES:
            _lattice(value, modality)
            size = modality.value.size
            if len(size) == 2:
                return _resized(value, kind, size, geometry)
            if len(size) == 3 and not geometry.is_identity:
                raise MaskweaveError(
                    f"modality {modality.name!r}: only pictures can be cropped and flipped, its lattice has 3 axes; use fit"
                )
            return _resized_lattice(value, kind, size)
        case _:
            return value


def _lattice(value: Any, modality: Modality) -> tuple[int, ...] | None:
    """A value's extent along its lattice, None if it has none (no instances, say)."""
    spec = modality.value
    if modality.kind == "vectors" or spec.type not in (*DENSE_TYPES, "instances"):
        return None
    channels: tuple[int, ...] = ()
    if spec.type == "instances":
        shapes = {item["mask"].shape for item in value}
        if len(shapes) > 1:
            raise BadSample(
                f"{modality.name!r}: masks of one sample have one size, found {', '.join(map(str, sorted(shapes)))}"
            )
        if not shapes:
            return None
        shape, axes = next(iter(shapes)), 2
    else:
        shape, axes = np.shape(value), len(spec.size)
        channels = (
            (spec.channels,)
            if spec.type in ("image", "direction") or (spec.type in ("map", "features") and len(shape) > axes)
            else ()
        )
    if len(shape) != axes + len(channels) or shape[axes:] != channels or 0 in shape:
        wanted = ", ".join([*(["height", "width"] if axes == 2 else ["points"] * axes), *map(str, channels)])
        raise BadSample(f"{modality.name!r}: found a value of shape {tuple(shape)}, expected ({wanted})")
    return tuple(shape[:axes])


def _moved(box: list[float], geometry: Geometry, visible: float) -> list[float] | None:
    """A box after the crop and flip, None where too little of it is left."""
    x0, y0, x1, y1 = geometry.crop
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
    if geometry.flip:
        left, right = 1 - right, 1 - left
    return [left, (top - y0) / height, right, min((bottom - y0) / height, 1.0)]


def _moved_query(query: Mapping[str, Any], geometry: Geometry) -> dict[str, Any] | None:
    """A point and what was found there, None where it or all that was found there is cut off."""
    x, y = query["point"]
    x0, y0, x1, y1 = geometry.crop
    instances = [
        {**found, "box": box}
        for found in query["instances"]
        if (box := _moved(found["box"], geometry, visible=WHOLE)) is not None
    ]
    if not (x0 <= x <= x1 and y0 <= y <= y1) or (query["instances"] and not instances):
        return None
    x, y = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
    return {"point": [1 - x if geometry.flip else x, y], "instances": instances}


def _resized(value: np.ndarray, kind: str, size: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """Crop, resize and flip a value over a lattice (height, width)."""
    value = np.asarray(value)
    height, width = value.shape[:2]
    x0, y0, x1, y1 = geometry.crop
    window = (x0 * width, y0 * height, x1 * width, y1 * height)  # in points of the value
    if geometry.crop == FULL and (height, width) == tuple(size):
        out = value.copy()
    elif kind == "classes":
        out = value[
            _nearest(window[1], window[3], size[0], height)[:, None], _nearest(window[0], window[2], size[1], width)
        ]
    elif kind == "binary":
        shrink = max((window[2] - window[0]) / size[1], (window[3] - window[1]) / size[0], 1.0)
        # a line one point wide covers 1/shrink of a target point, half of that where it lies across two
        out = _averaged(value.astype(np.float32), size, window, sharp=True) >= 0.5 / shrink - 1e-4
    else:
        out = _averaged(value, size, window)
        if kind == "direction":
            rows, columns = (
                _nearest(window[1], window[3], size[0], height),
                _nearest(window[0], window[2], size[1], width),
            )
            out = _unit(out, value[rows[:, None], columns])
    if geometry.flip:
        out = out[:, ::-1].copy()
        if kind == "direction":
            out[..., 0] *= -1
    return out


def _nearest(start: float, stop: float, points: int, limit: int) -> np.ndarray:
    """Index of the source point under the middle of each target point."""
    middles = start + (np.arange(points) + 0.5) * ((stop - start) / points)
    return np.clip(np.floor(middles + 1e-9).astype(np.intp), 0, limit - 1)


def _averaged(value: np.ndarray, size: tuple[int, ...], window: tuple[float, ...], sharp: bool = False) -> np.ndarray:
    """Antialiased resize of a window of (height, width) or (height, width, channels), of the value's type.

    Args:
        value: uint8, or anything that float32 holds.
        size: target height and width.
        window: (xmin, ymin, xmax, ymax) in points of the value, fractions allowed.
        sharp: the plain mean over each target point's area; else a triangle of twice its width, which is smoother.
    """
    from PIL import Image

    dtype = np.uint8 if value.dtype == np.uint8 else np.float32
    how = Image.Resampling.BOX if sharp else Image.Resampling.BILINEAR
    # what lies outside the window is cut off first, or the filter would let it shine in
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


def _unit(vectors: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """Vectors of length 1; where opposite ones canceled, the nearest original."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-3, vectors / np.maximum(length, 1e-3), instead).astype(np.float32)


def _resized_lattice(value: np.ndarray, kind: str, size: tuple[int, ...]) -> np.ndarray:
    """Resize a value over a lattice of one or three axes: area when it shrinks, linear when it grows."""
    value = np.asarray(value)
    axes, found = len(size), value.shape[: len(size)]
    if found == tuple(size):
        return value.copy()
    index = [_nearest(0.0, float(n), s, n) for n, s in zip(found, size, strict=True)]
    nearest = value[np.ix_(*index)]
    if kind == "classes":
        return nearest
    import torch
    from torch.nn.functional import (
        adaptive_avg_pool1d,
        adaptive_avg_pool3d,
        adaptive_max_pool1d,
        adaptive_max_pool3d,
        interpolate,
    )

    flat = value.reshape(*found, -1)
    x = torch.from_numpy(np.moveaxis(flat, -1, 0).astype(np.float32))[None]  # (1, channels, *lattice)
    smaller: Any = [min(n, s) for n, s in zip(found, size, strict=True)]
    if kind == "binary":
        x = (adaptive_max_pool1d if axes == 1 else adaptive_max_pool3d)(x, smaller)
        x = interpolate(x, size=list(size), mode="nearest-exact")
    else:
        x = (adaptive_avg_pool1d if axes == 1 else adaptive_avg_pool3d)(x, smaller)
        x = interpolate(x, size=list(size), mode="linear" if axes == 1 else "trilinear")
    out = np.moveaxis(x[0].numpy(), 0, -1).reshape(*size, *value.shape[axes:])
    match kind:
        case "binary":
            return out > 0.5
        case "direction":
            return _unit(out, nearest)
        case "image":
            return np.rint(out).clip(0, 255).astype(np.uint8)
        case _:
            return out.astype(np.float32)


def _differ(a: float, b: float, tolerance: float = 1e-6) -> bool:
    return abs(a / b - 1) > tolerance


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]}×{shape[1]}"
