"""Aligned transforms: one crop, flip and resize for all values of a view, applied to each as its type asks.

A `Geometry` is relative to the picture, so values of one sample may differ in resolution. What happens to a value is its type's
`transform`. Views (the entry's `view`) are cropped independently of each other; values of one or three axes are resized alone.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.geometry import Geometry

SAME_ASPECT = 0.03
"""Aspect ratios that differ by less than this fraction are taken as equal: sizes are whole numbers."""


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


def apply(sample: Mapping[str, Any], catalog: Catalog, geometry: Geometry) -> dict[str, Any]:
    """Crop and flip a sample, each dense value resized to its entry's `value.size`.

    Args:
        sample: `{modality: value}`, checked values of any size.
        catalog: entries of all the sample's modalities.
        geometry: what to keep, and whether to flip.

    Returns:
        the sample, without the values that cannot be flipped.

    Raises:
        MaskweaveError: an unknown modality, or a crop or flip of a value of three axes.
    """
    moved = {name: _transformed(value, catalog[name], geometry) for name, value in sample.items()}
    return {name: value for name, value in moved.items() if value is not None}


def fit(sample: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Bring a sample to its entries' sizes: per view the largest centered crop of the right aspect ratio, then a resize.

    Values without two axes are resized alone.

    Raises:
        BadSample: pictures of one view differ in aspect ratio.
        MaskweaveError: an unknown modality, or entries of one view that differ in aspect ratio.
    """
    crops = {view: _crop(sample, catalog, view) for view in {catalog[name].view for name in sample}}
    fitted = {}
    for name, value in sample.items():
        modality = catalog[name]
        alone = len(modality.value.size) in (1, 3)
        fitted[name] = _transformed(value, modality, Geometry() if alone else crops[modality.view])
    return fitted


def _crop(sample: Mapping[str, Any], catalog: Catalog, view: str) -> Geometry:
    """The crop that brings all pictures of a view to their entries' aspect ratio."""
    shapes: dict[str, tuple[int, int]] = {}
    target: tuple[str, float] | None = None
    for name, value in sample.items():
        modality = catalog[name]
        size = modality.value.size
        found = modality.value.extent(value) if len(size) == 2 and modality.view == view else None
        if found is None:  # text, vectors and spectra do not count
            continue
        shapes[name] = (found[0], found[1])
        target = target or (name, size[1] / size[0])
        if _differ(size[1] / size[0], target[1]):
            raise MaskweaveError(
                f"{catalog.where}: {target[0]!r} and {name!r} cannot be cropped alike: their value.size differ in aspect ratio "
                f"({target[1]:.3g} and {size[1] / size[0]:.3g} wide to high); give one of them a 'view' of its own"
            )
    if target is None:
        return Geometry()
    largest = max(shapes, key=lambda name: math.prod(shapes[name]))
    aspect = shapes[largest][1] / shapes[largest][0]
    for name, shape in shapes.items():
        one_point = 1 / min(shape)  # halved sizes are rounded
        if _differ(shape[1] / shape[0], aspect, SAME_ASPECT + one_point):
            raise BadSample(
                f"{largest!r} is {_by(shapes[largest])} and {name!r} is {_by(shape)}: values of one view show the same frame, so their aspect "
                "ratios must agree; crop one of them, or give its entry a 'view' of its own"
            )
    if aspect > target[1]:
        margin = (1 - target[1] / aspect) / 2
        return Geometry((margin, 0.0, 1 - margin, 1.0))
    if aspect < target[1]:
        margin = (1 - aspect / target[1]) / 2
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
