"""Aligned transforms: the same crop, flip and resize for all values of a view.

A `Geometry` is relative to the picture, so the values of a sample may differ in resolution. The value type's `transform` applies it to a value.
Views (the entry's `view`) are cropped and flipped independently of each other. All planes of a video or a volume get the same crop and flip. Values
of one axis are not cropped.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from maskweave.data.parts import read_part
from maskweave.data.weights import weights_of
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.geometry import Geometry, nearest_along_axes
from maskweave.values.remarks import remark

SAME_ASPECT = 0.03
"""Aspect ratios that differ by less than this fraction are taken as equal: sizes are whole numbers."""


def random_geometry(
    rng: np.random.Generator,
    area: tuple[float, float] = (0.5, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Geometry:
    """Sample a random resized crop, as in "Going deeper with convolutions" (https://arxiv.org/abs/1409.4842), section 6.

    Args:
        rng: random generator.
        area: minimum and maximum share of the picture that is kept.
        aspect: minimum and maximum of width over height in relative units; uniform in the logarithm.
        flip: probability of a flip.

    Raises:
        MaskweaveError: a range is empty or invalid for a crop.
    """
    if not (0 < area[0] <= area[1] <= 1 and 0 < aspect[0] <= aspect[1] and 0 <= flip <= 1):
        raise MaskweaveError(
            f"random crops: found area {area}, aspect {aspect}, flip {flip}; expected area and aspect as minimum and maximum, "
            "area above 0 up to 1, aspect above 0, flip from 0 to 1"
        )
    share = rng.uniform(*area)
    stretch = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    stretch = min(max(stretch, share), 1 / share)  # so that the crop fits into the picture
    width, height = min(math.sqrt(share * stretch), 1.0), min(math.sqrt(share / stretch), 1.0)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return Geometry((x, y, min(x + width, 1.0), min(y + height, 1.0)), bool(rng.random() < flip))


def apply(
    sample: Mapping[str, Any], catalog: Mapping[str, Modality], geometries: Mapping[str, Geometry]
) -> dict[str, Any]:
    """Crop and flip a sample, each dense value resized to its entry's `value.size`.

    Args:
        sample: `{modality: value}`, checked values of any size.
        catalog: entries of all the sample's modalities.
        geometries: the crop, and whether to flip, of every view (the entry's `view`). Values of one axis are not cropped.

    Returns:
        the sample, without the values that cannot be flipped.

    Raises:
        MaskweaveError: a modality is unknown.
    """
    moved = {name: _transformed(value, catalog[name], geometries[catalog[name].view]) for name, value in sample.items()}
    return {name: value for name, value in moved.items() if value is not None}


def fit(sample: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Resize a sample to its entries' sizes: for each view the largest centered crop of the entries' aspect ratio, then a resize.

    Points that a mask of the sample (the entry's `valid`) says are unknown become so, and so do points of weight 0 (the entry's `weight`). Values of one axis, and those that are fitted axis by axis, are not cropped.

    Raises:
        BadSample: pictures of one view differ in aspect ratio.
        MaskweaveError: a modality is unknown, or entries of one view differ in aspect ratio.
    """
    crops = {view: _crop(sample, catalog, view) for view in {catalog[name].view for name in sample}}
    fitted = {}
    for name, value in sample.items():
        modality = catalog[name]
        crop = crops[modality.view]
        planar = len(modality.value.size) > 1 and modality.value.extent(value) is not None
        if planar and not modality.value.follows_view and crop != Geometry():
            raise BadSample(
                f"{name!r} and the pictures of its view cannot be fitted together: they are cropped, and value.fit of {name!r} is "
                f"{' and '.join(getattr(modality.value, 'fit', ()))}; set both to crop, or give {name!r} its own 'view'"
            )
        has_planes = len(modality.value.size) != 1
        result = read_part(name, partial(_fitted, value, modality, crop if has_planes else Geometry()))
        if result is not None:
            fitted[name] = result
    hidden = {
        name: read_part(name, partial(_hidden, fitted, catalog[name])) for name in fitted if catalog[name].depends_on
    }
    return {name: hidden.get(name, value) for name, value in fitted.items() if hidden.get(name, value) is not None}


def _hidden(sample: Mapping[str, Any], modality: Modality) -> Any:
    """Returns a value whose points are unknown where the sample's mask says so, or where they weigh nothing; None if none are known."""
    value = given = sample[modality.name]
    if modality.valid is not None:
        if (mask := sample.get(modality.valid.source)) is None:
            remark(f"values without a mask in {modality.valid.source!r}: all their points count as known")
        else:
            value = modality.value.hide(value, nearest_along_axes(np.asarray(mask) > 0, modality.value.size))
    if modality.weight and sample.get(modality.weight) is None:
        remark(f"values without weights in {modality.weight!r}: all their points weigh as much as the average")
    elif modality.weight:
        weights = weights_of(sample, modality)
        if not weights.any():
            remark("values that weigh nothing count as missing")
            return None
        if modality.value.has_unknown:
            value = modality.value.hide(value, weights > 0)
    if value is not given and modality.value.is_missing(value):
        remark("values that say nothing count as missing")
        return None
    return value


def _fitted(value: Any, modality: Modality, geometry: Geometry) -> Any:
    return _transformed(modality.value.fit_sizes(value, f"modality {modality.name!r}"), modality, geometry)


def _crop(sample: Mapping[str, Any], catalog: Catalog, view: str) -> Geometry:
    """The crop that gives all pictures of a view their entries' aspect ratio."""
    shapes: dict[str, tuple[int, int]] = {}
    target: tuple[str, float] | None = None
    for name, value in sample.items():
        modality = catalog[name]
        size = modality.value.size
        planar = len(size) in (2, 3) and modality.view == view and modality.value.follows_view
        found = modality.value.extent(value) if planar else None
        if found is None:  # text, vectors and spectra are not cropped
            continue
        shapes[name] = (found[-2], found[-1])
        target = target or (name, size[-1] / size[-2])
        if _differ(size[-1] / size[-2], target[1]):
            raise MaskweaveError(
                f"{catalog.where}: {target[0]!r} and {name!r} cannot have the same crop: their value.size differ in aspect ratio "
                f"(width / height {target[1]:.3g} and {size[-1] / size[-2]:.3g}); give one of them its own 'view'"
            )
    if target is None:
        return Geometry()
    largest = max(shapes, key=lambda name: math.prod(shapes[name]))
    aspect = shapes[largest][1] / shapes[largest][0]
    for name, shape in shapes.items():
        one_point = 1 / min(shape)  # halved sizes are rounded to whole points
        if _differ(shape[1] / shape[0], aspect, SAME_ASPECT + one_point):
            raise BadSample(
                f"{largest!r} is {_by(shapes[largest])} and {name!r} is {_by(shape)}: values of one view show the same frame, so their aspect "
                "ratios must agree; crop one of them, or give its entry its own 'view'"
            )
    return centered_crop(aspect, target[1])


def centered_crop(aspect: float, target: float) -> Geometry:
    """Returns the largest centered crop of a picture that has another aspect ratio; ratios are width over height."""
    if aspect > target:
        margin = (1 - target / aspect) / 2
        return Geometry((margin, 0.0, 1 - margin, 1.0))
    if aspect < target:
        margin = (1 - aspect / target) / 2
        return Geometry((0.0, margin, 1.0, 1 - margin))
    return Geometry()


def _transformed(value: Any, modality: Modality, geometry: Geometry) -> Any:
    try:
        return modality.value.transform(value, geometry)
    except MaskweaveError as error:
        raise type(error)(f"modality {modality.name!r}: {error}") from error


def _differ(a: float, b: float, tolerance: float = 1e-6) -> bool:
    return abs(a / b - 1) > tolerance


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]}×{shape[1]}"
