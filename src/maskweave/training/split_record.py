"""The files that say which samples of a run are held out, by their contents: a run must not resume with others."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskweave.errors import MaskweaveError
from maskweave.files import read_json, write_json

RECORD = "splits.json"
"""File in a run folder: the hash of each split's file."""


def claim_splits(folder: Path, recipe: Mapping[str, Any], begun: bool) -> None:
    """Record the contents of the files of `data.split` in a run folder.

    Args:
        recipe: as plain values.
        begun: the folder has results.

    Raises:
        MaskweaveError: a file changed since the results were computed. Files that do not exist are reported when the data is opened.
    """
    data = recipe.get("data") or {}
    sets = [data, *(data.get("mix") or {}).values()] if isinstance(data, Mapping) else []
    files = {str(file) for one in sets if (file := (one.get("split") or {}).get("file"))}
    found = {file: _hash(Path(file)) for file in sorted(files) if Path(file).is_file()}
    path = folder / RECORD
    before = read_json(path) if path.is_file() else {}
    changed = [file for file, digest in found.items() if before.get(file, digest) != digest]
    if changed and begun:
        raise MaskweaveError(
            f"{folder}: {', '.join(changed)} changed since this run began, so samples that it was trained on could be held out now; restore the file, or choose another folder with --out"
        )
    if found and found != before:
        write_json(path, found)


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
