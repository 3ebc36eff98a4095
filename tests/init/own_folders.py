"""Folders of pictures, arrays and texts as people have them, and their import by the command that `init` prints."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.init.project import Project, import_files, make_project
from maskweave.modality.catalogs import Catalog, load_catalog

COUNT = 8


def picture(path: Path, channels: int = 3, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (48, 56, channels) if channels > 1 else (48, 56)
    Image.fromarray(np.random.default_rng([seed, channels]).integers(0, 256, shape, np.uint8)).save(path)


def array(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).normal(size=(16, 16)).astype(np.float32))


def text(path: Path, words: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(words, encoding="utf-8")


def imported(root: Path, out: Path) -> tuple[Project, Catalog, Shards]:
    """The project of a folder, its catalog and its data, imported by the command that it prints."""
    project = make_project(root, out, minutes=0.1)
    assert main(shlex.split(project.import_command)[1:]) == 0
    catalog = load_catalog(out / "catalog.yaml")
    data = Shards(out / "data", catalog)
    import_files(make_project(root, out, minutes=0.1))  # the same from Python: nothing changes
    assert len(Shards(out / "data", catalog)) == len(data)
    return project, catalog, data


def samples(data: Shards) -> dict[str, set[str]]:
    """Names of the samples and their modalities."""
    return {data.key(i): {name for name, value in data[i].items() if value is not None} for i in range(len(data))}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
