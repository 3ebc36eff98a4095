"""Aligned folders of photographs, their depth and captions, and their import."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskweave.data.folders import ImportReport, import_folders
from maskweave.modality.catalogs import Catalog, catalog_from

NAMES = [f"set/{i:03d}" for i in range(10)]


def photos() -> Catalog:
    """Photographs, their depth and captions."""
    content = {
        "vocabularies": {"text": {"size": 600}},
        "modalities": {
            "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
            "tok_rgb": {"id": 2, "kind": "grid", "source": "rgb", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
            "depth": {"id": 3, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 9], "unit": "m", "fit": "crop"}},
            "caption": {"id": 7, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "value": {"type": "text"}},
        },
    }  # fmt: skip
    return catalog_from(content, "own.yaml")


def write(root: Path, names: list[str]) -> None:
    """Write the files of samples with these names."""
    for i, name in enumerate(names):
        for folder in ("rgb", "depth", "caption"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12, 3), i % 256, np.uint8)).save(root / "rgb" / f"{name}.png")
        np.save(root / "depth" / f"{name}.npy", np.full((8, 12), i % 9, np.float32))
        (root / "caption" / f"{name}.txt").write_text(f"number {i}", encoding="utf-8")


def contents(out: Path) -> dict[str, bytes]:
    """Returns the bytes of all files under a folder."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def run(root: Path, catalog: Catalog, **options: Any) -> ImportReport:
    """Imports a folder into `out` beside it."""
    return import_folders(root, root.parent / "out", catalog, **{"shard_size": 4, **options})
