"""csv and txt: rows of numbers, with or without a line of column names.

Cells are separated by commas, semicolons, tabs or blanks. Cells of `MISSING` are missing. Text after `#` is a comment.
"""

import csv
import re
from collections.abc import Iterator

import numpy as np

from maskweave.errors import BadSample, shown
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, choose, listed

MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-nan"})
"""Cells of tables that say that a value is missing, in lower case."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the numbers as (rows, columns), int64 or float64 with NaN for missing cells.

    `array` chooses one column by its name: (rows,). For a vector, a single row or column becomes (numbers,). For values of one axis and
    one channel, a single row is taken as a column.

    Raises:
        BadSample: there are no numbers, rows have different lengths, some but not all channels have a column of their name, or a cell is not a number; gives the line.
    """
    lines = list(_rows(files.read_text(content, where)))
    if not lines:
        raise BadSample(f"{where}: found no numbers; expected rows of numbers")
    names = lines[0][1] if not all(map(_is_number, lines[0][1])) else []
    width = len(lines[0][1])
    for number, cells in lines:
        if len(cells) != width:
            raise BadSample(
                f"{where}: line {number} has {len(cells)} cells; expected {width}, as in line {lines[0][0]}"
            )
    column = _column(names, width, selection.array, where)
    wanted = [*range(width)] if column is None else [column]
    present = {*selection.columns} & {*names} if column is None else set()
    if present and (missing := [c for c in selection.columns if c not in present]):
        raise BadSample(
            f"{where}: has the column {min(present)!r}, but not {listed(missing)}; found {listed(names)}; expected all of value.channel_names or none; rename the columns, or the entry's channels"
        )
    if present:
        return Stored(
            _numbers([(n, [cells[names.index(c)] for c in selection.columns]) for n, cells in lines[1:]], where)
        )
    if column is None and selection.coordinates:
        coordinates = _column(names, width, selection.coordinates, where, "value.axis.array")
        if coordinates is None:
            raise BadSample(
                f"{where}: found one column; expected coordinates, value.axis.array {selection.coordinates!r}, and values"
            )
        wanted.remove(coordinates)
        column = wanted[0] if len(wanted) == 1 else None
    rows = [(number, [cells[i] for i in wanted]) for number, cells in lines[bool(names) :]]
    if not rows:
        raise BadSample(f"{where}: found only the column names {listed(names)}; expected rows of numbers below them")
    array = _numbers(rows, where)
    if column is not None:
        return Stored(array[:, 0])
    if selection.axes == 0 and 1 in array.shape:
        return Stored(array.reshape(-1))
    return Stored(array.T if selection.axes == 1 == selection.channels and len(array) == 1 else array)


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not empty."""
    separator = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip(" \r\n")
        if not line.strip():
            continue
        separator = separator or _separator(line)
        if separator == " ":
            yield number, re.split(r"\s+", line)
        else:
            yield number, [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def _separator(line: str) -> str:
    if "\t" in line and not any(" " in cell and all(map(_is_number, cell.split())) for cell in line.split("\t")):
        return "\t"  # and blanks may be inside of column names
    return next((mark for mark in ";," if mark in line), " ")


def _column(names: list[str], width: int, wanted: str, where: str, key: str = "value.array") -> int | None:
    """Returns the index of the wanted column, by its name, or by its number if the columns have no names; None for all columns."""
    if not wanted or (not names and width == 1):
        return None
    if not names and wanted.isdigit() and 1 <= int(wanted) <= width:
        return int(wanted) - 1
    if not names:
        raise BadSample(
            f"{where}: found {width} columns without names; expected a first line with their names, because {key} is {wanted!r}; or give its number, 1 to {width}"
        )
    return names.index(choose(names, wanted, where))


def _is_number(cell: str) -> bool:
    if cell.lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number


def _numbers(rows: list[tuple[int, list[str]]], where: str) -> np.ndarray:
    for number, cells in rows:
        for cell in cells:
            if not _is_number(cell):
                raise BadSample(f"{where}: line {number} holds {shown(cell, 40)}; expected a number")
    try:
        return np.array([[int(cell) for cell in cells] for _, cells in rows], np.int64)
    except (ValueError, OverflowError):  # not all are whole numbers
        return np.array([[np.nan if cell.lower() in MISSING else float(cell) for cell in cells] for _, cells in rows])
