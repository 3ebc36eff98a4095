"""Layouts in which folders and equal names alone do not say what belongs together: names with suffixes, one folder for all, a table beside files, parts."""

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml
from maskweave.init.listing import list_folder
from maskweave.init.names import files_of_samples, grouped_names, matched_names, parts_of
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


def test_names_that_end_in_their_modality(tmp_path: Path) -> None:
    """ROOT/rgb/tile_000_rgb.png and ROOT/height/tile_000_height.npy."""
    for i in range(COUNT):
        picture(tmp_path / "files" / "rgb" / f"tile_{i:03d}_rgb.png", seed=i)
        array(tmp_path / "files" / "height" / f"tile_{i:03d}_height.npy", i)
    _, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert samples(data) == {f"tile_{i:03d}": {"rgb", "height"} for i in range(COUNT)}
    i = [data.key(n) for n in range(COUNT)].index("tile_005")
    assert np.array_equal(
        np.asarray(data[i]["height"]).squeeze(), np.load(tmp_path / "files" / "height" / "tile_005_height.npy")
    )


def test_a_folder_whose_names_alone_are_longer_joins_the_others(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "files" / "photo" / f"{i:03d}.png", seed=i)
        text(tmp_path / "files" / "note" / f"{i:03d}.txt", f"a note of number {i}")
        array(tmp_path / "files" / "depth" / f"frame-{i:03d}-d16.npy", i)
    _, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert samples(data) == {f"{i:03d}": {"photo", "note", "depth"} for i in range(COUNT)}


@pytest.mark.parametrize(
    ("name", "modalities"),
    [
        (lambda i, kind, ending: f"s{i:02d}_{kind}.{ending}", {"rgb", "depth", "caption"}),
        (lambda i, kind, ending: f"{kind}-s{i:02d}.{ending}", {"rgb", "depth", "caption"}),
        (lambda i, kind, ending: f"s{i:02d}.{ending}", {"png", "npy", "txt"}),
    ],
)
def test_one_folder_for_all(tmp_path: Path, name: Callable[[int, str, str], str], modalities: set[str]) -> None:
    """No file takes the place of another of the same name."""
    root = tmp_path / "files"
    for i in range(COUNT):
        picture(root / name(i, "rgb", "png"), seed=i)
        array(root / name(i, "depth", "npy"), i)
        text(root / name(i, "caption", "txt"), f"caption of number {i}")
    text(root / "README.md", "about")
    project, _, data = imported(root, tmp_path / "p")
    assert samples(data) == {f"s{i:02d}": modalities for i in range(COUNT)}
    assert "README.md: belongs to no sample" in project.survey_text()


def test_a_folder_for_each_sample(tmp_path: Path) -> None:
    """ROOT/scene_00/rgb.png, ROOT/scene_00/depth.npy: the folders are no modalities, and the files no samples."""
    for i in range(COUNT):
        picture(tmp_path / "files" / f"scene_{i}" / "rgb.png", seed=i)
        if i != 3:
            array(tmp_path / "files" / f"scene_{i}" / "depth.npy", i)
    text(tmp_path / "files" / "scene_0" / "remark.txt", "blurred")
    project, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert samples(data) == {f"scene_{i}": {"rgb", "depth"} - ({"depth"} if i == 3 else set()) for i in range(COUNT)}
    assert "1 files whose names few folders have: scene_0/remark.txt" in project.survey_text()


def test_few_samples_of_many_modalities_are_not_folders_of_samples(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / "files" / "a" / f"{i}.png", seed=i)
        array(tmp_path / "files" / "b" / f"{i}.npy", i)
        text(tmp_path / "files" / "c" / f"{i}.txt", f"a note of number {i}")
    listing = make_project(tmp_path / "files", tmp_path / "p", minutes=0.1).listing
    assert listing.layout == "aligned" and listing.names == ["0", "1"]


