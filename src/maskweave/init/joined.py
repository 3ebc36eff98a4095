"""Tables about files: one column has the names of the files, the others are modalities.

One table is beside all files. Or, as in ImageFolder data of Hugging Face datasets, each folder such as `train/` has a `metadata.csv` or `metadata.jsonl`, whose
column `file_name` has paths relative to it.
"""

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.table_source import Table, is_line_table, open_line_table
from maskweave.init.contents import FileContent
from maskweave.init.data_sets import ROW_NUMBERS, Namer, ValueSet, readable, value_content
from maskweave.init.listing import FileSet, FolderListing
from maskweave.init.names import SHARED
from maskweave.values.formats import split_ending

METADATA = ("metadata.csv", "metadata.jsonl")
METADATA_TOLD = "metadata tables"
FILE_NAME = "file_name"
"""Column of the names of the files."""


def table_beside(root: Path) -> Path | None:
    """Returns the only csv file or file of JSON lines of a folder that has other files or folders, too."""
    if not root.is_dir():
        return None
    inside = [p for p in sorted(root.iterdir()) if not p.name.startswith(".") and not p.is_symlink()]
    tables = [p for p in inside if p.is_file() and is_line_table(p)]
    return tables[0] if len(tables) == 1 and len(inside) > 1 else None


def metadata_tables(root: Path) -> dict[Path, Table]:
    """Returns the tables `metadata.csv` and `metadata.jsonl` with a column `file_name` in the folders of a folder.

    Raises:
        MaskweaveError: a table is damaged.
    """
    if not root.is_dir():
        return {}
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and not p.is_symlink())
    paths = [folder / name for folder in folders for name in METADATA]
    tables = {p: open_line_table(p) for p in paths if p.is_file() and not p.is_symlink()}
    return {p: table for p, table in tables.items() if FILE_NAME in table.columns}


def joined_metadata(listing: FolderListing, tables: Mapping[Path, Table]) -> FolderListing:
    """Returns a listing with the columns of `metadata_tables` as further modalities. The columns of the same name are one modality.

    Raises:
        MaskweaveError: a table is damaged.
    """
    known = {
        (s.folder / path).relative_to(listing.root).as_posix(): key
        for s in listing.sets
        for key, path in s.files.items()
    }
    values: dict[str, dict[str, Any]] = {}
    told: list[str] = []
    for path, table in tables.items():
        folder = path.parent.name
        names, rows = _rows(table)
        keys = [known.get(posixpath.normpath(f"{folder}/{row[FILE_NAME]}")) for row in rows]
        found = {key: row for key, row in zip(keys, rows, strict=True) if key is not None}
        lost, twice = keys.count(None), len(keys) - keys.count(None) - len(found)
        told += [f"{folder}/{path.name}: {lost} of {len(rows)} rows whose {FILE_NAME} is no file that is used"] * bool(
            lost
        )
        told += [f"{folder}/{path.name}: {twice} rows that name a file again; the last row of each is used"] * bool(
            twice
        )
        for column in names:
            cells = {key: row[column] for key, row in found.items() if not _is_empty(row[column])}
            if column != FILE_NAME and _are_paths(cells.values()):
                cells = {key: f"{folder}/{cell}" for key, cell in cells.items()}
            if column != FILE_NAME:
                values.setdefault(column, {}).update(cells)
    if not any(values.values()):
        return replace(listing, left_out=[*listing.left_out, *told])
    return _with_columns(listing, METADATA_TOLD, listing.root, values, told)


def joined(listing: FolderListing, path: Path) -> FolderListing:
    """Returns a listing with the columns of a table as further modalities; with a note instead if no column names the files.

    Columns of paths are modalities of files, inside the table's folder only; a column that names files of the listing again is left out.

    Raises:
        MaskweaveError: the table is damaged.
    """
    table = open_line_table(path)
    names, rows = _rows(table)
    columns = {name: [None if _is_empty(row[name]) else row[name] for row in rows] for name in names}
    known = _KnownNames(listing)
    best, samples, twice = _column_of_names(columns, known.sample)
    if len(samples) < SHARED * min(len(table), len(listing.names)):
        best, samples, twice = _column_of_names(columns, known.number)
        if twice or len(samples) < SHARED * len(listing.names):
            listing.left_out.append(f"{path.name}: none of its columns has the names of the files")
            return listing
    told = [f"{path.name}, column {best}: the names of the files"]
    told += [f"{path.name}: {len(table) - len(samples) - twice} rows without a file"] * (
        len(samples) + twice < len(table)
    )
    told += [f"{path.name}: {twice} rows that name a file again; the last row of each is used"] * bool(twice)
    values = {
        column: {key: cells[i] for key, i in samples.items() if cells[i] is not None}
        for column, cells in columns.items()
        if column != best
    }
    return _with_columns(listing, path.name, path.parent, values, told)


