"""GeoTIFF and plain TIFF, with rasterio (extra `[geo]`).

GDAL reads many formats, some of which name other files or addresses. Here it is given only the bytes of a file that starts like a TIFF, in memory,
and only its TIFF driver, so nothing else can be opened.
"""

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, as_floats, check_array, faults, listed, native, needs
from maskweave.values.remarks import remark

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF."""
ORIENTATION = 274
"""Tag of the rotation and reflection with which a picture is shown; 1: as stored."""
BIG = 43
"""Third byte of a BigTIFF."""
NUMBERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
_QUIET = threading.Lock()
"""Held while a warning is hidden, because filters of warnings belong to all threads."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the bands as (height, width, bands), or (height, width) for one band.

    Points are missing where the file's nodata value, its mask or its alpha band says so.

    Raises:
        BadSample: the file is damaged, too large, of complex numbers, or lacks a band.
    """
    with needs("rasterio", "geo", where):
        import rasterio
        from rasterio.io import MemoryFile
    if not content.startswith(MAGIC):
        raise BadSample(f"{where}: found no TIFF; expected a file that starts with II or MM; replace the file")
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults("TIFF", where))
        stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"))
        memory = stack.enter_context(MemoryFile(content))
        with plain():
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
        if rows * columns * dtype.itemsize > files.max_value_bytes():
            raise BadSample(
                f"{where}: found blocks of {rows} × {columns} pixels; expected at most {files.max_value_bytes():,} bytes"
            )


def _scaled(dataset: Any, bands: list[int], array: np.ndarray, apply: bool, where: str) -> np.ndarray:
    """Apply the scale and offset tags of the bands, or say that they are ignored."""
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
    remark(
        f"scale tags ({listed(sorted(set(scales)))}) and offset tags ({listed(sorted(set(offsets)))}) of TIFF files, ignored; use_scale_tags: true applies them"
    )
    return array


def plane_shape(path: Path) -> tuple[int, int]:
    """Returns the rows and columns of a TIFF file.

    Raises:
        BadSample: the file is damaged.
    """
    with opened(path) as dataset:
        return int(dataset.height), int(dataset.width)


def is_plain_photograph(path: Path) -> bool:
    """Whether Pillow reads the points of a TIFF file as they are stored: gray or red, green and blue, upright, without a palette or transparency.

    Raises:
        BadSample: the file is damaged.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    from rasterio.enums import ColorInterp

    with opened(path) as dataset:
        colors = tuple(dataset.colorinterp)
        space = dataset.tags(ns="IMAGE_STRUCTURE")
        masked = any("per_dataset" in {f.name for f in flags} for flags in dataset.mask_flag_enums)
    with faults("TIFF", str(path)), open(path, "rb") as file:
        head = file.read(8)
        tags = ImageFileDirectory_v2(head + file.read(8) if head[2] == BIG else head)
        file.seek(tags.next)
        tags.load(file)
        upright = tags.get(ORIENTATION, 1) == 1
    plain_colors = colors in ((ColorInterp.gray,), (ColorInterp.red, ColorInterp.green, ColorInterp.blue))
    return plain_colors and upright and not masked and not {"MINISWHITE", "SOURCE_COLOR_SPACE"} & set(space)


def crop(path: Path, rows: tuple[int, int], columns: tuple[int, int]) -> bytes:
    """Returns a part of a TIFF file as a TIFF with the same bands, nodata value, mask, alpha band, descriptions and tags of scale; only the part is read.
    Read as numbers, it equals that part of the file; as a photograph only if the file is a plain one (`is_plain_photograph`).

    Args:
        rows, columns: first, and one past the last.

    Raises:
        BadSample: the file is damaged.
    """
    from rasterio.enums import ColorInterp
    from rasterio.io import MemoryFile
    from rasterio.windows import Window

    window = Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
    with opened(path) as dataset:
        part = np.prod([window.height, window.width, dataset.count], dtype=np.float64)
        if part > files.MAX_PIXELS:
            raise BadSample(f"{path}: a tile has {part:,.0f} numbers; expected at most {files.MAX_PIXELS:,}")
        profile = {
            "driver": "GTiff",
            "height": window.height,
            "width": window.width,
            "count": dataset.count,
            "dtype": dataset.dtypes[0],
            "nodata": dataset.nodata,
            # Pillow, which reads photographs, needs to know that the bands are colors.
            "photometric": "RGB" if dataset.colorinterp[0] == ColorInterp.red else "MINISBLACK",
        }
        has_alpha = ColorInterp.alpha in dataset.colorinterp
        has_mask = not has_alpha and any("per_dataset" in {f.name for f in flags} for flags in dataset.mask_flag_enums)
        with MemoryFile() as memory:
            with plain(), memory.open(**profile) as out:
                if has_alpha:
                    out.colorinterp = dataset.colorinterp
                out.write(dataset.read(window=window))
                out.descriptions, out.scales, out.offsets = dataset.descriptions, dataset.scales, dataset.offsets
                if has_mask:
                    out.write_mask(dataset.dataset_mask(window=window))
            return memory.read()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Hides the warning about a TIFF without a position: a plain TIFF is fine."""
    from rasterio.errors import NotGeoreferencedWarning

    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Context with rasterio's data set of a TIFF file.

    Raises:
        BadSample: the file is damaged.
    """
    with needs("rasterio", "geo", str(path)):
        import rasterio
    with open(path, "rb") as file:
        if file.read(4) not in MAGIC:
            raise BadSample(f"{path}: found no TIFF; expected a file that starts with II or MM; replace the file")
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults("TIFF", str(path)))
        stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_TIFF_INTERNAL_MASK=True))
        with plain():
            dataset = stack.enter_context(rasterio.open(path.absolute(), driver="GTiff"))
        yield dataset