def test_a_table_beside_files(tmp_path: Path) -> None:
    """Its columns are modalities; rows without a file, and files without a row, are told or lack them."""
    root = tmp_path / "files"
    rows = [["filename", "age", "kind", "note"]]
    for i in range(3 * COUNT):
        picture(root / "img" / f"{i:03d}.png", seed=i)
        rows.append([f"img/{i:03d}.png", str(20 + i), "ab"[i % 2], f"patient {i}, is well"])
    rows[3][1] = ""
    del rows[-1]
    rows.append(["img/999.png", "1", "a", "no such picture"])
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    project, catalog, data = imported(root, tmp_path / "p")
    assert {name: m.value.type for name, m in catalog.items() if name in ("age", "kind", "note", "img")} == {
        "img": "image", "age": "scalar", "kind": "label", "note": "text",
    }  # fmt: skip
    assert "labels.csv, column filename: the names of the files" in project.survey_text()
    assert "labels.csv: 1 rows without a file" in project.survey_text()
    found = {data.key(i): data[i] for i in range(len(data))}
    assert sorted(found) == [f"{i:03d}" for i in range(3 * COUNT)]
    assert float(found["001"]["age"]) == 21 and found["004"]["note"] == "patient 4, is well"
    assert found["002"].get("age") is None and found["023"].get("kind") is None, "an empty cell, and no row"


def test_a_table_that_names_no_file_is_told(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "files" / "img" / f"{i:03d}.png", seed=i)
    text(tmp_path / "files" / "log.csv", "a,b\n1,2\n3,4\n")
    project = make_project(tmp_path / "files", tmp_path / "p", minutes=0.1)
    assert "log.csv: none of its columns has the names of the files" in project.survey_text()


SECRET = "a secret that no table may read"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_cannot_read_files_outside_its_folder(tmp_path: Path, ending: str) -> None:
    """Neither as paths nor as texts that look like paths."""
    root = tmp_path / "files"
    text(tmp_path / "secret" / "key.txt", SECRET)
    rows = []
    for i in range(COUNT):
        picture(root / "img" / f"{i:03d}.png", seed=i)
        outside = str(tmp_path / "secret" / "key.txt") if i % 2 else "../secret/key.txt"
        rows.append({"file": f"{i:03d}.png", "caption": outside if i < 6 else f"a caption of number {i}"})
    write_rows(root / f"labels.{ending}", rows)
    project, catalog, _ = imported(root, tmp_path / "p")
    assert "column caption: paths of files that are not in" in project.survey_text() and "caption" not in catalog
    for path in (tmp_path / "p").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def test_columns_of_paths_beside_folders(tmp_path: Path) -> None:
    """Files that only the table names are a modality; those that a folder has anyway are not twice."""
    root = tmp_path / "files"
    for i in range(COUNT):
        picture(root / "images" / f"{i:03d}.png", seed=i)
        text(root / "more" / "notes" / f"n{i}.txt", f"a note of number {i}")
    rows = [{"id": i, "image": f"images/{i:03d}.png", "note": f"more/notes/n{i}.txt"} for i in range(COUNT)]
    write_rows(root / "labels.csv", rows)
    (root / "more").rename(root / ".more")  # hidden, so that only the table leads there
    for row in rows:
        row["note"] = f".{row['note']}"
    write_rows(root / "labels.csv", rows)
    _, catalog, data = imported(root, tmp_path / "p")
    found = {data.key(i): data[i] for i in range(len(data))}
    assert found["003"]["note"] == "a note of number 3" and len(found) == COUNT
    assert "image" not in catalog and catalog["note"].value.type == "text"


def test_names_with_dots_and_numbers(tmp_path: Path) -> None:
    root, other = tmp_path / "files", tmp_path / "numbers"
    rows = []
    for i in range(COUNT):
        picture(root / f"IMG_{i}.png", seed=i)
        picture(root / f"IMG_{i}.edit.png", seed=i)
        picture(other / f"{i + 1:03d}.png", seed=i)
        rows += [{"id": f"IMG_{i}", "score": i + 0.5}, {"id": f"IMG_{i}.edit", "score": 100 + i}]
    write_rows(root / "labels.csv", rows)
    write_rows(other / "labels.jsonl", [{"id": i + 1, "score": i / 7} for i in range(COUNT)])
    _, _, data = imported(root, tmp_path / "p")
    scores = {data.key(i): float(data[i]["score"]) for i in range(len(data))}
    assert scores == {row["id"]: row["score"] for row in rows}
    _, _, data = imported(other, tmp_path / "q")
    assert {data.key(i): round(float(data[i]["score"]) * 7) for i in range(len(data))} == {
        f"{i + 1:03d}": i for i in range(COUNT)
    }


