"""Files that hold a single number or name, or several under keys of which an entry reads one."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from maskweave.errors import shown
from maskweave.values import files, formats
from maskweave.values.base import refuse
from maskweave.values.formats.base import Selection
from maskweave.values.remarks import remark

TEXTS = ("txt", "csv")
SINGLE_ENDINGS = ("json", *TEXTS, *formats.ARRAYS)
"""Endings of files that can hold a single number or name."""


def says_nothing(text: str) -> bool:
    """Whether a text is empty or one of the usual words for a missing number, such as `nan` or `null`."""
    from maskweave.values.formats.tables import MISSING

    return text.lower() in MISSING


def read_single(content: bytes, ending: str, key: str, where: str) -> Any:
    """Returns the single number or name in a file: text from txt and csv, whatever JSON holds, a number from arrays. None: the file lacks the key.

    Args:
        key: name of the value in a JSON object, of its column in a CSV table with one row, or of its array; empty: the file holds nothing else.

    Raises:
        BadSample: the file is damaged, or holds several values.
    """
    match ending:
        case "json":
            found = files.read_json_value(content, where)
            if not (key and isinstance(found, Mapping)):
                return found
            if key not in found:
                remark(f"files without the key {key!r} count as missing")
            return found.get(key)
        case "csv":
            rows = [row for row in csv.reader(io.StringIO(files.read_text(content, where))) if row]
            if key and len(rows) == 2 and key in rows[0] and len(rows[1]) == len(rows[0]):
                return rows[1][rows[0].index(key)].strip()
            if not rows:
                return ""
            if len(rows) != 1 or len(rows[0]) != 1:
                cells = f"one cell, or the column {key!r} and one row" if key else "one cell"
                raise refuse(where, f"{len(rows)} rows of {max(map(len, rows), default=0)} columns", cells)
            return rows[0][0].strip()
        case "txt":
            return files.read_text(content, where).strip()
        case _:
            array = formats.read(content, ending, where, Selection(key, axes=0)).numbers()
            if array.size != 1:
                raise refuse(where, f"an array of shape {array.shape}", "one number")
            return array.reshape(()).item()


def parse_number(text: str, where: str) -> float:
    """Returns a number that is written as text.

    Raises:
        BadSample: it is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise refuse(where, f"the text {shown(text)}", "a number") from None
