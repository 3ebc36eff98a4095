"""init on data sets that are not folders of files: tables, LeRobot, COCO, tars."""

import csv
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arkit_miniature import write_scan
from data_set_helpers import coco_folder, picture, version_2, version_3
from PIL import Image

from maskweave.data.import_source import import_data
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.init import data_sets
from maskweave.init.project import Project, import_files, make_project
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source

COUNT = 12


def made(root: Path, tmp_path: Path) -> tuple[Project, Catalog]:
    """A project with its data imported."""
    project = make_project(root, tmp_path / "project")
    import_files(project)
    return project, load_catalog(tmp_path / "project/catalog.yaml")


def opened(project: Project) -> set[str]:
    """Names of the modalities that the written recipe reads."""
    recipe = load_recipe(project.folder / "recipe.yaml")
    return set(open_source(recipe, load_catalog(project.folder / "catalog.yaml"), "train").names)


def types(catalog: Catalog) -> dict[str, str]:
    return {name: m.value.type for name, m in catalog.items() if not m.source}


def table(root: Path) -> Path:
    for i in range(COUNT):
        picture(root / f"img/{i}.png", 10 * i)
    with open(root / "t.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "photo_path", "title", "depth of water", "kind"])
        for i in range(COUNT):
            rows.writerow([f"s{i}", f"img/{i}.png", f"number {i}", "" if i == 3 else i / 7, "cat" if i % 2 else "dog"])
    return root / "t.csv"


def test_a_table(tmp_path: Path) -> None:
    project, catalog = made(table(tmp_path / "in"), tmp_path)
    expected = {"photo": "image", "title": "text", "depth_of_water": "scalar", "kind": "label"}
    assert types(catalog) == expected and opened(project) == set(expected)
    assert project.listing.fields == {"photo": "photo_path", "depth_of_water": "depth of water", "name": "id"}
    assert "--fields" in project.import_command and "column id: names of the samples" in project.survey_text()
    assert Shards(project.folder / "data", catalog).key(0) == "s0"
    assert {f.name: f.files for f in project.findings}["depth_of_water"] == COUNT - 1


def test_parquet_with_pictures_and_numbers(tmp_path: Path) -> None:
    picture(tmp_path / "p.png", 9)
    content = (tmp_path / "p.png").read_bytes()
    columns = {
        "image": [{"bytes": content, "path": None}] * COUNT,
        "speed": [np.linspace(0, i, 40).tolist() for i in range(COUNT)],
        "score": [i / 9 for i in range(COUNT)],
    }
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in/a.parquet")
    project, catalog = made(tmp_path / "in", tmp_path)
    found = types(catalog)
    assert found["image"] == "image" and found["score"] == "scalar" and opened(project) == {"image", "speed", "score"}
    assert catalog["speed"].value.size == (40,)


def project_fps(root: Path) -> float:
    return json.loads((root / "meta/info.json").read_text(encoding="utf-8"))["fps"]


@pytest.mark.parametrize("version", [version_2, version_3])
def test_lerobot(version: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = version(tmp_path / "robot")
    project, catalog = made(root, tmp_path)
    assert types(catalog)["top"] == "video" and catalog["top"].value.fps == min(8, project_fps(root))
    assert opened(project) == {"state", "reward", "top", "task"}
    assert catalog["state"].value.channels == 2 and project.listing.window == 0
    monkeypatch.setattr(data_sets, "LONG", 10)
    monkeypatch.setattr(data_sets, "WINDOW", 8)
    long = make_project(root, tmp_path / "long")
    import_files(long)
    recipe = load_recipe(tmp_path / "long/recipe.yaml")
    assert "--window 8" in long.import_command and recipe.data.split.group == "^episode_\\d+"
    assert len(Shards(tmp_path / "long/data", load_catalog(tmp_path / "long/catalog.yaml"))) == 6


def test_coco(tmp_path: Path) -> None:
    root = coco_folder(tmp_path / "coco")
    project, catalog = made(root, tmp_path)
    assert types(catalog) == {"image": "image", "boxes": "boxes", "instances": "instances", "captions": "text", "categories": "tags"}  # fmt: skip
    assert catalog["boxes"].value.classes == catalog["instances"].value.classes == ("cat", "dog")
    first = Shards(project.folder / "data", catalog)[0]
    assert first["boxes"][0]["class"] == "cat"
    masks, picture_size = first["instances"], catalog["image"].value.size
    assert [item["class"] for item in masks] == ["cat", "dog"] and masks[0]["mask"].shape == picture_size
    assert masks[0]["mask"].mean() == pytest.approx(0.25, abs=0.02), "4×4 of 8×8 points"
    assert opened(project) == {"image", "boxes", "instances", "captions", "categories"}
    recipe = load_recipe(project.folder / "recipe.yaml")
    codec = SequenceTokenizer(catalog["instances"], TextTokenizer.train(catalog.vocabularies["text"], ["a cat"]))
    assert [len(v) for v in codec.decode(codec.encode([masks]))] == [min(2, catalog["instances"].value.max_items)]
    assert any(request.targets == ["instances"] for request in recipe.evaluate.requests)


def test_arkit_scenes(tmp_path: Path) -> None:
    entries, root = load_catalog("scenes-3d").subset(["rgb", "depth", "boxes3d"]), tmp_path / "arkit"
    scenes = Scenes(entries, COUNT, seed=11)
    for number, scan in enumerate(("scan1", "scan2")):
        write_scan(root / "Training" / scan, scenes, [*range(6 * number, 6 * number + 6)], 0.7 - number)
    levels = Image.open(path := next(root.rglob("lowres_depth/*.png")))
    holes = np.array(levels)
    holes[:3] = 0
    Image.fromarray(holes).save(path)
    project, catalog = made(root, tmp_path)
    assert types(catalog) == {"lowres_wide": "image", "lowres_depth": "map", "boxes": "boxes3d"}
    assert project.listing.fields == {"boxes": "3dod"} and opened(project) == {"lowres_wide", "lowres_depth", "boxes"}
    recipe = load_recipe(project.folder / "recipe.yaml")
    assert recipe.data.split.group and "frames of scans of ARKitScenes" in project.survey_text()
    depth, boxes = catalog["lowres_depth"].value, catalog["boxes"].value
    assert (depth.unit, depth.file_scale, depth.missing) == ("m", 0.001, (0,))
    true = [item for i in range(COUNT) for item in scenes[i]["boxes3d"]["boxes"]]
    assert set(boxes.classes) == {item["class"].replace(" ", "_") for item in true}
    samples = dict(read_all(Shards(project.folder / "data", catalog)))
    assert len(samples) == COUNT
    first = samples["Training/scan1/scan1_100.000"]
    expected = scenes[0]["boxes3d"]["boxes"]
    assert len(first["boxes"]["boxes"]) == len(expected)
    assert np.allclose(first["boxes"]["boxes"][0]["center"], expected[0]["center"], atol=1e-6)
    known = np.concatenate([sample["lowres_depth"].ravel() for sample in samples.values()])
    assert np.nanmin(known) > 0.3 and np.nanmax(known) < 20 and np.isnan(known).any()
    codec = SequenceTokenizer(catalog["boxes"], TextTokenizer.train(catalog.vocabularies["text"], []))
    assert [len(v["boxes"]) for v in codec.decode(codec.encode([first["boxes"]]))] == [len(expected)]


def test_boxes_in_space_of_a_folder(tmp_path: Path) -> None:
    scenes = Scenes(load_catalog("scenes-3d").subset(["rgb", "boxes3d"]), COUNT, seed=3)
    for i in range(COUNT):
        for name, content in (("solids", scenes[i]["boxes3d"]), ("facts", {"a": i})):
            path = tmp_path / f"in/{name}/s{i}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    project, catalog = made(tmp_path / "in", tmp_path)
    value = catalog["solids"].value
    assert value.type == "boxes3d"
    true = [item for i in range(COUNT) for item in scenes[i]["boxes3d"]["boxes"]]
    centers, sizes = (np.array([item[key] for item in true]) for key in ("center", "size"))
    (left, right), (high, low), (near, far) = value.range
    assert left == -right and right >= np.abs(centers[:, 0]).max() and near <= centers[:, 2].min() and near >= 0
    assert high <= centers[:, 1].min() and low >= centers[:, 1].max() and far >= centers[:, 2].max()
    assert value.largest >= sizes.max() and len(Shards(project.folder / "data", catalog)) == COUNT
    broken = tmp_path / "in/solids/s0.json"
    broken.write_text(
        json.dumps({"camera": {}, "boxes": [{"class": "cube", "center": [1], "size": [1], "yaw": 0}]}), encoding="utf-8"
    )
    assert "boxes in space of another form" in make_project(tmp_path / "in", tmp_path / "other").survey_text()


def read_all(source: Shards) -> list[tuple[str, dict]]:
    return [(source.key(i), source[i]) for i in range(len(source))]


def test_coco_masks_without_the_package_or_without_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = coco_folder(tmp_path / "coco")
    monkeypatch.setattr(data_sets, "has_package", lambda name: False)
    project, catalog = made(root, tmp_path)
    assert "instances" not in catalog and "pip install 'maskweave[eval]'" in project.survey_text()
    monkeypatch.undo()
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for item in content["annotations"]:
        del item["segmentation"]
    path.write_text(json.dumps(content), encoding="utf-8")
    project = make_project(root, tmp_path / "boxes")
    assert (
        "instances" not in load_catalog(tmp_path / "boxes/catalog.yaml")
        and "masks of objects" not in project.survey_text()
    )


def test_webdataset_tars_and_our_own(tmp_path: Path) -> None:
    picture(tmp_path / "p.png", 9)
    members = {"png": (tmp_path / "p.png").read_bytes(), "seg.npy": b"", "txt": b"", "cls": b""}
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/00.tar", "w") as tar:
        for i in range(COUNT):
            buffer = io.BytesIO()
            np.save(buffer, np.float32(np.linspace(0, i, 30)))
            members |= {"seg.npy": buffer.getvalue(), "txt": f"number {i}".encode(), "cls": str(i % 2).encode()}
            for field, content in members.items():
                info = tarfile.TarInfo(f"{i:03d}.{field}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    project, catalog = made(tmp_path / "in", tmp_path)
    assert types(catalog) == {"picture": "image", "seg": "map", "text": "text", "class": "label"}
    assert project.listing.fields == {"picture": "png", "seg": "seg.npy", "text": "txt", "class": "cls"}
    assert opened(project) == set(types(catalog))
    again = make_project(project.folder / "data", tmp_path / "again")
    import_files(again)
    assert not again.imported and not (tmp_path / "again/data").exists()
    assert types(load_catalog(tmp_path / "again/catalog.yaml")) == types(catalog) and opened(again) == set(
        types(catalog)
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_whole_numbers_in_columns_named_like_classes(tmp_path: Path, ending: str) -> None:
    columns = {
        "Label": lambda i: 5 * (i % 12),
        "target_id": lambda i: i % 3 - 1,
        "class": lambda i: i % 13,  # fewer than two samples each
        "category": lambda i: i % 3 / 2,
        "count": lambda i: i % 3,
    }
    rows = [{"name": f"s{i:02d}"} | {name: number(i) for name, number in columns.items()} for i in range(24)]
    path = tmp_path / f"t.{ending}"
    with path.open("w", newline="", encoding="utf-8") as file:
        if ending == "csv":
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    project, catalog = made(path, tmp_path)
    others = {"class": "scalar", "category": "scalar", "count": "scalar"}
    assert types(catalog) == {"Label": "label", "target_id": "label"} | others
    assert catalog["target_id"].value.classes == ("-1", "0", "1")
    assert catalog["Label"].value.classes == tuple(str(5 * i) for i in range(12))
    told = "Label: 12 different whole numbers in a column of this name are taken as classes; if they are quantities, set value: {type: scalar} and import again"
    assert told in project.survey_text() and project.survey_text().count("are taken as classes") == 2
    data = Shards(project.folder / "data", catalog)
    assert [data[i]["Label"] for i in range(3)] == ["0", "5", "10"] and data[0]["target_id"] == "-1"
    text = (project.folder / "catalog.yaml").read_text(encoding="utf-8")
    start, end = text.index("\n  Label:"), text.index("\n  target_id:")
    entry = re.sub(r"value:\n      type: label .*\n      classes: .*", "value: {type: scalar}", text[start:end])
    (tmp_path / "own.yaml").write_text(text[:start] + entry + text[end:], encoding="utf-8")
    again = load_catalog(tmp_path / "own.yaml")
    import_data(str(path), tmp_path / "again", again, fields=project.fields)
    assert Shards(tmp_path / "again", again)[2]["Label"] == 10


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,index\na,0\nb,1\n", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="nothing usable: column id: names of the samples"):
        make_project(tmp_path / "t.csv", tmp_path / "project")
