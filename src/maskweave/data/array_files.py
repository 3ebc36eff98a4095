"""Files that hold several arrays, read by rows, which are the arrays' first axis.

| file | rows are read |
| --- | --- |
| npz by `numpy.savez` | at their place in the file |
| npz by `numpy.savez_compressed`, and arrays in Fortran's order | from the whole array, which each process keeps in memory |
| HDF5, NetCDF4 (extra `[hdf]`) | as slices of a file that each process keeps open |

Nothing is ever unpickled, and other files that an HDF5 file names are never read. Sizes are checked before memory is allocated.
"""

import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values import files
from maskweave.values.formats.base import faults, native, needs
from maskweave.values.formats.conventions import decoded
from maskweave.values.formats.hdf5 import ATTRIBUTES, CLASSIC, MAX_OBJECTS, all_datasets, attribute, is_scale
from maskweave.values.formats.numpy_arrays import read_header, shaped

CACHE_BYTES = 64 * 2**20
"""Largest chunk of an HDF5 dataset that is kept unpacked for the rows that follow."""
LOCAL_HEADER = 30
"""Bytes of a zip file in front of a member's name."""


@dataclass(frozen=True)
class ArrayFacts:
    """What is known about an array before its numbers are read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_text: bool = False
    is_ragged: bool = False
    """Whether each row is an array of its own length."""
    attributes: Mapping[str, Any] | None = None
    """NetCDF's, which say how numbers are packed."""

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __str__(self) -> str:
        kind = "texts" if self.is_text else "arrays of different lengths" if self.is_ragged else str(self.dtype)
        return f"{self.shape} of {kind}"


class ArrayFile(Protocol):
    """A file that holds arrays."""

    arrays: dict[str, ArrayFacts]
    """By path in the file, without a slash in front."""
    left_out: dict[str, str]
    """Why other arrays cannot be read."""

    def rows(self, name: str, start: int, stop: int) -> Any:
        """Returns rows of an array: numbers or texts as an array, ragged ones as a sequence of arrays.

        Raises:
            BadSample: the file is damaged.
            MaskweaveError: the array has to be read as a whole, and takes too much memory.
        """
        ...


def _too_large(size: int) -> str:
    """Why a part of `size` bytes that is read at once is not read; empty if it is."""
    most = files.max_value_bytes()
    return f"takes {size:,} bytes for one row or chunk; {files.expected_at_most(most)}" if size > most else ""


@dataclass(frozen=True)
class _Member:
    """A member of an npz file."""

    name: str
    fortran: bool
    offset: int
    """Position of its numbers in the file; 0: they are compressed."""


