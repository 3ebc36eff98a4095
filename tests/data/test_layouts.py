"""Layouts of published data sets, on miniatures of the official files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import ade20k, cifar, coco_panoptic, diode, hypersim, imagenet, nyuv2
from PIL import Image

from maskweave.data.labeled import ClassFolders, LabeledPictures
from maskweave.data.layouts.base import parse_place
from maskweave.data.opening import absolute, open_data
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from


def catalog(**values: dict[str, Any]) -> Catalog:
    shared = {"size": [24, 32], "fit": "crop"}
    entries = {
        "photo": {
            "id": 1,
            "kind": "patches",
            "grid": [3, 4],
            "value": {"type": "image", "size": [24, 32], "channels": 3},
        }
    }
    for number, (name, value) in enumerate(values.items(), 2):
        entries[name] = {"id": number, "kind": "grid", "grid": [3, 4], "value": {**shared, **value}, "tokenizer": {}}
    return catalog_from({"modalities": entries}, "test")


def test_diode(tmp_path: Path) -> None:
    made = diode(tmp_path, count=2)
    entries = catalog(
        far={"type": "map", "range": [0, 300], "missing": "nan"},
        way={"type": "direction", "channels": 3, "missing": "nan"},
    )
    fields = {"photo": "picture", "far": "distance", "way": "direction"}
    source = open_data(f"layout: diode val {tmp_path}", entries, fields=fields)
    assert len(source) == 2 and source.key(0).startswith("indoors/scene_00019/scan_00183/")
    for i, (picture, meters, known, vectors) in enumerate(made):
        sample = source[i]
        assert np.array_equal(sample["photo"], picture)
        assert np.array_equal(np.isnan(sample["far"]), ~known) and np.array_equal(sample["far"][known], meters[known])
        is_vector = np.linalg.norm(vectors, axis=-1) > 0
        assert np.array_equal(np.isnan(sample["way"][..., 0]), ~is_vector)
        assert sample["way"][is_vector] == pytest.approx(vectors[is_vector], abs=1e-5)


def test_coco_panoptic(tmp_path: Path) -> None:
    made = coco_panoptic(tmp_path, {1: "cat", 200: "road"}, count=2)
    entries = catalog(cover={"type": "classes", "classes": ["nothing", "road", "cat"], "ignore": 255})
    source = open_data(
        f"layout: coco-panoptic val2017 {tmp_path}", entries, fields={"photo": "picture", "cover": "classes"}
    )
    index = {"": -1, "road": 1, "cat": 2}
    for i, (picture, names) in enumerate(made):
        assert np.array_equal(source[i]["photo"], picture)
        assert np.array_equal(source[i]["cover"], np.vectorize(index.get)(names))
    with pytest.raises(MaskweaveError, match=r"set value.ignore of the entry"):
        whole = catalog(cover={"type": "classes", "classes": ["road", "cat"]})
        open_data(f"layout: coco-panoptic val2017 {tmp_path}", whole, fields={"cover": "classes"})[0]
    path = tmp_path / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["segments_info"].pop()
    path.write_text(json.dumps(content), encoding="utf-8")
    source = open_data(f"layout: coco-panoptic val2017 {tmp_path}", entries, fields={"cover": "classes"})
    with pytest.raises(BadSample, match=r"has segments \[\d+\] that panoptic_val2017.json does not list with"):
        source[0]
    with pytest.raises(MaskweaveError, match="the classes road are not among the 2 classes"):
        open_data(
            f"layout: coco-panoptic val2017 {tmp_path}",
            catalog(cover={"type": "classes", "classes": ["x", "cat"], "ignore": 255}),
            fields={"cover": "classes"},
        )[1]


def test_coco_panoptic_reads_no_other_files_and_names_segments_of_unknown_categories(tmp_path: Path) -> None:
    coco_panoptic(tmp_path, {1: "cat", 200: "road"}, count=1)
    path = tmp_path / "annotations" / "panoptic_val2017.json"
    entries = catalog(cover={"type": "classes", "classes": ["road", "cat"], "ignore": 255})
    place, fields = f"layout: coco-panoptic val2017 {tmp_path}", {"photo": "picture", "cover": "classes"}
    for part in ("images", "annotations"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content[part][0]["file_name"] = "../../secret.png"
        whole = path.read_text(encoding="utf-8")
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(MaskweaveError, match=r"panoptic_val2017.json: the name '../../secret.png' leads out"):
            open_data(place, entries, fields=fields)
        path.write_text(whole, encoding="utf-8")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["segments_info"][0]["category_id"] = 7
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadSample, match=r"has segments \[\d+\] that panoptic_val2017.json does not list with a known"):
        open_data(place, entries, fields=fields)[0]


@pytest.mark.parametrize("flat", [False, True])
def test_imagenet(flat: bool, tmp_path: Path) -> None:
    imagenet(tmp_path, flat)
    train, val = (
        open_data(f"layout: imagenet {split} {tmp_path}", catalog(), names=["photo"], fields={"photo": "picture"})
        for split in ("train", "val")
    )
    assert isinstance(train, ClassFolders) and isinstance(val, ClassFolders)
    assert train.classes == val.classes == ("n01", "n02", "n03") and len(val) == 6
    for i in range(len(val)):
        brightness = val[i]["photo"].mean()
        assert val.labels[i] == round(brightness / 100), "class 0 is dark, class 2 is bright"


def test_a_path_may_have_spaces(tmp_path: Path) -> None:
    place = parse_place(f"layout: diode val {tmp_path}/my own data")
    assert place is not None and place.root == str(tmp_path.resolve() / "my own data")
    assert str(place) == f"layout: diode val {place.root}" and parse_place(str(place)) == place
    assert parse_place(str(tmp_path)) is None


def test_what_is_no_such_layout_is_told(tmp_path: Path) -> None:
    fields = {"photo": "picture"}
    for place, words in (
        ("layout: nothing val x", "expected layout: NAME SPLIT PATH, where NAME is one of diode"),
        ("layout: diode val", "expected layout: NAME SPLIT PATH"),
        (f"layout: diode val {tmp_path}/no", "no such folder; give the folder of the unpacked data set diode"),
        (f"layout: diode val {tmp_path}", "expected DIODE's split 'val'"),
        (f"layout: coco-panoptic val2017 {tmp_path}", "unpack COCO's panoptic annotations"),
    ):
        with pytest.raises(MaskweaveError, match=words):
            open_data(place, catalog(), fields=fields)
    diode(tmp_path, count=1)
    with pytest.raises(MaskweaveError, match=r"fields.photo: there is no 'photograph'; expected picture, distance"):
        open_data(f"layout: diode val {tmp_path}", catalog(), fields={"photo": "photograph"})
    with pytest.raises(MaskweaveError, match="fields says nothing of photo"):
        open_data(f"layout: diode val {tmp_path}", catalog(), names=["photo"])
    assert absolute("layout:  diode  val here") == f"layout: diode val {Path.cwd() / 'here'}"


def test_damaged_files_are_bad_samples(tmp_path: Path) -> None:
    diode(tmp_path, count=1)
    entries = catalog(far={"type": "map", "range": [0, 300], "missing": "nan"})
    source = open_data(f"layout: diode val {tmp_path}", entries, fields={"far": "distance"})
    (path,) = tmp_path.rglob("*_depth.npy")
    np.save(path, np.zeros(3, np.float32))
    with pytest.raises(BadSample, match=r"found float32 of shape \(3,\); expected \(H, W\)"):
        source[0]
    path.write_bytes(b"torn")
    with pytest.raises(BadSample, match="depth.npy"):
        source[0]
    assert Image.open(next(tmp_path.rglob("*.png"))).size == (32, 24)


def test_nyuv2(tmp_path: Path) -> None:
    made = nyuv2(tmp_path, 5, 3, classes=2)
    entries = catalog(
        far={"type": "map", "range": [0, 10]}, cover={"type": "classes", "classes": ["wall", "floor"], "ignore": 255}
    )
    fields = {"photo": "picture", "far": "distance", "cover": "classes"}
    train, test = (
        open_data(f"layout: nyuv2 {split} {tmp_path}", entries, fields=fields) for split in ("train", "test")
    )
    assert len(train) == 3 and [test.key(i) for i in range(2)] == ["0004", "0005"]
    picture, meters, ids = made[3]
    assert np.array_equal(test[0]["photo"], picture) and np.array_equal(test[0]["far"], meters)
    assert np.array_equal(test[0]["cover"], np.where(ids == 0, -1, ids.astype(int) - 1))
    with pytest.raises(MaskweaveError, match="has no matrix 'valNdxs'"):
        open_data(f"layout: nyuv2 val {tmp_path}", entries, fields=fields)
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(MaskweaveError, match=r"has no splits.mat; expected the files of NYU Depth v2"):
        open_data(f"layout: nyuv2 test {tmp_path}", entries, fields=fields)


def test_ade20k(tmp_path: Path) -> None:
    made = ade20k(tmp_path, {"validation": 2}, classes=3)
    entries = catalog(cover={"type": "classes", "classes": ["1", "2", "3"], "ignore": 255})
    fields = {"photo": "picture", "cover": "classes"}
    source = open_data(f"layout: ade20k validation {tmp_path}", entries, fields=fields)
    assert len(source) == 2 and source.key(1) == "ADE_00000001"
    for i, ids in enumerate(made["validation"]):
        assert np.array_equal(source[i]["cover"], np.where(ids == 0, -1, ids.astype(int) - 1))
    with pytest.raises(MaskweaveError, match="as ADEChallengeData2016.zip unpacks"):
        open_data(f"layout: ade20k training {tmp_path}", entries, fields=fields)


def test_hypersim(tmp_path: Path) -> None:
    made = hypersim(tmp_path, {"train": 1, "val": 2}, classes=3)["val"]
    entries = catalog(
        far={"type": "map", "range": [0, 10]},
        way={"type": "direction", "channels": 3, "missing": "nan"},
        cover={"type": "classes", "classes": ["1", "2", "3"], "ignore": 255},
    )
    fields = {"photo": "picture", "far": "distance", "way": "direction", "cover": "classes"}
    source = open_data(f"layout: hypersim val {tmp_path}", entries, fields=fields)
    assert len(source) == 2 and source.key(1) == "ai_001_002/cam_00/0001"
    for i, (meters, vectors, ids) in enumerate(made):
        assert np.array_equal(source[i]["far"], meters.astype(np.float32))
        assert source[i]["way"] == pytest.approx(vectors.astype(np.float32), abs=2e-3)
        assert np.array_equal(source[i]["cover"], np.where(ids < 0, -1, ids - 1))
    with pytest.raises(MaskweaveError, match="no pictures of the split 'dev'; expected train, val or test"):
        open_data(f"layout: hypersim dev {tmp_path}", entries, fields=fields)
    path = tmp_path / "metadata_images_split_scene_v1.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("ai_001_002", "../../secret"), encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"the name '../../secret/cam_00' leads out of its folder"):
        open_data(f"layout: hypersim val {tmp_path}", entries, fields=fields)


def test_cifar(tmp_path: Path) -> None:
    made, fields = cifar(tmp_path, classes=3, train=12, test=4), {"photo": "picture"}
    entries = catalog_from(
        {"modalities": {"photo": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [32, 32], "channels": 3}}}},
        "test",
    )  # fmt: skip
    for version, inner in ((10, "cifar-10-batches-bin"), (100, "cifar-100-binary")):
        for split in ("train", "test"):
            for root in (tmp_path, tmp_path / inner):
                source = open_data(f"layout: cifar{version} {split} {root}", entries, fields=fields)
                pictures, labels = made[f"{version} {split}"]
                assert isinstance(source, LabeledPictures) and source.classes == ("kind_0", "kind_1", "kind_2")
                assert list(source.labels) == labels.tolist() and len(source) == len(pictures)
                for i, picture in enumerate(pictures):
                    assert np.array_equal(source[i]["photo"], picture)
                assert len({source.key(i) for i in range(len(source))}) == len(source)
                with pytest.raises(IndexError):
                    source[len(source)]
    first = open_data(f"layout: cifar10 train {tmp_path}", entries, fields=fields)
    assert (first.key(2), first.key(3)) == ("data_batch_1/00002", "data_batch_2/00000")
    with pytest.raises(MaskweaveError, match="no split 'val'; expected one of train, test"):
        open_data(f"layout: cifar10 val {tmp_path}", entries, fields=fields)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    whole = path.read_bytes()
    for content, words in ((whole[:-1], "expected records of 3,073 bytes"), (b"\x03" + whole[1:], "has the class 3, but batches.meta.txt lists 3")):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(MaskweaveError, match=words):
            open_data(f"layout: cifar10 train {tmp_path}", entries, fields=fields)
    path.unlink()
    with pytest.raises(MaskweaveError, match=r"lacks data_batch_2\.bin; unpack the binary version"):
        open_data(f"layout: cifar10 train {tmp_path}", entries, fields=fields)
