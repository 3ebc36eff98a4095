"""Where a plane is on the ground: read from GeoTIFF, moved with crops and sizes, and written to GeoTIFF, with rasterio (extra `[geo]`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskweave.errors import BadSample
from maskweave.values.formats.tiff import opened, plain

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: column and row (from the top left) are at x = a · column + b · row + c, y = d · column + e · row + f."""
_NOWHERE: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Georeference:
    """The position of a plane."""

    crs: str
    """Coordinate reference system as WKT; empty: the file names none."""
    transform: Affine

    def part(self, column: float, row: float) -> "Georeference":
        """Returns the position of the part that starts at a point."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a, b, a * column + b * row + c, d, e, d * column + e * row + f))

    def resized(self, columns: float, rows: float) -> "Georeference":
        """Returns the position of the same plane with points that are `columns` times as wide and `rows` times as high."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a * columns, b * rows, c, d * columns, e * rows, f))


def read_georeference(path: Path) -> tuple[Georeference, tuple[int, int]] | None:
    """Returns the position of a TIFF and its size (H, W); None if it is not georeferenced.

    Raises:
        BadSample: the file is damaged.
    """
    with opened(path) as dataset:
        crs = dataset.crs.to_wkt() if dataset.crs else ""
        transform = tuple(dataset.transform)[:6]
        size = int(dataset.height), int(dataset.width)
    return None if not crs and transform == _NOWHERE else (Georeference(crs, transform), size)


def write_geotiff(array: np.ndarray, place: Georeference, names: Sequence[str] = (), unit: str = "") -> bytes:
    """Returns a plane as a GeoTIFF, compressed without loss.

    Args:
        array: (H, W) or (H, W, C). Floats are written as float32 with nodata NaN. Ids are written as uint8, or uint16 for ids from 255; if some are
            unknown (-1), nodata is 255 or 65535.
        names: descriptions of the channels.

    Raises:
        BadSample: ids are too large.
    """
    from rasterio.crs import CRS
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine as Transform

    planes = array if array.ndim == 3 else array[..., None]
    nodata: float | None = None
    if planes.dtype.kind == "f":
        planes, nodata = planes.astype(np.float32), float("nan")
    elif planes.dtype == bool:
        planes = planes.astype(np.uint8)
    elif planes.dtype != np.uint8:
        largest, has_unknown = int(planes.max(initial=0)), bool((planes < 0).any())
        kind = np.uint8 if largest < 255 else np.uint16
        if largest >= np.iinfo(np.uint16).max or planes.min(initial=0) < -1:
            raise BadSample(f"found ids from {planes.min()} to {largest}; expected at most 65534 for a GeoTIFF")
        nodata = float(np.iinfo(kind).max) if has_unknown else None
        planes = np.where(planes < 0, np.iinfo(kind).max, planes).astype(kind)
    profile = {
        "driver": "GTiff",
        "height": planes.shape[0],
        "width": planes.shape[1],
        "count": planes.shape[2],
        "dtype": planes.dtype,
        "nodata": nodata,
        "crs": CRS.from_wkt(place.crs) if place.crs else None,
        "transform": Transform(*place.transform),
        "compress": "deflate",
        "photometric": "RGB" if planes.dtype == np.uint8 and planes.shape[2] == 3 else "MINISBLACK",
    }
    with MemoryFile() as memory:
        with plain(), memory.open(**profile) as out:
            out.write(np.ascontiguousarray(np.moveaxis(planes, -1, 0)))
            if len(names) == planes.shape[2]:
                out.descriptions = tuple(names)
            if unit:
                out.units = (unit,) * planes.shape[2]
        return memory.read()