def _rows(table: Table) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Returns the names of the columns that may be modalities, and the rows with these."""
    names = [column for column in table.columns if column.strip() and column.lower() not in ROW_NUMBERS]
    return names, [table.row(i, names) for i in range(len(table))]


def _with_columns(
    listing: FolderListing, table: str, folder: Path, columns: Mapping[str, Mapping[str, Any]], told: list[str]
) -> FolderListing:
    """Returns a listing with columns, cells by the sample's name, as further modalities.

    Args:
        table: name of the table, for notes.
        folder: that paths in cells are relative to.
        told: notes so far.
    """
    known, name = _KnownNames(listing), Namer()
    for one in listing.sets:
        name(one.name)
    sets = list(listing.sets)
    for column, values in columns.items():
        where = f"{table}, column {column}"
        if not _are_paths(values.values()):
            texts = dict.fromkeys(values, "")
            sets.append(ValueSet(name(column), folder, texts, partial(_load, values), "txt", values=values))
        elif all(known.sample(cell) for cell in values.values()):
            told.append(f"{where}: names files that are used anyway")
        elif files := {key: str(cell).strip() for key, cell in values.items() if _is_inside(folder, cell)}:
            told += [f"{where}: {len(values) - len(files)} paths of files that are not in {folder}"] * (
                len(files) < len(values)
            )
            sets.append(FileSet(name(column), folder, files))
        else:
            told.append(f"{where}: paths of files that are not in {folder}")
    return replace(listing, layout="named", sets=sets, left_out=[*listing.left_out, *told])


def _column_of_names(
    columns: Mapping[str, Sequence[Any]], sample: Callable[[Any], str]
) -> tuple[str, dict[str, int], int]:
    """Returns the column that names most samples, the row of each, and how many rows name a sample again."""
    found = {column: [sample(cell) for cell in cells] for column, cells in columns.items()}
    best = max(found, key=lambda column: len({*found[column]} - {""}), default="")
    rows = {key: i for i, key in enumerate(found.get(best, ())) if key}
    return best, rows, sum(map(bool, found.get(best, ()))) - len(rows)


def _load(values: Mapping[str, Any], key: str) -> FileContent:
    return value_content(values[key])


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _are_paths(cells: Iterable[Any]) -> bool:
    """Whether more than half of the cells end like files that can be read."""
    found = [
        isinstance(cell, str) and len(cell) < 1000 and split_ending(cell.strip())[1] in readable() for cell in cells
    ]
    return 2 * sum(found) > len(found)


def _is_inside(folder: Path, cell: Any) -> bool:
    if not isinstance(cell, str):
        return False
    path = folder / cell.strip()
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


class _KnownNames:
    """Finds the sample that a cell names: by its name or path, with the folders and the ending or without; or by its number."""

    def __init__(self, listing: FolderListing):
        whole: dict[str, set[str]] = {}
        short: dict[str, set[str]] = {}
        for one in listing.sets:
            for key, path in one.files.items():
                full = (one.folder / path).relative_to(listing.root).as_posix()
                for text in (key, full, path):
                    for form in (text, text.rpartition("/")[2]):
                        whole.setdefault(form, set()).add(key)
                        short.setdefault(split_ending(form)[0], set()).add(key)
        self.whole, self.short = _alone(whole), _alone(short)
        numbers: dict[str, set[str]] = {}
        for text, key in self.whole.items():
            if text.isdecimal():
                numbers.setdefault(str(int(text)), set()).add(key)
        self.numbers = _alone(numbers)

    def sample(self, cell: Any) -> str:
        """Returns the name of the sample that a text names; empty if there is none, or several."""
        if not isinstance(cell, str):
            return ""
        text = cell.strip().replace("\\", "/").removeprefix("./")
        return self.whole.get(text) or self.short.get(text) or self.whole.get(split_ending(text)[0]) or ""

    def number(self, cell: Any) -> str:
        """Returns the name of the sample with this number, such as `007` for 7; empty if there is none, or several."""
        text = str(cell).strip() if isinstance(cell, (str, int, np.integer)) and not isinstance(cell, bool) else ""
        return self.numbers.get(str(int(text)), "") if text.isdecimal() else ""


def _alone(found: Mapping[str, set[str]]) -> dict[str, str]:
    return {text: next(iter(keys)) for text, keys in found.items() if len(keys) == 1}
