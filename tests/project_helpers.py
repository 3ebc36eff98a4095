"""Folders of files of any kind, and projects made of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from maskweave.init.project import Project, make_project
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.values.formats.video import write_mp4

COUNT = 16
"""Samples of a folder."""


def put(path: Path, content: object) -> None:
    """Write a file as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npy":
            np.save(path, content)
        case ".npz":
            np.savez(path, **content)  # type: ignore[arg-type]
        case ".txt":
            path.write_text(str(content), encoding="utf-8")
        case ".wav" | ".flac":
            soundfile.write(path, *content)  # type: ignore[misc]
        case ".mp4":
            path.write_bytes(write_mp4(*content, "x"))  # type: ignore[misc]
        case ".json":
            path.write_text(json.dumps(content), encoding="utf-8")
        case _:
            Image.fromarray(content).save(path)  # type: ignore[arg-type]


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, np.uint8)


def folder(root: Path, **files: Callable[[int], object]) -> Path:
    """Write `NAME__EXT=file` for each sample; None is no file."""
    for name, make in files.items():
        modality, _, ending = name.partition("__")
        for i in range(COUNT):
            if (content := make(i)) is not None:
                put(root / modality / f"{i:03d}.{ending}", content)
    return root


def made(root: Path, tmp_path: Path, **options: object) -> tuple[Project, Catalog]:
    project = make_project(root, tmp_path / "project", **options)  # type: ignore[arg-type]
    return project, load_catalog(project.folder / "catalog.yaml")
