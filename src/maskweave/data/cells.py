"""Cells of a table as the bytes of files, so that every value type reads them as it reads its files.

| cell | becomes |
| --- | --- |
| text | the file at this path, in a column of paths; otherwise a txt or json file with this text |
| bytes, or {bytes, path} as Hugging Face `datasets` stores pictures and sound | the file; its kind is that of the path, or of its first bytes |
| number, boolean (as 0 or 1), list of texts, structure | a json file |
| list of numbers, of any depth | an npy file |
| null | a missing value |
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.part_source import FilePart
from maskweave.errors import BadSample, shown
from maskweave.files import parse_json
from maskweave.modality.entry import Modality
from maskweave.values.array import as_numbers
from maskweave.values.files import read_bytes, write_npy
from maskweave.values.formats import split_ending
from maskweave.values.remarks import remark

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tif"),
    (0, b"MM\0*", "tif"),
    (8, b"WEBP", "webp"),
    (8, b"WAVE", "wav"),
    (8, b"AVI ", "avi"),
    (4, b"ftyp", "mp4"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"PK\x03\x04", "npz"),
    (0, b"\x89HDF", "h5"),
    (0, b"SIMPLE", "fits"),
)
"""Position and bytes by which a file without a name is recognized, and its ending."""


class NamedFiles:
    """Files that a table names, relative to its folder.

    Args:
        root: the folder.
        outside: whether paths may lead out of the folder.
    """

    def __init__(self, root: Path, outside: bool = False):
        self.root, self.outside = root, outside

    def part(self, path: str, entry: Modality, where: str) -> FilePart | None:
        """Returns the file at a path; None if it does not exist.

        Raises:
            BadSample: the path leads out of the folder, or the file cannot be read.
        """
        if "\0" in path:
            raise BadSample(f"{where}: found a path with a zero byte; expected the name of a file")
        file = self.root / path.strip()
        try:
            leads_out = not self.outside and not file.resolve().is_relative_to(self.root.resolve())
            exists = file.is_file()
        except (OSError, RuntimeError) as error:  # a name that is too long, or links in a circle
            reason = getattr(error, "strerror", None) or error
            raise BadSample(f"{where}: found {shown(path)} ({reason}); expected the path of a file") from error
        if leads_out:
            raise BadSample(
                f"{where}: {shown(path)} leads out of the folder {self.root}; move the file there, or set data.outside_paths: true if you trust this table"
            )
        if not exists:
            remark("files that the table names but that do not exist count as missing")
            return None
        return FilePart(read_bytes(file), split_ending(file.name)[1], str(file))


def holds_paths(cells: Iterable[Any], entry: Modality) -> bool:
    """Whether a column has paths of files instead of values: more than half of its texts end like files that the entry can read."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    endings = entry.value.endings
    found = sum(len(text) < 1000 and split_ending(text.strip())[1] in endings for text in texts)
    return 2 * found > len(texts)


def cell_part(cell: Any, entry: Modality, where: str, files: NamedFiles, paths: bool) -> FilePart | None:
    """Returns a cell as the bytes of a file; None if it is missing.

    Args:
        cell: None, text, bytes, a number, a list, an array or a mapping.
        where: name of the cell in errors.
        paths: texts are paths.

    Raises:
        BadSample: values of this type cannot be read from such a cell.
    """
    if isinstance(cell, Mapping) and {*cell} == {"bytes", "path"}:
        if cell["bytes"] is not None:
            return _file(cell["bytes"], cell["path"] or "", entry, where)
        cell, paths = cell["path"], True
    if cell is None:
        return None
    if isinstance(cell, (bool, np.bool_)):
        cell = int(cell)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return _file(bytes(cell), "", entry, where)
    if isinstance(cell, str):
        if not cell.strip():
            return None
        return files.part(cell, entry, where) if paths else _text(cell, entry, where)
    return _content(cell, entry, where)


def _file(content: bytes, path: str, entry: Modality, where: str) -> FilePart:
    ending = split_ending(path)[1]
    if ending not in entry.value.endings:
        ending = next((e for at, start, e in MAGIC if content.startswith(start, at)), ending)
        ending = "txt" if not ending and "txt" in entry.value.endings else ending
    return FilePart(content, ending or "unknown", where)


def _text(cell: str, entry: Modality, where: str) -> FilePart:
    endings, text = entry.value.endings, cell.strip()
    structured = text.startswith(("[", "{")) and not entry.value.is_text
    if structured:
        try:
            return _content(parse_json(text), entry, where)
        except (ValueError, RecursionError) as error:
            raise BadSample(f"{where}: {shown(cell)} is not JSON ({error}); correct it") from error
    if "txt" in endings:
        return FilePart(cell.encode("utf-8", "surrogatepass"), "txt", where)
    if "json" in endings:
        return _content(cell, entry, where)
    raise BadSample(
        f"{where}: found the text {shown(cell)}; expected a path of a file that ends in {', '.join(endings)}, for values of type {entry.value.type!r}"
    )


def _content(cell: Any, entry: Modality, where: str) -> FilePart:
    """A number, list, array or mapping."""
    if "npy" in entry.value.endings and "json" not in entry.value.endings:
        return FilePart(write_npy(as_numbers(np.atleast_1d(_rows(cell, where)), where)), "npy", where)
    if "json" not in entry.value.endings:
        raise BadSample(
            f"{where}: found {shown(cell)}; expected a file that ends in {', '.join(entry.value.endings)}, for values of type {entry.value.type!r}"
        )
    key = getattr(entry.value, "key", "")
    if key and not isinstance(cell, Mapping):
        cell = {key: cell}
    return FilePart(json.dumps(cell, default=_plain).encode(), "json", where)


def _rows(cell: Any, where: str) -> Any:
    if isinstance(cell, Mapping):
        raise BadSample(f"{where}: found a structure with {', '.join(map(str, cell))}; expected a list of numbers")
    try:
        return np.asarray([np.nan if item is None else item for item in cell] if isinstance(cell, list) else cell)
    except (ValueError, TypeError) as error:
        raise BadSample(f"{where}: found rows of different lengths; expected one length") from error


def _plain(item: Any) -> Any:
    return item.tolist() if hasattr(item, "tolist") else str(item)
