"""Georeferences through generation: outputs are written as GeoTIFF at the place of their input."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskweave.data.transforms import centered_crop
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.formats import PLANES, split_ending

if TYPE_CHECKING:
    from maskweave.values.formats.georeference import Georeference


class Place(NamedTuple):
    """Where the frame of a view is."""

    position: "Georeference"
    """Of a plane of `size` points."""
    size: tuple[float, float]
    """Height and width in points of the input."""


def find_places(inputs: Mapping[str, Any], catalog: Catalog, tiled: bool = False) -> dict[str, Place]:
    """Returns the place of each view that has a georeferenced TIFF among the inputs, given as its path; the first one counts.

    Args:
        tiled: the inputs are scenes of any size; otherwise they are cropped and resized to their entries' sizes.
    """
    places: dict[str, Place] = {}
    for name, value in inputs.items():
        modality = catalog[name]
        is_path = isinstance(value, (str, os.PathLike)) and not modality.value.is_text
        if not is_path or len(modality.value.size) != 2 or modality.view in places:
            continue
        path = Path(value)
        if split_ending(path.name)[1] in PLANES and path.is_file():
            place = _place_of(path, modality, tiled)
            if place is not None:
                places[modality.view] = place
    return places


def _place_of(path: Path, modality: Modality, tiled: bool) -> Place | None:
    from maskweave.values.formats.georeference import read_georeference

    found = read_georeference(path)
    if found is None:
        return None
    position, (height, width) = found
    size = modality.value.size
    if tiled:
        return Place(position, (float(size[0]), float(size[1])))
    if modality.value.follows_view:
        left, top, right, bottom = centered_crop(width / height, size[1] / size[0]).window(height, width)
        return Place(position.part(left, top), (bottom - top, right - left))
    if (height, width) != tuple(size) and getattr(modality.value, "ways", ()) not in (
        ("resize",),
        ("resize", "resize"),
    ):
        return None  # padded, or cut along one axis
    return Place(position, (float(height), float(width)))


def as_geotiff(value: Any, modality: Modality, places: Mapping[str, Place]) -> bytes | None:
    """Returns a predicted plane as a GeoTIFF at the place of its view; None if it has none, or is no plane.

    Raises:
        BadSample: its ids are too large.
    """
    place = places.get(modality.view)
    if place is None or len(modality.value.size) != 2 or not isinstance(value, np.ndarray):
        return None
    from maskweave.values.formats.georeference import write_geotiff

    height, width = modality.value.size
    position = place.position.resized(place.size[1] / width, place.size[0] / height)
    names = getattr(modality.value, "channel_names", ())
    return write_geotiff(value, position, names, modality.value.unit)