def test_words_that_mean_nothing_in_csv_and_long_lists(tmp_path: Path) -> None:
    """In JSON lines, `none` is a text; a list may be longer than csv allows a cell to be."""
    root = tmp_path / "files"
    rows = []
    for i in range(3 * COUNT):
        picture(root / "img" / f"{i:03d}.png", seed=i)
        curve = np.random.default_rng(i).normal(size=9000).tolist()
        rows.append({"file": f"{i:03d}", "caption": ["None", f"number {i}"][i % 2], "flag": i % 3 == 0, "curve": curve})
    write_rows(root / "labels.jsonl", rows)
    _, catalog, data = imported(root, tmp_path / "p")
    found = {data.key(i): data[i] for i in range(len(data))}
    assert found["004"]["caption"] == "None" and catalog["caption"].value.type == "text"
    assert np.allclose(np.asarray(found["005"]["curve"]).ravel()[:9000], np.clip(rows[5]["curve"], -2.5, 2.5), atol=0.1)
    assert [str(found[key]["flag"]) for key in ("000", "001")] in (["1", "0"], ["1.0", "0.0"])


def test_held_out_folders_without_labels_are_not_held_out(tmp_path: Path) -> None:
    """They would leave nothing to score."""
    root = tmp_path / "files"
    for i in range(2 * COUNT):
        part = "train" if i % 4 else "test"
        picture(root / part / "images" / f"{i:03d}.png", seed=i)
        if part == "train":
            array(root / part / "masks" / f"{i:03d}.npy", i)
    project, _, data = imported(root, tmp_path / "p")
    assert len(data) == 2 * COUNT and "test/ as held-out samples: none of them has masks" in project.survey_text()
    assert "split" not in read_yaml(tmp_path / "p" / "recipe.yaml")["data"]


def test_a_grown_folder(tmp_path: Path) -> None:
    """The advice to continue imports what is there now, and a kept recipe is told."""
    root = tmp_path / "files"
    for i in range(COUNT):
        picture(root / f"{i:03d}_rgb.png", seed=i)
        text(root / f"{i:03d}_note.txt", f"a note of number {i}")
    imported(root, tmp_path / "p")
    picture(root / "999_rgb.png", seed=9)
    text(root / "999_note.txt", "a much longer note, of quite other words than those before")
    with pytest.raises(MaskweaveError, match="to keep it, continue with: (.*); to make") as found:
        make_project(root, tmp_path / "p", minutes=0.1)
    command = re.search("continue with: (.*); to make", str(found.value))
    assert command is not None and main(shlex.split(command[1])[1:]) == 0
    assert len(Shards(tmp_path / "p" / "data", load_catalog(tmp_path / "p" / "catalog.yaml"))) == COUNT + 1
    (tmp_path / "p" / "catalog.yaml").unlink()
    assert "recipe.yaml: kept as it is" in make_project(root, tmp_path / "p", minutes=0.1).next_text()


@pytest.mark.parametrize("last", ["val", "test"])
def test_parts_of_class_folders(tmp_path: Path, last: str) -> None:
    """ROOT/train/CLASS/NAME: the classes are the inner folders, and the outer ones say what is held out."""
    for i in range(3 * COUNT):
        picture(
            tmp_path / "files" / (last if i % 4 == 0 else "train") / ["cat", "dog", "owl"][i % 3] / f"{i}.jpg", seed=i
        )
    project, catalog, data = imported(tmp_path / "files", tmp_path / "p")
    assert [*catalog["class"].value.classes] == ["cat", "dog", "owl"]
    classes = {data.key(i): data[i]["class"] for i in range(len(data))}
    assert classes == {key: key.split("/")[1] for key in project.listing.names} and len(classes) == 3 * COUNT
    recipe = read_yaml(tmp_path / "p" / "recipe.yaml")
    assert (
        recipe["data"]["split"] == {"file": str(tmp_path / "p" / "split.csv")}
        and recipe["data"]["validation"] == 3 * COUNT // 4
    )
    parts = dict(csv.reader((tmp_path / "p" / "split.csv").read_text(encoding="utf-8").splitlines()[1:]))
    assert {key for key, part in parts.items() if part == "validation"} == {k for k in classes if k.startswith(last)}


