"""A csv file whose rows are samples: its first line has the columns' names, and cells are values or paths relative to the file.

Only the position of each row is kept in memory.
"""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from maskweave.data.line_table import LineTable
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.values.formats.tables import MISSING

ENDINGS = ("csv", "tsv")
MAX_ROW_BYTES = 32 * 2**20
"""Longest row."""


class CsvTable(LineTable):
    """The rows of a csv file.

    Cells are separated by the comma, semicolon or tab that is most frequent in the first line. Empty lines are ignored. Cells that are empty
    or `nan`, `na`, `null` or `none`, as in `MISSING`, are missing, unless `kept` has them.

    Raises:
        MaskweaveError: the file cannot be read as text, has no columns, two of one name, or no rows, or rows have other numbers of cells.
    """

    def __init__(self, place: Path):
        self.place = place
        self.kept: Mapping[str, Collection[str]] = {}
        """Texts that are values of a column although they look missing, such as a class `none`."""
        try:
            with open(place, "rb") as file:
                header = file.readline(MAX_ROW_BYTES).decode("utf-8-sig")
                self._separator = max(",;\t", key=header.count)
                file.seek(0)
                self._index(file)
        except OSError as error:
            raise MaskweaveError(f"{place}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise MaskweaveError(f"{place}: not UTF-8 text; save the table as UTF-8") from error

    def _index(self, file: io.BufferedReader) -> None:
        starts, numbers, width = [], [], 0
        self.columns: Sequence[str] = []
        for start, number, cells in _records(file, self._separator, self.place):
            if not width:
                self.columns, width = [cell.strip() for cell in cells], len(cells)
                twice = [name for name in self.columns if self.columns.count(name) > 1]
                if twice:
                    raise MaskweaveError(
                        f"{self.place}: two columns have the name {shown(twice[0])}; expected each once; rename one"
                    )
                continue
            if len(cells) != width:
                raise MaskweaveError(
                    f"{self.place}: line {number} has {len(cells)} cells; expected {width}, as in the first line; put cells that contain {self._separator!r} in double quotes"
                )
            starts.append(start)
            numbers.append(number)
        if not starts:
            raise MaskweaveError(
                f"{self.place}: found {'only the names of columns' if width else 'no text'}; expected rows below a line with the columns' names"
            )
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, i: int, columns: Sequence[str]) -> Mapping[str, str | None]:
        with open(self.place, "rb") as file:  # opened for each read: processes share no file handle
            file.seek(int(self._starts[i]))
            for _, _, cells in _records(file, self._separator, self.place):
                if len(cells) != len(self.columns):
                    break
                return {name: self._cell(cells[self.columns.index(name)], name) for name in columns}
        raise BadSample(f"{self.where(i)}: the file changed while it was read; run the same command again")

    def column(self, name: str) -> Iterator[str | None]:
        at = self.columns.index(name)
        with open(self.place, "rb") as file:
            rows = _records(file, self._separator, self.place)
            next(rows)
            for _, _, cells in rows:
                yield self._cell(cells[at], name)

    def _cell(self, cell: str, column: str) -> str | None:
        text = cell.strip()
        return cell if text.lower() not in MISSING or (text and text in self.kept.get(column, ())) else None

    def is_text(self, name: str) -> bool:
        return True


def _records(file: io.BufferedReader, separator: str, place: Path) -> Iterator[tuple[int, int, list[str]]]:
    """Yields position in bytes, number of the first line and cells of each row. A row may have several lines if cells are quoted."""
    at = file.tell()
    start, line, first = at, 0, 1

    def lines() -> Iterator[str]:
        nonlocal at, line
        while content := file.readline(MAX_ROW_BYTES):
            at += len(content)
            line += 1
            yield content.decode("utf-8-sig" if at == len(content) else "utf-8")

    rows = csv.reader(lines(), delimiter=separator, strict=True)
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield start, first, cells
            start, first = at, line + 1
    except csv.Error as error:
        raise MaskweaveError(f"{place}: line {line} cannot be read as a table ({error}); correct it") from error
