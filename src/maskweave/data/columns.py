"""One modality of a batch of samples: token ids or raw rows, and which samples have it.

Dimension letters: B samples, L tokens of a modality, C width of a raw row, n rows that are read.
"""

import ctypes
import mmap
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class StoredRows:
    """(B, L, C) raw rows in files. Indexing with samples and positions, two arrays (n,), reads these rows only, as (n, C). Any other index, and
    NumPy, reads all.

    Args:
        files: (S, L, C) memory-mapped rows of the samples of each file.
        file: (B,) the file of each sample; -1: the modality is missing, its rows are zeros.
        row: (B,) the sample's place in its file.
    """

    def __init__(self, files: Sequence[np.ndarray], file: np.ndarray, row: np.ndarray):
        self.files, self.file, self.row = files, file, row
        self.shape = (len(file), *files[0].shape[1:])
        self.dtype = np.result_type(*files)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> Any:
        if not (isinstance(at, tuple) and len(at) == 2 and all(isinstance(part, np.ndarray) for part in at)):
            return np.asarray(self)[at]
        sample, position = at
        file, row = self.file[sample], self.row[sample]
        found = np.zeros((len(sample), self.shape[2]), self.dtype)
        for f in np.unique(file[file >= 0]).tolist():
            here = np.flatnonzero(file == f)
            found[here] = self.files[f][row[here], position[here]]
        return found

    @classmethod
    def scattered(cls, parts: Sequence[tuple[np.ndarray, "StoredRows"]], samples: int) -> "StoredRows":
        """The rows of a batch of `samples`, each part at its places in the batch. The modality is missing from all other samples."""
        files: list[np.ndarray] = []
        file, row = np.full(samples, -1, np.int64), np.zeros(samples, np.int64)
        for at, rows in parts:
            file[at], row[at] = np.where(rows.file < 0, -1, rows.file + len(files)), rows.row
            files += rows.files
        return cls(files, file, row)

    def keep(self, mask: np.ndarray) -> "StoredRows":
        """The rows of some samples, by a mask (B,) or their indices."""
        return StoredRows(self.files, self.file[mask], self.row[mask])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows."""
        found = np.zeros(self.shape, self.dtype if dtype is None else dtype)
        for f in np.unique(self.file[self.file >= 0]).tolist():
            here = np.flatnonzero(self.file == f)
            for row in self.row[here].tolist():
                _advise(self.files[f][row], "MADV_WILLNEED")
            found[here] = self.files[f][self.row[here]]
        return found


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


def read_single_pages(mapped: np.ndarray) -> None:
    """Advise the kernel to read only the pages of a memory-mapped array that are used. By default it reads far around them, in the end whole files."""
    _advise(mapped, "MADV_RANDOM")


def _advise(mapped: np.ndarray, advice: str) -> None:
    if sys.platform == "linux":
        start = mapped.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        size = mapped.ctypes.data + mapped.nbytes - start
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), getattr(mmap, advice))


def _keep(part: Any, mask: np.ndarray) -> Any:
    return part.keep(mask) if isinstance(part, StoredRows) else part[mask]
