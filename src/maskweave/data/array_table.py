"""One file with all samples as a table: the arrays of an npz, HDF5 or NetCDF4 file are the columns, and their first axis has the rows.

    data.h5: images (N, 32, 32, 3), depth (N, 32, 32), labels (N,)
    data.npz: X (N, 16), y (N,)

The number of rows is the most frequent length of the arrays' first axes, of 2 or more; arrays of another length are left out.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.array_files import ENDINGS, ArrayFacts, ArrayFile
from maskweave.data.cells import MAGIC
from maskweave.data.mirror import version
from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.formats import split_ending
from maskweave.values.formats.base import listed

BLOCK_BYTES = 16 * 2**20
"""Rows of a column that are read at once take about this much."""
MOST_AT_ONCE = 1000
PAPERS = ("readme", "license", "citation", "changelog")
"""Files that may lie beside the data."""


class ArrayTable:
    """The rows of the arrays of one file.

    Raises:
        MaskweaveError: the file is damaged, its package is not installed, or its arrays have no common number of rows.
    """

    def __init__(self, place: Path):
        self.place = place
        self._file: ArrayFile = ENDINGS[split_ending(place.name)[1]](place)
        found = self._file.arrays
        self._rows = _number_of_rows(found)
        self.columns: Sequence[str] = [name for name, array in found.items() if _length(array) == self._rows]
        reasons = {n: f"{a}; expected {self._rows:,} rows" for n, a in found.items() if n not in self.columns}
        self.left_out = [f"array {name}: {why}" for name, why in (reasons | dict(self._file.left_out)).items()]
        """Arrays that are no columns, and why."""
        if not self._rows:
            some = listed([f"{name} {array}" for name, array in found.items()]) or "none"
            bad = "".join(f"; {name} {why}" for name, why in list(self._file.left_out.items())[:3])
            raise NoTable(
                f"{place}: found the arrays {some}{bad}; expected arrays whose first axes have one length of 2 or more, one row for each sample"
            )

    def __len__(self) -> int:
        return self._rows

    def row(self, i: int, columns: Sequence[str]) -> "_Row":
        return _Row(self, i, columns)

    def cell(self, i: int, name: str) -> Any:
        """Returns the cell of one column in row i.

        Raises:
            BadSample: it is damaged.
        """
        try:
            return self._cell(self._file.rows(name, i, i + 1)[0], name)
        except BadSample as error:
            raise BadSample(f"{self.where(i)}: {error}") from error

    def column(self, name: str) -> Iterator[Any]:
        step = max(1, min(MOST_AT_ONCE, BLOCK_BYTES // max(1, self._file.arrays[name].row_bytes)))
        for start in range(0, self._rows, step):
            for row in self._file.rows(name, start, min(self._rows, start + step)):
                yield self._cell(row, name)

    def is_text(self, name: str) -> bool:
        array = self._file.arrays[name]
        return array.is_text and len(array.shape) == 1

    def is_number(self, name: str) -> bool:
        """Whether each cell of a column is one number."""
        array = self._file.arrays[name]
        return not array.is_text and not array.is_ragged and math.prod(array.shape[1:]) == 1

    def where(self, i: int) -> str:
        return f"{self.place}: row {i}"

    def name(self, i: int) -> str:
        return f"row-{i:08d}"

    def state(self) -> list[Any]:
        return [self.place.name, *version(self.place)]

    def _cell(self, row: Any, name: str) -> Any:
        """A row as text, bytes, a number, a list of texts or an array; NaN as None."""
        array = self._file.arrays[name]
        if array.is_text:
            return row.tolist() if isinstance(row, np.ndarray) else str(row)
        if array.is_ragged and row.dtype == np.uint8 and row.ndim == 1:
            content = row.tobytes()
            return content if any(content.startswith(start, at) for at, start, _ in MAGIC) else row
        if self.is_number(name):
            number = row.reshape(())[()]
            return None if np.isnan(number) else number if row.dtype.kind in "iu" else number.item()
        return row.astype(np.uint8) if row.dtype == bool else row


class _Row(Mapping[str, Any]):
    """Cells that are read when they are asked for, so that a damaged one leaves the others."""

    def __init__(self, table: ArrayTable, i: int, columns: Sequence[str]):
        self._table, self._i, self._columns = table, i, columns

    def __getitem__(self, name: str) -> Any:
        return self._table.cell(self._i, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class NoTable(MaskweaveError):
    """The arrays of a file have no common number of rows."""


def find_array_table(place: Path) -> ArrayTable | None:
    """Returns the table of a file, or of the only file of a folder; None if there is none.

    Raises:
        MaskweaveError: the file is damaged, or its package is not installed; `place` is a file, and its arrays have no common number of rows.
    """
    if place.is_file():
        return ArrayTable(place) if split_ending(place.name)[1] in ENDINGS else None
    if not place.is_dir():
        return None
    visible = (p for p in place.iterdir() if not p.name.startswith(".") and p.stem.lower() not in PAPERS)
    inside = list(islice(visible, 2))  # folders may have many files
    if len(inside) != 1 or inside[0].is_symlink() or not inside[0].is_file():
        return None
    try:
        return find_array_table(inside[0])
    except NoTable:  # a sample in a file of its own
        return None


def _length(array: ArrayFacts) -> int:
    return array.shape[0] if array.shape else 0


def _number_of_rows(arrays: Mapping[str, ArrayFacts]) -> int:
    """Returns the most frequent length of first axes, the largest of several; 0 if no two of several arrays share one."""
    lengths = Counter(length for array in arrays.values() if (length := _length(array)) > 1)
    rows, times = max(lengths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    return rows if times > 1 or len(arrays) == 1 else 0
