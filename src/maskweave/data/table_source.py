"""Rows of a table as samples: each modality is read from a column, as its value or as the path of a file."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from maskweave.data.array_table import ArrayTable
from maskweave.data.cells import NamedFiles, cell_part, holds_paths
from maskweave.data.csv_table import ENDINGS as CSV_ENDINGS
from maskweave.data.csv_table import CsvTable
from maskweave.data.json_lines import ENDINGS as JSON_LINES
from maskweave.data.json_lines import JsonLines
from maskweave.data.part_source import FilePart, PartSource, read_entries
from maskweave.data.source import check_key
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.modality.catalogs import Catalog

NAME = "name"
"""Key of `data.fields` that gives the column of the samples' names, unless a modality has this name."""
LOOKED_AT = 1000
"""First cells of a column that decide whether it has paths."""
MOST_LISTED = 20


class Table(Protocol):
    """Rows with named columns."""

    place: Path
    """The table's file or folder."""
    columns: Sequence[str]

    def __len__(self) -> int: ...

    def row(self, i: int, columns: Sequence[str]) -> Mapping[str, Any]:
        """Returns the cells of row i: None, text, bytes, numbers, lists, NumPy arrays, mappings."""
        ...

    def column(self, name: str) -> Iterator[Any]:
        """Yields the cells of a column in order."""
        ...

    def is_text(self, name: str) -> bool:
        """Whether the cells of a column are texts."""
        ...

    def where(self, i: int) -> str:
        """Name of row i in errors."""
        ...

    def name(self, i: int) -> str:
        """Name of row i if no column has the names."""
        ...

    def state(self) -> list[Any]:
        """What changes when the table changes."""
        ...


def is_line_table(path: Path) -> bool:
    """Whether a file's ending says that each of its lines is a row."""
    return path.suffix.lower()[1:] in (*CSV_ENDINGS, *JSON_LINES)


def open_line_table(path: Path) -> CsvTable | JsonLines:
    """Opens a file for which `is_line_table` is true."""
    return (JsonLines if path.suffix.lower()[1:] in JSON_LINES else CsvTable)(path)


