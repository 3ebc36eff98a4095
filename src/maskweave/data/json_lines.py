"""A file of JSON lines whose rows are samples: each line is an object, its keys are the columns, and its values are cells or paths relative to the file.

Only the position of each line is kept in memory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.line_table import LineTable
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.values.files import read_json_value

ENDINGS = ("jsonl", "ndjson")
MAX_LINE_BYTES = 32 * 2**20
"""Longest line."""
MAX_COLUMNS = 10_000


class JsonLines(LineTable):
    """The rows of a file of JSON lines. Empty lines are ignored. A key that a line lacks, and null, are missing.

    Raises:
        MaskweaveError: the file cannot be read, is empty, or a line is no object or too long; the message gives its number.
    """

    def __init__(self, place: Path):
        self.place = place
        starts, numbers = [], []
        columns: dict[str, bool] = {}  # and whether all of its values are texts
        for start, number, row in self._lines():
            starts.append(start)
            numbers.append(number)
            for name, cell in row.items():
                if cell is not None:
                    columns[name] = columns.get(name, True) and isinstance(cell, str)
                else:
                    columns.setdefault(name, True)
            if len(columns) > MAX_COLUMNS:
                raise MaskweaveError(f"{place}: more than {MAX_COLUMNS:,} different keys; expected one for each column")
        if not starts:
            raise MaskweaveError(f"{place}: found no lines; expected an object in each line")
        self.columns: Sequence[str] = list(columns)
        self._texts = columns
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, i: int, columns: Sequence[str]) -> Mapping[str, Any]:
        for _, _, row in self._lines(int(self._starts[i]), int(self._numbers[i])):
            return {name: _cell(row.get(name)) for name in columns}
        raise BadSample(f"{self.where(i)}: the file changed while it was read; run the same command again")

    def column(self, name: str) -> Iterator[Any]:
        return (_cell(row.get(name)) for _, _, row in self._lines())

    def is_text(self, name: str) -> bool:
        return self._texts[name]

    def _lines(self, start: int = 0, number: int = 1) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yields position in bytes, number and object of each line, from a position on."""
        try:
            with open(self.place, "rb") as file:  # opened for each read: processes share no file handle
                file.seek(start)
                while line := file.readline(MAX_LINE_BYTES + 1):
                    where = f"{self.place}: line {number}"
                    if len(line) > MAX_LINE_BYTES:
                        raise MaskweaveError(
                            f"{where}: longer than {MAX_LINE_BYTES >> 20} MB; expected an object in each line"
                        )
                    if line.strip():
                        row = read_json_value(line, where)
                        if not isinstance(row, dict):
                            raise MaskweaveError(f"{where}: found {shown(row)}; expected an object in each line")
                        yield start, number, row
                    start += len(line)
                    number += 1
        except OSError as error:
            raise MaskweaveError(f"{self.place}: cannot be read: {error.strerror}") from error


def _cell(cell: Any) -> Any:
    """Returns a cell; NaN as missing; lists of numbers, of any depth, as an array."""
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if not isinstance(cell, list) or not cell:
        return cell
    try:
        found = np.asarray(cell)
    except ValueError:  # rows of different lengths
        return cell
    return found if found.dtype.kind in "iuf" else cell
