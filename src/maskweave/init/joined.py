"""A table beside files: one column has the names of the files, the others are modalities."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from maskweave.data.table_source import is_line_table, open_line_table
from maskweave.init.contents import FileContent
from maskweave.init.data_sets import ROW_NUMBERS, Namer, ValueSet, value_content
from maskweave.init.listing import FolderListing
from maskweave.init.names import SHARED
from maskweave.values.formats import split_ending


def table_beside(root: Path) -> Path | None:
    """Returns the only csv file or file of JSON lines of a folder that has other files or folders, too."""
    if not root.is_dir():
        return None
    inside = [p for p in sorted(root.iterdir()) if not p.name.startswith(".") and not p.is_symlink()]
    tables = [p for p in inside if p.is_file() and is_line_table(p)]
    return tables[0] if len(tables) == 1 and len(inside) > 1 else None


def joined(listing: FolderListing, path: Path) -> FolderListing:
    """Returns a listing with the columns of a table as further modalities; with a note instead if no column names the files.

    Raises:
        MaskweaveError: the table is damaged.
    """
    table = open_line_table(path)
    columns = {name: [None if _is_empty(cell) else cell for cell in table.column(name)] for name in table.columns}
    names = _known_names(listing)
    rows = {
        column: [names.get(_plain(cell), "") if isinstance(cell, str) else "" for cell in cells]
        for column, cells in columns.items()
    }
    best = max(rows, key=lambda column: len({*rows[column]} - {""}))
    found = {key: i for i, key in enumerate(rows[best]) if key}
    if len(found) < SHARED * min(len(table), len(listing.names)):
        listing.left_out.append(f"{path.name}: none of its columns has the names of the files")
        return listing
    twice = sum(bool(key) for key in rows[best]) - len(found)
    told = [f"{path.name}, column {best}: the names of the files"]
    told += [f"{path.name}: {len(table) - len(found) - twice} rows without a file"] * (len(found) + twice < len(table))
    told += [f"{path.name}: {twice} rows that name a file again; the last row of each is used"] * bool(twice)
    name = Namer()
    for one in listing.sets:
        name(one.name)
    sets = list(listing.sets)
    for column, cells in columns.items():
        if column != best and column.strip() and column.lower() not in ROW_NUMBERS:
            values = {key: cells[i] for key, i in found.items() if cells[i] is not None}
            sets.append(
                ValueSet(
                    name(column), path.parent, dict.fromkeys(values, ""), partial(_load, values), "txt", values=values
                )
            )
    return replace(listing, layout="named", sets=sets, left_out=[*listing.left_out, *told])


def _load(values: Mapping[str, Any], key: str) -> FileContent:
    return value_content(values[key])


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _known_names(listing: FolderListing) -> dict[str, str]:
    """Returns the sample by each text that names it alone: its name or path, with the folders or without."""
    found: dict[str, set[str]] = {}
    for one in listing.sets:
        for key, path in one.files.items():
            full = (one.folder / path).relative_to(listing.root).as_posix()
            for text in (key, _plain(full), _plain(path)):
                for form in (text, text.rpartition("/")[2]):
                    found.setdefault(form, set()).add(key)
    return {text: next(iter(keys)) for text, keys in found.items() if len(keys) == 1}


def _plain(cell: str) -> str:
    """Returns a name or path without its ending."""
    return split_ending(cell.strip().replace("\\", "/").removeprefix("./"))[0]
