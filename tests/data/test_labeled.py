"""Labeled pictures: folders of classes and COCO's json, sound and broken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.data.labeled import ClassFolders, CocoBoxes
from maskweave.data.reading import read
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json
from maskweave.modality.catalogs import load_catalog

CATALOG = load_catalog("scenes")
RGB, BOXES = CATALOG["rgb"], CATALOG["boxes"]


def picture(path: Path, value: int, size: tuple[int, int] = (70, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def test_folders_are_classes(tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "bee", "cat")):
        for i in range(4):
            picture(tmp_path / name / ("more" if i else "") / f"{i}.png", 80 * label)
    (tmp_path / "ant" / "notes.txt").write_text("left aside")
    (tmp_path / ".hidden").mkdir()
    found = ClassFolders(tmp_path, RGB)
    assert isinstance(found, Source) and found.classes == ("ant", "bee", "cat") and len(found) == 12
    assert all(
        found[i]["rgb"].shape == (64, 64, 3) and found[i]["rgb"][0, 0, 0] == 80 * found.labels[i] for i in range(12)
    )
    assert len({found.key(i) for i in range(12)}) == 12
    assert len(set(found.labels[:6])) == 3, "any part has all classes"
    assert ClassFolders(tmp_path, RGB).files == found.files
    (tmp_path / found.key(0)).write_bytes(b"no picture")
    with pytest.raises(BadSample, match="0.png|1.png|2.png|3.png"):
        found[0]


def test_a_file_with_a_name_that_cannot_be_used(tmp_path: Path) -> None:
    for name in ("ant/0.png", "bee/0.png", "bee/1\n.png"):
        picture(tmp_path / name, 0)
    errors = {item.key: item.error for item in read(ClassFolders(tmp_path, RGB), range(3))}
    assert "control character" in errors.pop("bee/1\n.png") and set(errors.values()) == {""}


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="no such folder; expected .*/CLASS/NAME.png"):
        ClassFolders(tmp_path / "nowhere", RGB)
    picture(tmp_path / "ant" / "0.png", 0)
    with pytest.raises(
        MaskweaveError, match=r"contains 1 folders \(ant\); expected one folder per class, for at least two classes"
    ):
        ClassFolders(tmp_path, RGB)
    (tmp_path / "bee").mkdir()
    with pytest.raises(MaskweaveError, match="bee: contains no rgb files"):
        ClassFolders(tmp_path, RGB)


def coco(folder: Path, **changes: Any) -> Path:
    for name in ("a.png", "b.png"):
        picture(folder / "pictures" / name, 9, size=(100, 100))
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 100, "height": 100},
            {"id": 9, "file_name": "b.png", "width": 100, "height": 100},
        ],
        "categories": [{"id": 3, "name": "red cube"}, {"id": 5, "name": "blue cone"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 100, 100], "area": 10000, "iscrowd": 1},
        ],
        **changes,
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_boxes(tmp_path: Path) -> None:
    found = CocoBoxes(coco(tmp_path), tmp_path / "pictures", RGB, BOXES)
    assert isinstance(found, Source) and found.names == ("rgb", "boxes") and len(found) == 2 and found.key(1) == "b.png"
    assert found[0]["boxes"] == [{"class": "blue cone", "box": pytest.approx([0.1, 0.2, 0.4, 0.6])}]
    assert found[0]["rgb"].shape == (64, 64, 3) and found[1]["boxes"] == []


def test_coco_s_json_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "0.0001")
    path = coco(tmp_path)
    with pytest.raises(MaskweaveError, match="expected at most 0.0001 MB"):
        read_json(path)
    assert len(CocoBoxes(path, tmp_path / "pictures", RGB, BOXES)) == 2
    monkeypatch.setattr("maskweave.data.labeled.MAX_ANNOTATIONS_MB", 0.0001)
    with pytest.raises(MaskweaveError, match="instances.json: a JSON file"):
        CocoBoxes(path, tmp_path / "pictures", RGB, BOXES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "ox"}]},
            "categories dog, ox are not among the 32 classes of the entry 'boxes'",
        ),
        ({"images": None}, "is not a COCO JSON file of boxes"),
        (
            {"annotations": [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}]},
            "is not a COCO JSON file of boxes .KeyError: 1.",
        ),
    ],
)
def test_json_that_is_none(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MaskweaveError, match=words):
        CocoBoxes(coco(tmp_path, **changes), tmp_path / "pictures", RGB, BOXES)


def test_single_faults_are_bad_samples(tmp_path: Path) -> None:
    path = coco(tmp_path, annotations=[{"image_id": 7, "category_id": 3, "bbox": [0, 1]}])
    (tmp_path / "pictures" / "b.png").unlink()
    found = CocoBoxes(path, tmp_path / "pictures", RGB, BOXES)
    with pytest.raises(BadSample, match=r"image 7 has the bbox \[0, 1\]; expected \[x, y, width, height\]"):
        found[0]
    with pytest.raises(BadSample, match="b.png: cannot be read"):
        found[1]
    with pytest.raises(MaskweaveError, match="no such folder; expected the pictures listed in"):
        CocoBoxes(path, tmp_path / "none", RGB, BOXES)
    outside = coco(
        tmp_path, images=[{"id": 7, "file_name": "../instances.json", "width": 9, "height": 9}], annotations=[]
    )
    with pytest.raises(BadSample, match="leads out of its folder"):
        CocoBoxes(outside, tmp_path / "pictures", RGB, BOXES)[0]
