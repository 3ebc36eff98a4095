"""One modality of a batch of samples: token ids or raw rows, and which samples have it.

Dimension letters: B samples, L tokens of a modality, C width of a raw row, n rows that are read.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave import system
from maskweave.errors import MaskweaveError


class RowFile:
    """(S, L, C) raw rows at a place in a file, which stays open."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self._file = system.open_descriptor(path, os.O_RDONLY)
        system.expect_scattered_reads(self._file)

    def read(self, out: np.ndarray, first: np.ndarray) -> None:
        """Read consecutive rows into each out[i]: those from row first[i] of all S · L rows."""
        width, content, size = (
            self.shape[2] * self.dtype.itemsize,
            out.view(np.uint8).ravel().data,
            out[0].nbytes,
        )
        for i, row in enumerate(first.tolist()):
            if system.read_into(self._file, content[i * size : (i + 1) * size], self.offset + row * width) != size:
                raise MaskweaveError(f"{self.path}: ends before row {row:,}; copy or make it again")

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process that was not forked opens the file for itself."""
        return RowFile, (self.path, self.offset, self.shape, self.dtype)

    def __del__(self) -> None:
        os.close(self._file)


class StoredRows:
    """(B, L, C) raw rows in files. Indexing with samples and positions, two arrays (n,), reads these rows only, as (n, C). Any other index, and
    NumPy, reads all.

    Args:
        files: rows of the samples of each file.
        file: (B,) the file of each sample; -1: the modality is missing, its rows are zeros.
        row: (B,) the sample's place in its file.
    """

    def __init__(self, files: Sequence[RowFile], file: np.ndarray, row: np.ndarray):
        self.files, self.file, self.row = files, file, row
        self.shape = (len(file), *files[0].shape[1:])
        self.dtype = files[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> Any:
        if not (isinstance(at, tuple) and len(at) == 2 and all(isinstance(part, np.ndarray) for part in at)):
            return np.asarray(self)[at]
        sample, position = at
        return self._read(self.file[sample], self.row[sample] * self.shape[1] + position, self.shape[2:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows."""
        found = self._read(self.file, self.row * self.shape[1], self.shape[1:])
        return found if dtype is None else found.astype(dtype)

    def _read(self, file: np.ndarray, first: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns (n, *shape): consecutive rows of each file, from row `first` on."""
        found = np.zeros((len(file), *shape), self.dtype)
        flat = found.reshape(len(file), -1)
        for f in np.unique(file[file >= 0]).tolist():
            here = np.flatnonzero(file == f)
            rows = np.empty((len(here), flat.shape[1]), self.dtype)
            self.files[f].read(rows, first[here])
            flat[here] = rows
        return found

    @classmethod
    def scattered(cls, parts: Sequence[tuple[np.ndarray, "StoredRows"]], samples: int) -> "StoredRows":
        """The rows of a batch of `samples`, each part at its places in the batch. The modality is missing from all other samples."""
        files: list[RowFile] = []
        file, row = np.full(samples, -1, np.int64), np.zeros(samples, np.int64)
        for at, rows in parts:
            file[at], row[at] = np.where(rows.file < 0, -1, rows.file + len(files)), rows.row
            files += rows.files
        return cls(files, file, row)

    def keep(self, mask: np.ndarray) -> "StoredRows":
        """The rows of some samples, by a mask (B,) or their indices."""
        return StoredRows(self.files, self.file[mask], self.row[mask])


class Column(NamedTuple):
    """One modality of a batch of samples."""

    present: np.ndarray
    """(B,) bool; tokens of a missing modality are never inputs or targets."""
    ids: np.ndarray | None = None
    """(B, L) token ids of grids and sequences."""
    length: np.ndarray | None = None
    """(B,) number of tokens of a sequence, including the end token, or number of vectors."""
    rows: np.ndarray | StoredRows | None = None
    """(B, L, C) raw rows of patches or vectors."""
    valid: np.ndarray | None = None
    """(B, L) bool; a token of a grid or patches whose points are all unknown is False and is never input or target. None: all are valid."""

    def keep(self, mask: np.ndarray) -> "Column":
        """The samples where `mask` (B,) is True, or those at its indices."""
        parts = (self.ids, self.length, self.rows, self.valid)
        return Column(self.present[mask], *(None if part is None else _keep(part, mask) for part in parts))

    def tokens(self, most: int) -> np.ndarray:
        """(B, most) bool, which tokens can be inputs or targets: those of present values that are valid and not padding."""
        length = np.full(len(self.present), most) if self.length is None else self.length
        usable = (np.arange(most) < length[:, None]) & self.present[:, None]
        return usable if self.valid is None else usable & self.valid


def _keep(part: Any, mask: np.ndarray) -> Any:
    return part.keep(mask) if isinstance(part, StoredRows) else part[mask]