class TableSource(PartSource):
    """The rows of a table.

    Args:
        table: the rows.
        root: folder that paths in cells are relative to.
        catalog: the entries of the modalities.
        fields: column of each modality, `{"rgb": "image_path", "caption": "text"}`. Several columns, separated by commas, are joined to one
            list of numbers or to one object. A modality that is not listed is read from the column of its name. `name` gives the column with
            the samples' names.
        outside_paths: paths may lead out of the folder.

    Raises:
        MaskweaveError: a column does not exist, no modality has a column, or names are empty, repeated or not safe.
    """

    def __init__(
        self,
        table: Table,
        root: Path,
        catalog: Catalog,
        fields: Mapping[str, str] | None = None,
        outside_paths: bool = False,
    ):
        self.table, self.catalog = table, catalog
        self.files = NamedFiles(root, outside_paths)
        self.notes = list(table.left_out) if isinstance(table, ArrayTable) else []
        fields = dict(fields or {})
        named = fields.pop(NAME, "") if NAME not in catalog else ""
        self.columns = columns_of(table, catalog, fields)
        if isinstance(table, CsvTable):
            table.kept = {
                columns[0]: catalog[name].value.classes for name, columns in self.columns.items() if len(columns) == 1
            }
        self._row: tuple[int, Mapping[str, Any]] = (-1, {})
        self._wanted = list(dict.fromkeys(column for columns in self.columns.values() for column in columns))
        self._paths = {}
        for name, columns in self.columns.items():
            one_text = len(columns) == 1 and table.is_text(columns[0])
            if one_text and holds_paths(islice(table.column(columns[0]), LOOKED_AT), catalog[name]):
                self._paths[name] = columns[0]
        self._keys = self._read_keys(named) if named else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def __len__(self) -> int:
        return len(self.table)

    def key(self, i: int) -> str:
        return self._keys[i] if self._keys is not None else self.table.name(i)

    def state(self) -> list[Any]:
        return [self.table.state(), {name: list(columns) for name, columns in self.columns.items()}]

    def named_files(self, i: int) -> list[Path]:
        columns = [*self._paths.values(), *self._unpacked]
        try:
            row = dict(self.table.row(i, columns)) if columns else {}
        except BadSample:
            return []
        cells = [cell.get("path") if isinstance(cell, Mapping) else cell for cell in row.values()]
        return [self.files.root / cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]

    @cached_property
    def _unpacked(self) -> list[str]:
        """Columns of {bytes, path} whose first cell has no bytes."""
        columns = [column for column in self._wanted if not self.table.is_text(column)]
        try:
            row = dict(self.table.row(0, columns)) if columns else {}
        except BadSample:
            return []
        return [c for c, cell in row.items() if isinstance(cell, Mapping) and cell.get("bytes", b"") is None]

    def part(self, i: int, name: str) -> FilePart | None:
        row, columns = self._cells(i), self.columns[name]
        where = f"{self.table.where(i)}: {', '.join(columns)} ({name})"
        if len(columns) == 1:
            return cell_part(row[columns[0]], self.catalog[name], where, self.files, name in self._paths)
        cells = {column: _number(row[column]) for column in columns}
        if all(cell is None for cell in cells.values()):
            return None
        joined: Any = cells
        if "npy" in self.catalog[name].value.endings:
            joined = [cells[column] for column in columns]
            if bad := [column for column in columns if isinstance(cells[column], str)]:
                raise BadSample(f"{where}: found {shown(cells[bad[0]])} in column {bad[0]}; expected a number")
        return cell_part(joined, self.catalog[name], where, self.files, False)

    def _cells(self, i: int) -> Mapping[str, Any]:
        kept = self._row  # replaced as a whole, because several threads may read
        if kept[0] != i:
            kept = self._row = i, self.table.row(i, self._wanted)
        return kept[1]

    def _read_keys(self, column: str) -> list[str]:
        if column not in self.table.columns:
            raise MaskweaveError(f"{self.table.place}: data.fields.{NAME}: {_no_column(column, self.table)}")
        keys: dict[str, int] = {}
        for i, cell in enumerate(self.table.column(column)):
            key = check_key("" if cell is None else str(cell).strip(), self.table.where(i))
            if key in keys:
                raise MaskweaveError(
                    f"{self.table.where(i)}: the name {shown(key)} is also that of {self.table.where(keys[key])}; expected each name once; choose another column for data.fields.{NAME}"
                )
            keys[key] = i
        return list(keys)


def columns_of(table: Table, catalog: Catalog, fields: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the columns of each modality that the table has.

    Raises:
        MaskweaveError: `fields` names a modality or a column that does not exist, or no modality has a column.
    """
    entries = read_entries(catalog)
    if unknown := [name for name in fields if name not in entries]:
        raise MaskweaveError(
            f"{table.place}: data.fields has {unknown[0]!r}; expected modalities of the catalog: {', '.join(entries)}"
        )
    found = {}
    for name in entries:
        given = fields.get(name, "").strip()
        if not given:
            if name in table.columns:
                found[name] = [name]
            continue
        several = [column.strip() for column in given.split(",")]
        columns = [given] if given in table.columns or len(several) < 2 else several
        if missing := [column for column in columns if column not in table.columns]:
            raise MaskweaveError(f"{table.place}: data.fields.{name}: {_no_column(missing[0], table)}")
        found[name] = columns
    if not found:
        example = "{" + ", ".join(f"{name}: COLUMN" for name in list(entries)[:2]) + "}"
        raise MaskweaveError(
            f"{table.place}: no column is named like a modality ({', '.join(list(entries)[:MOST_LISTED])}); found the columns {_listed(table)}; set data.fields: {example}"
        )
    return found


def _no_column(column: str, table: Table) -> str:
    return f"there is no column {shown(column)}; found {_listed(table)}"


def _listed(table: Table) -> str:
    return ", ".join(table.columns[:MOST_LISTED]) + ", …" * (len(table.columns) > MOST_LISTED)


def _number(cell: Any) -> Any:
    """A cell of a text table as a number, if it is one; None if it is empty."""
    if not isinstance(cell, str):
        return cell
    try:
        return (int(cell) if cell.strip().lstrip("+-").isdecimal() else float(cell)) if cell.strip() else None
    except ValueError:
        return cell
