"""COCO's JSON files and folders as data sets."""

import json
from pathlib import Path
from typing import Any

import pytest
from data_set_helpers import coco_folder, picture

from maskweave.data.coco import Coco
from maskweave.data.import_source import import_data
from maskweave.data.opening import open_data
from maskweave.data.shards import Shards
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog

CATALOG = load_catalog("scenes")
BOXES = CATALOG.subset(["rgb", "boxes"])
OWN = {
    "vocabularies": {"text": {"size": 900, "words": ["cat", "dog"], "values": {"v0": 64, "v1": 256}}},
    "modalities": {
        "rgb": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
        "boxes": {"id": 2, "kind": "sequence", "vocabulary": "text", "max_tokens": 30, "value": {"type": "boxes", "classes": ["cat", "dog"]}},
        "caption": {"id": 3, "kind": "sequence", "vocabulary": "text", "max_tokens": 30, "value": {"type": "text"}},
        "masks": {"id": 4, "kind": "sequence", "vocabulary": "text", "max_tokens": 60, "value": {"type": "instances", "size": [8, 8], "classes": ["cat", "dog"]}},
        "kinds": {"id": 5, "kind": "grid", "grid": [2], "value": {"type": "tags", "classes": ["cat", "dog"]}},
    },
}  # fmt: skip


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
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_coco_boxes(tmp_path: Path) -> None:
    found = Coco(coco(tmp_path), tmp_path / "pictures", BOXES)
    assert isinstance(found, Source) and found.names == ("rgb", "boxes") and len(found) == 2 and found.key(1) == "b.png"
    assert found[0]["boxes"] == [{"class": "blue cone", "box": pytest.approx([0.1, 0.2, 0.4, 0.6])}]
    assert found[0]["rgb"].shape == (64, 64, 3) and found[1]["boxes"] == []


def test_coco_s_json_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_MAX_TEXT_MB", "0.0001")
    path = coco(tmp_path)
    with pytest.raises(MaskweaveError, match="expected at most 0.0001 MB"):
        read_json(path)
    assert len(Coco(path, tmp_path / "pictures", BOXES)) == 2
    monkeypatch.setattr("maskweave.data.coco.MAX_ANNOTATIONS_MB", 0.0001)
    with pytest.raises(MaskweaveError, match="instances.json: a JSON file"):
        Coco(path, tmp_path / "pictures", BOXES)


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
        Coco(coco(tmp_path, **changes), tmp_path / "pictures", BOXES)


def test_single_faults_are_bad_samples(tmp_path: Path) -> None:
    path = coco(tmp_path, annotations=[{"image_id": 7, "category_id": 3, "bbox": [0, 1]}])
    (tmp_path / "pictures" / "b.png").unlink()
    found = Coco(path, tmp_path / "pictures", BOXES)
    with pytest.raises(BadSample, match=r"image 7 has the bbox \[0, 1\]; expected \[x, y, width, height\]"):
        found[0]
    with pytest.raises(BadSample, match="b.png: cannot be read"):
        found[1]
    with pytest.raises(MaskweaveError, match="no such folder; expected the pictures listed in"):
        Coco(path, tmp_path / "none", BOXES)
    outside = coco(
        tmp_path, images=[{"id": 7, "file_name": "../instances.json", "width": 9, "height": 9}], annotations=[]
    )
    with pytest.raises(BadSample, match="leads out of its folder"):
        Coco(outside, tmp_path / "pictures", BOXES)[0]


@pytest.fixture
def own() -> Catalog:
    return catalog_from(OWN, "own.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return coco_folder(tmp_path / "coco")


def test_a_folder_with_all_features(root: Path, own: Catalog) -> None:
    source = open_data(str(root), own, fields={"masks": "instances", "kinds": "categories"})
    assert (
        isinstance(source, Coco) and source.names == ("rgb", "boxes", "caption", "masks", "kinds") and len(source) == 3
    )
    parts = {name: value for name, _, value in source.parts(0)}
    assert parts["boxes"] == [{"class": "cat", "box": [0, 0, 0.5, 0.5]}, {"class": "dog", "box": [0.125, 0, 0.375, 1]}]
    assert parts["caption"] == "number 0 first" and set(parts["kinds"]) == {"cat", "dog"}
    cat, dog = (item["mask"] for item in parts["masks"])
    assert cat[:4, :4].all() and cat.sum() == 16 and dog[:, 1:3].all() and dog.sum() == 16
    with pytest.raises(BadSample, match=r"image 1: has the segmentation \[\[1, 2\]\]"):
        source[1]
    assert source[2]["boxes"] == [] and source[2]["rgb"].shape == (8, 8, 3)


def test_an_import_of_a_folder(root: Path, own: Catalog, tmp_path: Path) -> None:
    report = import_data(str(root), tmp_path / "out", own, fields={"masks": "instances"}, limit=1.0)
    assert report.per_modality == {"rgb": 3, "boxes": 3, "caption": 2, "masks": 2} and report.samples == 3
    assert f"pictures are read from {root / 'val2017'}" in str(report) and "captions are read from" in str(report)
    assert Shards(tmp_path / "out", own).key(0) == "0.jpg"


def test_an_import_notices_a_changed_picture(root: Path, own: Catalog, tmp_path: Path) -> None:
    for kept in (0, 1, 0):
        report = import_data(str(root), tmp_path / "out", own, limit=1.0)
        assert report.kept == kept
        if kept:
            picture(root / "val2017/2.jpg", 200, (32, 16))


def test_captions_alone_and_several_splits(root: Path, own: Catalog) -> None:
    (root / "annotations/instances_val2017.json").unlink()
    assert open_data(str(root), own).names == ("rgb", "caption")
    with pytest.raises(MaskweaveError, match="there is no feature 'boxes'; found image, captions"):
        open_data(str(root), own, fields={"boxes": "boxes"})
    with pytest.raises(MaskweaveError, match="data.fields has 'depth'"):
        open_data(str(root), own, fields={"depth": "image"})
    (root / "annotations/captions_train2017.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        MaskweaveError, match="annotation files captions_train2017.json, captions_val2017.json; expected one"
    ):
        open_data(str(root), own)
    (root / "val2017").rename(root / "elsewhere")
    with pytest.raises(MaskweaveError, match=r"pictures is missing: '0.jpg' is not in .*val2017.*; set data.pictures"):
        open_data(str(root / "annotations/captions_val2017.json"), own)
