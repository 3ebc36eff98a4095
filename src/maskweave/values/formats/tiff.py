"""GeoTIFF and plain TIFF, with rasterio (extra `[geo]`).

GDAL reads many formats, some of which name other files or addresses. Here it is given only the bytes of a file that starts like a TIFF, in memory,
and only its TIFF driver, so nothing else can be opened.
"""

import contextlib
import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, as_floats, check_array, faults, listed, native, needs

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF."""
NUMBERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
_QUIET = threading.Lock()
"""Held while a warning is hidden, because filters of warnings belong to all threads."""
_told: set[tuple[Any, ...]] = set()
"""Scale tags that were ignored and reported in this process."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the bands as (height, width, bands), or (height, width) for one band.

    Points are missing where the file's nodata value, its mask or its alpha band says so.

    Raises:
        BadSample: the file is damaged, too large, of complex numbers, or lacks a band.
    """
    with needs("rasterio", "geo", where):
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import MemoryFile
    if not content.startswith(MAGIC):
        raise BadSample(f"{where}: found no TIFF; expected a file that starts with II or MM; replace the file")
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults("TIFF", where))
        stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"))
        memory = stack.enter_context(MemoryFile(content))
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain TIFF is fine
            dataset = stack.enter_context(memory.open(driver="GTiff"))
        bands = _bands(dataset, selection.bands, where)
        _check(dataset, bands, where)
        array = native(np.moveaxis(dataset.read(bands), 0, -1))
        known = None
        if any("all_valid" not in {flag.name for flag in dataset.mask_flag_enums[b - 1]} for b in bands):
            known = np.ascontiguousarray(np.moveaxis(dataset.read_masks(bands), 0, -1)) > 0
        array = _scaled(dataset, bands, array, selection.use_scale_tags, where)
    if len(bands) == 1:
        array, known = array[..., 0], None if known is None else known[..., 0]
    return Stored(array, known)


def _bands(dataset: Any, wanted: Sequence[int | str], where: str) -> list[int]:
    """Returns the numbers of the wanted bands, from 1."""
    names = [name or "" for name in dataset.descriptions]
    if not wanted:
        return list(range(1, dataset.count + 1))
    found = []
    for band in wanted:
        if isinstance(band, str) and names.count(band) == 1:
            found.append(names.index(band) + 1)
        elif isinstance(band, int) and 1 <= band <= dataset.count:
            found.append(band)
        else:
            described = (
                f"described as {listed(names)}" if any(names) else "without descriptions, so they have only numbers"
            )
            raise BadSample(
                f"{where}: found {dataset.count} bands {described}; expected band {band!r} of the entry's value.bands"
            )
    return found


def _check(dataset: Any, bands: list[int], where: str) -> None:
    """Check the header before anything is read."""
    points = dataset.width * dataset.height
    if points > files.MAX_PIXELS:
        raise BadSample(f"{where}: {dataset.width} × {dataset.height} pixels; expected at most {files.MAX_PIXELS:,}")
    types = {dataset.dtypes[b - 1] for b in bands}
    if not types <= set(NUMBERS):
        raise BadSample(f"{where}: found bands of {listed(sorted(types))}; expected real numbers")
    dtype = np.result_type(*types)
    check_array((dataset.height, dataset.width, len(bands)), dtype, where)
    for rows, columns in dataset.block_shapes:
        if rows * columns * dtype.itemsize > files.MAX_ARRAY_BYTES:
            raise BadSample(
                f"{where}: found blocks of {rows} × {columns} pixels; expected at most {files.MAX_ARRAY_BYTES:,} bytes"
            )


def _scaled(dataset: Any, bands: list[int], array: np.ndarray, apply: bool, where: str) -> np.ndarray:
    """Apply the scale and offset tags of the bands, or say once that they are ignored."""
    scales, offsets = ([tags[b - 1] for b in bands] for tags in (dataset.scales, dataset.offsets))
    if all(scale == 1 for scale in scales) and not any(offsets):
        return array
    if not all(map(math.isfinite, (*scales, *offsets))) or 0 in scales:
        raise BadSample(
            f"{where}: found scale tags {listed(scales)} and offset tags {listed(offsets)}; expected finite numbers, the scales not 0"
        )
    if apply:
        return as_floats(array) * np.asarray(scales, as_floats(array[:0]).dtype) + np.asarray(
            offsets, as_floats(array[:0]).dtype
        )
    said = (*scales, *offsets)
    if said not in _told:
        _told.add(said)
        warnings.warn(
            f"{where}: its bands have scale tags ({listed(sorted(set(scales)))}) and offset tags ({listed(sorted(set(offsets)))}), which are ignored, "
            "here and in other files like it; set value.use_scale_tags: true in the entry to apply them",
            stacklevel=2,
        )
    return array
