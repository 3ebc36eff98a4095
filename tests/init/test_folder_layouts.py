"""Layouts in which folders and equal names alone do not say what belongs together: names with suffixes, one folder for all, a table beside files, parts."""

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_folders import COUNT, array, imported, picture, samples, text, write_rows

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml
from maskweave.init.listing import list_folder
from maskweave.init.names import files_of_samples, grouped_names, matched_names, parts_of
from maskweave.init.project import make_project
from maskweave.modality.catalogs import load_catalog


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
