"""The array of an npy file, read by parts.

Each part is read into memory of its own. The file is not memory-mapped: if another program truncates it meanwhile, reading raises an error, where
access to a map would end the process.
"""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values.formats.numpy_arrays import read_header


class NpyRows:
    """An array (S, …) of numbers in an npy file.

    Raises:
        BadSample: the file is missing, damaged or truncated, or holds something else.
    """

    fortran: bool
    """Whether it is in Fortran's order, which cannot be read by rows."""

    def __init__(self, path: Path):
        self.path, self._first = path, 0
        try:
            with open(path, "rb") as file:
                self.shape, self.fortran, self.dtype = read_header(file, str(path))
                self._offset = file.tell()
            size = path.stat().st_size - self._offset
        except OSError as error:
            raise BadSample(f"{path}: cannot be read ({error.strerror}); check the path") from error
        if self.dtype.kind not in "biuf" or not self.shape:
            raise BadSample(f"{path}: found shape {self.shape} of {self.dtype}; expected rows of plain numbers")
        if math.prod(self.shape) * self.dtype.itemsize > size:
            raise BadSample(
                f"{path}: truncated: {size:,} bytes cannot hold shape {self.shape} of {self.dtype}; replace the file"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, start: int, stop: int) -> "NpyRows":
        """Returns rows `start` to `stop`, without reading them."""
        found = copy.copy(self)
        found._first, found.shape = self._first + start, (stop - start, *self.shape[1:])
        return found

    def __getitem__(self, at: Any) -> np.ndarray:
        """Reads rows, by a number, a slice or an array of numbers; or a window of rows and columns, by two slices.

        Raises:
            BadSample: the file was changed, and ends before.
        """
        if not isinstance(at, tuple):
            row = math.prod(self.shape[1:])
            if isinstance(at, slice):  # at once
                start, stop, _ = at.indices(len(self))
                count = max(stop - start, 0)
                return self._read(np.array([start * row]), count * row).reshape((count, *self.shape[1:]))
            return self._read(np.ravel(at) * row, row).reshape((*np.shape(at), *self.shape[1:]))
        (y0, y1, _), (x0, x1, _) = (part.indices(n) for part, n in zip(at, self.shape, strict=False))
        point = math.prod(self.shape[2:])
        starts = (np.arange(y0, y1) * self.shape[1] + x0) * point
        width = max(x1 - x0, 0)
        return self._read(starts, width * point).reshape((len(starts), width, *self.shape[2:]))

    def _read(self, starts: np.ndarray, count: int) -> np.ndarray:
        """Returns (len(starts), count): the numbers from each start on."""
        if self.fortran:
            raise BadSample(f"{self.path}: found an array in Fortran's order; expected C's")
        found = np.empty((len(starts), count), self.dtype)
        offset = self._offset + self._first * math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            with open(self.path, "rb") as file:  # opened for each read: processes share no file handle
                for out, start in zip(found, starts.tolist(), strict=True):
                    file.seek(offset + start * self.dtype.itemsize)
                    if file.readinto(out.view(np.uint8)) != out.nbytes:
                        raise BadSample(f"{self.path}: was changed while it was read: it is truncated now; restore it")
        except OSError as error:
            raise BadSample(f"{self.path}: was changed while it was read ({error.strerror}); restore it") from error
        return found
