"""NumPy's npy and npz. Headers are checked before memory is allocated, and nothing is ever unpickled."""

import io
import math
import zipfile
from typing import Any

import numpy as np

from maskweave.errors import BadSample, reason, shown
from maskweave.values.formats.base import Selection, Stored, check_array, choose, faults, native

MOST_AXES = 32
"""NumPy's own limit is 32 or 64, by its version."""
AT_ONCE = 2**20
"""Bytes that are unpacked at once: streams of zip files make copies of what they read."""


def read_npy(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the array of an npy file. It has no name, so `array` says nothing about it."""
    return Stored(read_array(io.BytesIO(content), len(content), where))


def read_npz(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns one array of an npz file."""
    with faults("npz archive", where), zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist() if info.filename.endswith(".npy")]
        if not names:
            raise BadSample(f"{where}: no array in the file; expected one saved with numpy.savez")
        info = archive.getinfo(f"{choose(names, selection.array, where, selection.likely(names))}.npy")
        with archive.open(info) as stream:
            return Stored(read_array(stream, info.file_size, f"{where} ({info.filename})"))


def read_header(stream: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns the shape, whether the order is Fortran's, and the type of an npy file's array; `stream` is at its numbers then.

    Raises:
        BadSample: the header is damaged.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
    except Exception as error:  # NumPy parses the header as Python code, which raises several types of errors
        raise BadSample(
            f"{where}: not a NumPy array, or its header is damaged ({reason(error)}); save it with numpy.save"
        ) from error
    if not all(type(n) is int and n >= 0 for n in shape):
        raise BadSample(f"{where}: its header is damaged (shape {shown(shape)}); save it with numpy.save")
    if len(shape) > MOST_AXES or math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 2**63:
        raise BadSample(f"{where}: an array of shape {shown(shape)} is impossible; replace the file")
    return shape, fortran, dtype


def read_array(stream: Any, length: int, where: str) -> np.ndarray:
    """Returns the array of an npy file of `length` bytes.

    Raises:
        BadSample: it is damaged or too large, or holds something else than numbers.
    """
    shape, fortran, dtype = read_header(stream, where)
    size = check_array(shape, dtype, where)
    if size > length:
        raise BadSample(
            f"{where}: truncated: {length:,} bytes cannot hold shape {shape} of {dtype} ({size:,} bytes); replace the file"
        )
    return native(shaped(stream, size, shape, fortran, dtype, where))


def shaped(stream: Any, size: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype, where: str) -> np.ndarray:
    """Returns an array of `size` bytes from a stream that is at its numbers.

    Raises:
        BadSample: the stream ends before.
    """
    content, found = bytearray(size), 0  # filled in place: an array may take half of the memory that there is
    while found < size and (count := stream.readinto(memoryview(content)[found : found + AT_ONCE])):
        found += count
    if found != size:
        raise BadSample(
            f"{where}: truncated: {found:,} bytes of shape {shape} of {dtype}, expected {size:,}; replace the file"
        )
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