class NpzFile:
    """The arrays of an npz file."""

    arrays: dict[str, ArrayFacts]
    left_out: dict[str, str]

    def __init__(self, path: Path):
        self.path = path
        self.arrays, self.left_out = {}, {}
        self._members: dict[str, _Member] = {}
        self._whole: dict[str, np.ndarray] = {}
        with faults("npz archive", str(path)), open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len(members) > MAX_OBJECTS:
                raise BadSample(f"{path}: holds {len(members):,} arrays; expected at most {MAX_OBJECTS:,}")
            for info in members:
                self._describe(info, archive, file)

    def _describe(self, info: zipfile.ZipInfo, archive: zipfile.ZipFile, file: Any) -> None:
        name = info.filename.removesuffix(".npy")
        where = f"{self.path} ({name})"
        with archive.open(info) as stream:
            shape, fortran, dtype = read_header(stream, where)
            header = stream.tell()
        facts = ArrayFacts(shape, dtype, is_text=dtype.kind in "US")
        if not facts.is_text and dtype.kind not in "biuf":
            self.left_out[name] = f"is of {dtype}; expected plain numbers or texts (objects are never unpickled)"
            return
        if too_large := _too_large(facts.row_bytes):
            self.left_out[name] = too_large
            return
        if header + math.prod(shape) * dtype.itemsize > info.file_size:
            raise BadSample(f"{where}: truncated: {info.file_size:,} bytes cannot hold shape {shape} of {dtype}")
        offset = 0
        if info.compress_type == zipfile.ZIP_STORED and not fortran:
            file.seek(info.header_offset)
            before = file.read(LOCAL_HEADER)
            lengths = int.from_bytes(before[26:28], "little") + int.from_bytes(before[28:30], "little")
            offset = info.header_offset + LOCAL_HEADER + lengths + header
        self.arrays[name], self._members[name] = facts, _Member(info.filename, fortran, offset)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        facts, member = self.arrays[name], self._members[name]
        where = f"{self.path} ({name})"
        with faults("npz archive", where):
            rows = self._slice(name, start, stop) if member.offset else self._unpacked(name)[start:stop]
        if facts.dtype.kind == "S":
            return np.char.decode(rows, "utf-8", "replace")
        return rows if facts.is_text else native(rows)

    def _slice(self, name: str, start: int, stop: int) -> np.ndarray:
        facts, where = self.arrays[name], f"{self.path} ({name})"
        shape = (stop - start, *facts.shape[1:])
        with open(self.path, "rb") as file:  # opened for each read: processes share no file handle
            file.seek(self._members[name].offset + start * facts.row_bytes)
            return shaped(file, (stop - start) * facts.row_bytes, shape, False, facts.dtype, where)

    def _unpacked(self, name: str) -> np.ndarray:
        if name not in self._whole:
            facts, member = self.arrays[name], self._members[name]
            size, most = facts.shape[0] * facts.row_bytes, files.max_value_bytes()
            if (total := size + sum(array.nbytes for array in self._whole.values())) > most:
                raise MaskweaveError(
                    f"{self.path} ({name}): compressed arrays are unpacked as a whole and take {total:,} bytes together; {files.expected_at_most(most)}, or save them with numpy.savez, whose rows are read one by one"
                )
            with zipfile.ZipFile(self.path) as archive, archive.open(member.name) as stream:
                shape, fortran, dtype = read_header(stream, str(self.path))
                if (shape, dtype) != (facts.shape, facts.dtype):
                    raise BadSample(f"{self.path}: changed while it was read; run the same command again")
                self._whole[name] = shaped(stream, size, shape, fortran, dtype, f"{self.path} ({name})")
        return self._whole[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_whole": {}}


class Hdf5File:
    """The datasets of an HDF5 or NetCDF4 file. Coordinates of numbers (dimension scales) are left out."""

    arrays: dict[str, ArrayFacts]
    left_out: dict[str, str]

    def __init__(self, path: Path):
        with needs("h5py", "hdf", str(path)):
            import h5py
        self.path = path
        self.arrays, self.left_out = {}, {}
        self._open: tuple[int, Any] | None = None
        with faults("HDF5 file", str(path)):
            with open(path, "rb") as file:
                if file.read(4).startswith(CLASSIC):
                    raise BadSample(
                        f"{path}: found classic NetCDF; expected NetCDF4; convert it: nccopy -k nc4 FILE NEW"
                    )
            with h5py.File(path, "r") as opened:
                for name, dataset in all_datasets(opened, h5py, str(path)).items():
                    self._describe(name, dataset, h5py)

    def _describe(self, name: str, dataset: Any, h5py: Any) -> None:
        texts = h5py.check_string_dtype(dataset.dtype) is not None
        inner = h5py.check_vlen_dtype(dataset.dtype)
        ragged = inner is not None and np.dtype(inner).kind in "biuf"
        if dataset.external or dataset.is_virtual:
            self.left_out[name] = "its numbers are in other files, which are not read"
        elif not texts and not ragged and dataset.dtype.kind not in "biuf":
            self.left_out[name] = f"is of {dataset.dtype}; expected plain numbers or texts"
        elif not texts and is_scale(dataset):
            self.left_out[name] = "holds the coordinates of an axis"
        else:
            attributes = None if texts or ragged else {key: attribute(dataset, key) for key in ATTRIBUTES}
            facts = ArrayFacts(tuple(map(int, dataset.shape)), dataset.dtype, texts, ragged, attributes)
            largest = max(facts.row_bytes, math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize)
            if too_large := _too_large(largest):
                self.left_out[name] = too_large
            else:
                self.arrays[name] = facts

    def rows(self, name: str, start: int, stop: int) -> Any:
        facts, where = self.arrays[name], f"{self.path} ({name})"
        with faults("HDF5 file", where):
            dataset = self._file()[name]
            if facts.is_text:
                return dataset.asstr("utf-8", errors="replace")[start:stop]
            rows = dataset[start:stop]
            return rows if facts.attributes is None else decoded(native(rows), facts.attributes, where).numbers()

    def _file(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            import h5py

            self._open = os.getpid(), h5py.File(self.path, "r", rdcc_nbytes=CACHE_BYTES)
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


ENDINGS: Mapping[str, Callable[[Path], ArrayFile]] = {
    "npz": NpzFile,
    "h5": Hdf5File,
    "hdf5": Hdf5File,
    "nc": Hdf5File,
}
"""How files with each ending are opened; MaskweaveError if one is damaged or its package is not installed."""