@pytest.mark.parametrize("outside", [True, False])
def test_parts_of_modalities(tmp_path: Path, outside: bool) -> None:
    """ROOT/train/MODALITY/NAME and ROOT/MODALITY/train/NAME, and a run that holds out what they say."""
    root = tmp_path / "files"
    for i in range(2 * COUNT):
        part = "training" if i % 4 else "valid"
        first, second = (f"{part}/rgb", f"{part}/note") if outside else (f"rgb/{part}", f"note/{part}")
        picture(root / first / f"{i:03d}.png", seed=i)
        text(root / second / f"{i:03d}.txt", f"a note of number {i}")
    _, _, data = imported(root, tmp_path / "p")
    wanted = {f"{'training' if i % 4 else 'valid'}/{i:03d}" for i in range(2 * COUNT)}
    assert samples(data) == {key: {"rgb", "note"} for key in wanted}
    if outside:
        few = [
            "--train.steps",
            "2",
            "--tokenizers.train.steps",
            "2",
            "--tokenizers.jobs",
            "1",
            "--train.processes",
            "1",
        ]
        assert main(["run", str(tmp_path / "p" / "recipe.yaml"), "--out", str(tmp_path / "run"), *few]) == 0
        assert {
            r["samples"] for r in json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
        } == {COUNT // 2}


def test_sounds_in_class_folders(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for i in range(COUNT):
        for root in ("alone", "inside/sound"):
            path = tmp_path / root / ("ab"[i % 2]) / f"u{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.3 * np.sin(np.arange(4000 + 100 * i) * 0.1 * (1 + i % 2)), 8000)
    for root in ("alone", "inside"):
        _, catalog, data = imported(tmp_path / root, tmp_path / f"p-{root}")
        assert [*catalog["class"].value.classes] == ["a", "b"]
        assert samples(data) == {f"{'ab'[i % 2]}/u{i}": {"sound", "class"} for i in range(COUNT)}


def test_class_folders_whose_files_have_the_class_in_their_names(tmp_path: Path) -> None:
    """cat/cat_001.jpg, dog/dog_001.jpg: the same names but for the folder's, and the same kind of pictures: classes, not modalities."""
    for i in range(COUNT):
        for kind in ("cat", "dog"):
            picture(tmp_path / "files" / kind / f"{kind}_{i:03d}.jpg", seed=i)
            picture(tmp_path / "others" / kind / f"{kind}_{i:03d}.png", 1 if kind == "dog" else 3, seed=i)
    same, differing = (make_project(tmp_path / f, tmp_path / f"p-{f}", minutes=0.1) for f in ("files", "others"))
    assert same.listing.layout == "classes" and len(same.listing.names) == 2 * COUNT
    assert differing.listing.layout == "named" and len(differing.listing.names) == COUNT


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    """ROOT/ep0/000.png: as many samples as folders, not as many modalities."""
    for i in range(COUNT):
        for frame in range(3 + i % 2):
            picture(tmp_path / "files" / f"ep{i}" / f"{frame:03d}.png", seed=10 * i + frame)
    _, catalog, data = imported(tmp_path / "files", tmp_path / "p")
    assert catalog["video"].value.type == "video"
    assert samples(data) == {f"ep{i}": {"video"} for i in range(COUNT)}


def test_frames_of_episodes_are_no_classes(tmp_path: Path) -> None:
    for i in range(4):
        for frame in range(4):
            picture(tmp_path / "files" / "frames" / f"ep{i}" / f"{frame:03d}.png", seed=10 * i + frame)
    assert not make_project(tmp_path / "files", tmp_path / "p", minutes=0.1).listing.class_pattern


def test_gray_and_color_arrays_with_unknown_points_are_not_mixed(tmp_path: Path) -> None:
    """Bands of other numbers in one folder: undecided, not cut to three."""
    rasterio = pytest.importorskip("rasterio")
    for i in range(COUNT):
        path = tmp_path / "files" / "bands" / f"{i}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = np.random.default_rng(i).integers(0, 5000, (1 if i % 2 else 4, 20, 24)).astype(np.int16)
        profile = {"driver": "GTiff", "height": 20, "width": 24, "count": len(bands), "dtype": "int16", "nodata": 0}
        with rasterio.open(path, "w", **profile) as file:
            file.write(bands)
        text(tmp_path / "files" / "note" / f"{i}.txt", f"a note of number {i}")
    project = make_project(tmp_path / "files", tmp_path / "p", minutes=0.1)
    assert "bands: the arrays differ in their number of axes" in project.survey_text()


def test_names() -> None:
    def files(*names: str) -> dict[str, str]:
        return {name: f"{name}.x" for name in names}

    assert matched_names({"a": files("1", "2"), "b": files("1", "2")}) == {}, "they are the same already"
    assert matched_names({"a": files("x", "y"), "b": files("u", "v")}) == {}, "nothing in common"
    found = matched_names({"a": files("d/t_1_a", "d/t_2_a"), "b": files("d/t_1_b", "d/t_2_b")})
    assert found == {
        "a": {"d/t_1": "d/t_1_a.x", "d/t_2": "d/t_2_a.x"},
        "b": {"d/t_1": "d/t_1_b.x", "d/t_2": "d/t_2_b.x"},
    }
    assert grouped_names([f"photo_{i}.jpg" for i in range(9)]) == {}, "pictures of one kind, with numbers"
    assert grouped_names(["a.jpg", "b.jpg", "a.txt", "b.txt"]) == {
        "jpg": {"a": "a.jpg", "b": "b.jpg"},
        "txt": {"a": "a.txt", "b": "b.txt"},
    }
    assert parts_of(["train/a", "val/b"]) == {"train/a": "train", "val/b": "validation"}
    assert parts_of(["train/a", "b"]) == {} and parts_of(["train/a", "training/b"]) == {}


def test_parts_that_are_laid_out_differently(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "files" / "train" / "ab"[i % 2] / f"{i}.png", seed=i)
        picture(tmp_path / "files" / "val" / f"{i}.png", seed=i)
    with pytest.raises(MaskweaveError, match=r"laid out differently \(train/: classes, val/: flat\)"):
        make_project(tmp_path / "files", tmp_path / "p", minutes=0.1)


def test_files_of_windows_are_no_samples(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for i in range(COUNT):
            picture(tmp_path / "files" / kind / f"{kind[0]}{i}.png", seed=i)
        text(tmp_path / "files" / kind / "Thumbs.db", "x")
    text(tmp_path / "files" / "desktop.ini", "x")
    project, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert project.listing.layout == "classes" and len(data) == 2 * COUNT
    assert "desktop.ini" not in project.survey_text()


@pytest.mark.parametrize("classes", [True, False])
def test_two_files_of_one_name(tmp_path: Path, classes: bool) -> None:
    """NAME.png and NAME.json in one folder are two modalities; where few names have two, the picture is used, and it is told."""
    for i in range(COUNT):
        for kind in ("a", "b"):
            name = f"{kind}{i}" if classes else f"{i}"
            picture(tmp_path / "all" / kind / f"{name}.png", 1 if kind == "b" else 3, seed=i)
            text(tmp_path / "all" / kind / f"{name}.json", json.dumps(i))
            picture(tmp_path / "few" / kind / f"{name}.png", seed=i)
        if i < 3:
            text(tmp_path / "few" / "a" / f"{'a' * classes}{i}.json", "1")
    project, _, data = imported(tmp_path / "all", tmp_path / "p")
    wanted = {"picture", "picture_json", "class"} if classes else {"a", "a_json", "b", "b_json"}
    assert project.listing.layout == "named" and set().union(*samples(data).values()) == wanted
    project, _, data = imported(tmp_path / "few", tmp_path / "q")
    wanted = {"picture", "class"} if classes else {"a", "b"}
    assert set().union(*samples(data).values()) == wanted and len(data) == (2 * COUNT if classes else COUNT)
    assert "3 names with two files" in project.survey_text()


def test_a_folder_beside_the_parts_is_not_used(tmp_path: Path) -> None:
    """Neither in the survey nor in the data."""
    for i in range(COUNT):
        for part in ("train", "val", "extra"):
            picture(tmp_path / "files" / part / f"{part}{i}.png", seed=i)
    project, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert len(data) == 2 * COUNT and "class" not in project.survey_text()
    assert "extra/: belongs to no part (8 files)" in project.survey_text()
    for path in (tmp_path / "files" / "val").iterdir():
        path.unlink()
    (tmp_path / "files" / "val").rmdir()
    with pytest.raises(MaskweaveError, match="train/ is the name of a part"):
        list_folder(tmp_path / "files")


@pytest.mark.parametrize("inside", ["", "anat/"])
def test_folders_of_samples_whose_files_have_their_names(tmp_path: Path, inside: str) -> None:
    for i in range(COUNT):
        for kind in ("T1w", "T2w"):
            picture(tmp_path / "files" / f"sub-{i}" / f"{inside}sub-{i}_{kind}.png", seed=i)
    _, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert samples(data) == {f"sub-{i}": {"T1w", "T2w"} for i in range(COUNT)}
    numbered = {f"c{n}": {f"c{n}_{i}": f"c{n}_{i}.png" for i in range(3)} for n in range(COUNT)}
    assert files_of_samples(numbered) == {}, "numbers are no modalities"


def test_what_classes_were_assumed_on_is_told(tmp_path: Path) -> None:
    for i in range(COUNT):
        for kind in ("a", "b"):
            picture(tmp_path / "equal" / kind / f"{kind}x{i}.png", seed=i)
            picture(tmp_path / "matched" / kind / f"{kind}_{i}.png", seed=i)
            picture(tmp_path / "same" / kind / f"{i}.png", seed=i)
            picture(tmp_path / "parts" / ("val" if i % 4 == 0 else "train") / kind / f"{i}.png", seed=i)
            picture(tmp_path / "inside" / kind / "train" / f"{kind}x{i}.png", seed=i)
    picture(tmp_path / "inside" / "a" / "train" / "one.png")
    told = {p.name: "; ".join(list_folder(p).left_out) for p in sorted(tmp_path.iterdir())}
    assert "taken as classes, but all have 8 files" in told["equal"]
    assert "taken as classes, but their names match" in told["matched"]
    assert "taken as classes, but all have the same folders inside, such as train/" in told["inside"]
    assert "if these folders are classes, run again with --classes" in told["same"]
    assert told["parts"].count("--classes") == 1 and "train/, val/: a/, b/ as classes" in told["parts"]


def test_tables_inside_and_beside_parts_are_told(tmp_path: Path) -> None:
    for i in range(COUNT):
        for part in ("train", "val"):
            picture(tmp_path / "files" / part / f"{i}.png", seed=i)
    for part in ("train", "val"):
        text(tmp_path / "files" / part / "list.jsonl", '{"file_name": "0.png", "text": "a"}\n')
        text(tmp_path / "files" / f"{part}.csv", "id,label\n0,a\n")
    project, _, data = imported(tmp_path / "files", tmp_path / "p")
    assert len(data) == 2 * COUNT and "value" not in {one.name for one in project.listing.sets}
    assert "train/, val/: list.jsonl: a table about other files" in project.survey_text()
    assert "2 files that are in no folder of a modality: train.csv, val.csv" in project.survey_text()
    for i in range(COUNT):
        picture(tmp_path / "kinds" / "ab"[i % 2] / f"{i}.png", seed=i)
    text(tmp_path / "kinds" / "a" / "list.csv", "x\n1\n")
    picture(tmp_path / "kinds" / "cover.png")
    project, _, data = imported(tmp_path / "kinds", tmp_path / "q")
    assert len(data) == COUNT and "a/list.csv: a table about other files" in project.survey_text()
    assert "1 files that are in no folder of a modality: cover.png" in project.survey_text()


def metadata(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("parts", [("train",), ("train", "validation"), ("train", "validation", "test")])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("inner", ["", "a/"])
def test_metadata_of_image_folders(tmp_path: Path, parts: tuple[str, ...], ending: str, inner: str) -> None:
    """FOLDER/train/metadata.csv of Hugging Face datasets: file_name is relative to its folder. Files of several parts have the same name."""
    root = tmp_path / "files"
    for part in parts:
        rows = [{"file_name": f"{inner}{i}.png", "text": f"picture {i} of {part}"} for i in range(COUNT)]
        for row in rows:
            picture(root / part / row["file_name"])
        metadata(root / part / f"metadata.{ending}", [*rows, {"file_name": "gone.png", "text": "gone"}])
    project, _, data = imported(root, tmp_path / "p")
    told = project.survey_text()
    assert f"train/metadata.{ending}: 1 of 9 rows whose file_name is no file that is used" in told
    assert "a table about other files" not in told and "in no folder of a modality" not in told
    texts = {data.key(i): data[i].get("text") for i in range(len(data))}
    first = "train/" if len(parts) > 1 else inner
    assert len(texts) == COUNT * len(parts) and texts[f"{first}3"] == "picture 3 of train"
    assert sorted(filter(None, texts.values())) == sorted(f"picture {i} of {p}" for i in range(COUNT) for p in parts)
    if len(parts) > 1:
        assert texts["validation/3"] == "picture 3 of validation"
        assert "validation/3,validation" in (tmp_path / "p" / "split.csv").read_text(encoding="utf-8")


def test_metadata_of_image_folders_names_further_files(tmp_path: Path) -> None:
    root = tmp_path / "files"
    for part in ("train", "val"):
        for i in range(COUNT):
            picture(root / part / "image" / f"{i}.png", seed=i)
            text(root / part / "note" / f"{i}.txt", f"a note of number {i}")
            array(root / part / "map" / f"of_{i + COUNT}.npy", i)
        rows = [{"file_name": f"image/{i}.png", "depth": f"map/of_{i + COUNT}.npy"} for i in range(COUNT)]
        metadata(root / part / "metadata.csv", rows)
    _, _, data = imported(root, tmp_path / "p")
    assert samples(data) == {
        f"{part}/{i}": {"image", "note", "depth"} for i in range(COUNT) for part in ("train", "val")
    }
    i = [data.key(n) for n in range(len(data))].index("val/5")
    assert np.array_equal(np.asarray(data[i]["depth"]).squeeze(), np.load(root / "val" / "map" / f"of_{5 + COUNT}.npy"))


def test_the_ending_of_a_path_is_seldom_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 200,000 files in class folders, it was half of the time of the listing."""
    from maskweave.init import listing, names

    for i in range(40):
        picture(tmp_path / f"class_{i % 8}" / f"x{i}y.png")
    calls: list[str] = []
    split = listing.split_ending
    for module in (listing, names):
        monkeypatch.setattr(module, "split_ending", lambda path: calls.append(path) or split(path))
    found = list_folder(tmp_path)
    assert found.layout == "classes" and found.sets[0].endings == {"png": 40} and len(calls) <= 4 * 40


def test_folders_without_common_names_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskweave.init import names

    calls = []
    overlap = names._overlap
    monkeypatch.setattr(names, "_overlap", lambda a, b: calls.append(1) or overlap(a, b))
    folders = {f"c{n}": {f"x{n}y{i}": f"x{n}y{i}.png" for i in range(2)} for n in range(300)}
    assert names.matched_names(folders) == {} and not calls
    assert names.matched_names({name: {"1": "1.png"} for name in folders}) == {} and len(calls) <= 2 * len(folders)
