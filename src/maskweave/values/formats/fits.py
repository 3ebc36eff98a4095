"""FITS images and tables, with astropy (extra `[astro]`)."""

import io
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values.formats.base import Selection, Stored, as_floats, check_array, choose, faults, native, needs
from maskweave.values.formats.packed import check_chunk

MAX_HDUS = 1000


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns an image, or a column of a table.

    `array` is the name of an image's HDU (EXTNAME, `PRIMARY`, or its number), or of a column: `flux`, or `COADD/flux` if several tables have one.
    BSCALE, BZERO, BLANK and TNULL are applied, as the FITS standard says. The planes of an image of three axes are channels: (planes, height, width)
    becomes (height, width, planes) for values of two axes. A column of a table with one row is read without the axis of rows.

    Raises:
        BadSample: the file is damaged or too large, holds no numbers, or holds several arrays and `array` names none of them.
    """
    with needs("astropy", "astro", where):
        from astropy.io import fits
    if not content.startswith(b"SIMPLE"):
        raise BadSample(
            f"{where}: found no FITS file; expected one that starts with SIMPLE; unpack or replace the file"
        )
    options = {"memmap": False, "do_not_scale_image_data": True}
    with faults("FITS file", where), fits.open(io.BytesIO(content), **options) as hdus:
        arrays = _arrays(hdus, content, where)
        hdu, column = arrays[choose(list(arrays), selection.array, where, selection.likely(list(arrays)))]
        _check_tiles(hdu, content, where)
        stored = _image(hdu, where) if column is None else _column(hdu, column, where)
    if column is None and selection.axes == 2 and stored.array.ndim == 3:
        planes_last = np.ascontiguousarray(np.moveaxis(stored.array, 0, -1))
        return Stored(planes_last, None if stored.known is None else np.moveaxis(stored.known, 0, -1))
    return stored


def unit(content: bytes, where: str, array: str = "") -> str:
    """Returns the unit of an image (BUNIT) or of a column (TUNIT); empty if the file states none.

    Raises:
        BadSample: as `read`.
    """
    with needs("astropy", "astro", where):
        from astropy.io import fits
    options = {"memmap": False, "do_not_scale_image_data": True}
    with faults("FITS file", where), fits.open(io.BytesIO(content), **options) as hdus:
        arrays = _arrays(hdus, content, where)
        hdu, column = arrays[choose(list(arrays), array, where)]
        stated = hdu.header.get("BUNIT") if column is None else hdu.columns[column].unit
    return str(stated or "").strip()


def _arrays(hdus: Any, content: bytes, where: str) -> dict[str, tuple[Any, str | None]]:
    """Returns the images and the columns of numbers, as HDU and column, by name."""
    found: dict[str, tuple[Any, str | None]] = {}
    for number, hdu in enumerate(hdus):
        if number >= MAX_HDUS:
            raise BadSample(f"{where}: more than {MAX_HDUS} HDUs; expected fewer")
        place = hdu.fileinfo()
        compressed = getattr(hdu, "_bintable", None)  # the table in which a compressed image is stored
        end = place["datLoc"] + _data_bytes((hdu if compressed is None else compressed)._header)
        after = content[place["datLoc"] + place["datSpan"] :]
        if end > len(content) or (
            after.startswith(b"XTENSION") and number == len(hdus) - 1
        ):  # astropy skips a part of a header
            raise BadSample(
                f"{where}: truncated after HDU {number}: the file has {len(content):,} bytes, expected {end:,} or more; replace the file"
            )
        name = hdu.name or str(number)
        name = f"{name}:{number}" if name in found or any(key.startswith(f"{name}/") for key in found) else name
        if hdu.is_image and hdu.shape:
            found[name] = hdu, None
        elif hasattr(hdu, "columns"):
            columns = (c for c in hdu.columns if c.dtype.base.kind in "biuf" and c.format[-1:] != "X")
            found |= {f"{name}/{c.name}": (hdu, c.name) for c in columns if "P" not in c.format and "Q" not in c.format}
    return found


def _data_bytes(header: Any) -> int:
    """Bytes of the data by the header, without padding."""
    axes = [header.get(f"NAXIS{i}", 0) for i in range(1, header.get("NAXIS", 0) + 1)]
    points = int(np.prod(axes, dtype=object)) if axes else 0
    return abs(header.get("BITPIX", 8)) // 8 * header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + points)


def _image(hdu: Any, where: str) -> Stored:
    """Returns an image. BLANK and the scale are applied here, because astropy does not apply a BLANK of 0."""
    check_array(hdu.shape, np.dtype("f8"), where)
    blank, scale, zero = (
        hdu.header.get(key, default) for key, default in (("BLANK", None), ("BSCALE", 1), ("BZERO", 0))
    )
    if not (np.isfinite([scale, zero]).all() and scale != 0):
        raise BadSample(f"{where}: found BSCALE {scale} and BZERO {zero}; expected finite numbers, BSCALE not 0")
    raw = native(hdu.data)
    known = raw != blank if isinstance(blank, int) and raw.dtype.kind in "iu" else None
    if (scale, zero) == (1, 0):
        return Stored(raw, known)
    if scale == 1 and zero == int(zero) and raw.dtype.kind in "iu":
        return Stored(_shifted(raw, int(zero)), known)
    floats = as_floats(raw)
    return Stored(floats * floats.dtype.type(scale) + floats.dtype.type(zero), known)


def _check_tiles(hdu: Any, content: bytes, where: str) -> None:
    """Check what the tiles of a compressed image unpack to. Other compressions than gzip are decoded into the size of a tile."""
    if (table := getattr(hdu, "_bintable", None)) is None:
        return
    header = table.header
    heap = hdu.fileinfo()["datLoc"] + header.get("THEAP", header["NAXIS1"] * header["NAXIS2"])
    for name in table.columns.names:
        if name == "GZIP_COMPRESSED_DATA" or (name == "COMPRESSED_DATA" and "GZIP" in header["ZCMPTYPE"]):
            for size, offset in table.data[name].tolist():
                check_chunk(content[heap + offset : heap + offset + size], "gzip", where)


def _shifted(raw: np.ndarray, zero: int) -> np.ndarray:
    """Returns whole numbers plus `zero`, in a type of the same size if it fits: FITS stores unsigned numbers as signed ones, shifted."""
    info = np.iinfo(raw.dtype)
    for dtype in (np.dtype(f"{kind}{raw.dtype.itemsize}") for kind in "ui"):
        if np.iinfo(dtype).min <= info.min + zero and info.max + zero <= np.iinfo(dtype).max:
            with np.errstate(over="ignore"):
                return raw.astype(dtype) + np.asarray(zero).astype(dtype)  # modulo the size of the type
    return raw.astype(np.int64) + zero


def _column(hdu: Any, name: str, where: str) -> Stored:
    rows = hdu.header.get("NAXIS2", 0)
    column = hdu.columns[name]
    check_array((rows, *column.dtype.shape), column.dtype.base, f"{where}: column {name}")
    array = native(np.asarray(hdu.data[name]))
    if rows == 1 and array.ndim > 1:
        array = array[0]
    if not isinstance(column.null, int):
        return Stored(array)
    scale, zero = column.bscale or 1, column.bzero or 0
    return Stored(array, array != np.asarray(column.null * scale + zero).astype(array.dtype))
