"""From folders of files, made here, to a recipe, imported data and a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from project_helpers import COUNT, folder, made, noise, put

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml
from maskweave.init.project import make_project
from maskweave.modality.catalogs import load_catalog
from maskweave.training.recipe import load_recipe
from maskweave.values.map import Map


def test_unreadable_files_and_unused_folders_are_told(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        photo__png=lambda i: noise(rng, 64, 64, 3),
        note__txt=lambda i: f"number {i}",
        sound__wav=lambda i: None,
    )
    (root / "photo" / "003.png").write_bytes(b"no picture")
    put(root / "elsewhere" / "x.txt", "a")
    put(root / "two words" / "001.txt", "a")
    (root / "README.md").write_text("about", encoding="utf-8")
    (root / "wave").mkdir()
    (root / "wave" / "001.wav").write_bytes(b"RIFF")
    project, catalog = made(root, tmp_path)
    text = project.survey_text()
    assert list(catalog) == ["note", "photo", "tok_photo"]
    assert "elsewhere/: none of its 1 names" in text and "two words/: cannot be the name" in text
    assert (
        "README.md" in text
        and "wave: " in text
        and "001.wav: corrupt or truncated sound file" in text
        and "003.png" in text
    )
    assert main(["init", str(root), "--out", str(tmp_path / "project")]) == 0, "the same again, with the import"
    assert read_yaml(tmp_path / "project" / "recipe.yaml")["data"]["source"] == str(tmp_path / "project" / "data")
    assert (tmp_path / "project" / "data" / "index.json").exists()


def test_photographs_of_scikit_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gray, color, transparent, palette, 1 bit and 16 bits, from 102 to 1,411 points."""
    photographs = [path for path in Path(skimage.data_dir).iterdir() if path.suffix in (".png", ".jpg")]
    assert len(photographs) >= 20
    root = tmp_path / "photographs"
    root.mkdir()
    for path in photographs:
        shutil.copy(path, root)
    assert main(["init", str(root), "--out", str(tmp_path / "p")]) == 0
    told = capsys.readouterr().out
    assert "pictures of many shapes are cropped to the center square" in told
    assert "chessboard_RGB.png: found a picture of 16 bits a channel" in told
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    assert list(catalog) == ["photographs", "tok_photographs"] and catalog["photographs"].value.channels == 3
    source = Shards(tmp_path / "p" / "data", catalog)
    assert len(source) == len(photographs) - 1
    seen = {source.key(i): source[i]["photographs"] for i in range(len(source))}
    assert seen["astronaut"].shape == (64, 64, 3)
    assert np.abs(seen["astronaut"].astype(float).mean() - skimage.data.astronaut().mean()) < 3
    assert (seen["camera"][..., 0] == seen["camera"][..., 2]).all() and seen["logo"][0, 0].tolist() == [255] * 3
    assert main(["recipe", "check", str(tmp_path / "p" / "recipe.yaml")]) == 0


def test_a_photograph_and_its_disparity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A true pair, cut into 35 parts. The disparity is infinite where it is unknown."""
    root, data = tmp_path / "pairs", Path(skimage.data_dir)
    left = np.array(Image.open(data / "motorcycle_left.png"))
    with np.load(data / "motorcycle_disp.npz") as file:
        disparity = file["arr_0"]
    for y, x in np.ndindex(5, 7):
        part = slice(100 * y, 100 * y + 100), slice(100 * x, 100 * x + 100)
        put(root / "left" / f"{y}-{x}.png", left[part])
        put(root / "disparity" / f"{y}-{x}.npy", disparity[part])
    assert main(["init", str(root), "--out", str(tmp_path / "p")]) == 0
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    value = catalog["disparity"].value
    assert isinstance(value, Map) and value.missing == (np.inf,) and value.range == (7.1, 60.0)
    source = Shards(tmp_path / "p" / "data", catalog)
    assert len(source) == 35 and {*source[0]} == {"disparity", "left"}
    known = np.stack([value.known(source[i]["disparity"]) for i in range(35)])
    assert 0.9 < known.mean() < 0.95 and "unusable" not in capsys.readouterr().out
    assert main(["recipe", "check", str(tmp_path / "p" / "recipe.yaml")]) == 0


@pytest.mark.parametrize("flat", [True, False])
def test_pictures_alone_and_class_folders(
    flat: bool, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "files"
    for i in range(COUNT):
        put(root / f"{i}.png" if flat else root / ["cat", "dog"][i % 2] / f"{i}.png", noise(rng, 40, 40, 3))
    assert main(["init", str(root), "--out", str(tmp_path / "p")]) == 0
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    source = Shards(tmp_path / "p" / "data", catalog)
    if flat:
        assert list(catalog) == ["files", "tok_files"] and len(source) == COUNT
    else:
        assert (
            list(catalog) == ["picture", "tok_picture", "class"] and source[0]["class"] == source.key(0).split("/")[0]
        )
    assert main(["recipe", "check", str(tmp_path / "p" / "recipe.yaml")]) == 0
    assert main(["init", str(root), "--out", str(tmp_path / "q"), "--no-import"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "maskweave data import" in line)
    assert main(line.split()[1:]) == 0 and (tmp_path / "q" / "data" / "index.json").exists()


def test_class_folders_of_the_same_names(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files", cat__png=lambda i: noise(rng, 32, 32, 3), dog__png=lambda i: noise(rng, 32, 32, 3)
    )
    assert list(made(root, tmp_path)[1]) == ["cat", "tok_cat", "dog", "tok_dog"]
    project = make_project(root, tmp_path / "other", classes=True)
    assert load_catalog(project.folder / "catalog.yaml")["class"].value.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "contains no files"),
        (lambda root: root.write_text("x", encoding="utf-8"), "is a file"),
        (
            lambda root: folder(root, a__xyz2=lambda i: None) and put(root / "a" / "1.json", [{"x": "y"}]),
            "nothing usable",
        ),
        (lambda root: [put(root / n / f"{n}.txt", "x") for n in "ab"], "no two of its folders"),
    ],
)
def test_nothing_usable(prepare: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    prepare(tmp_path / "files")
    with pytest.raises(MaskweaveError, match=message):
        make_project(tmp_path / "files", tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_project_is_never_overwritten(tmp_path: Path) -> None:
    root = folder(tmp_path / "files", a__txt=lambda i: i / 3, b__txt=lambda i: i * 0.7)
    project, _ = made(root, tmp_path)
    recipe = project.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    made(root, tmp_path)
    assert recipe.read_text(encoding="utf-8").endswith("# mine\n")
    catalog = project.folder / "catalog.yaml"
    catalog.write_text(catalog.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="exists already and differs"):
        made(root, tmp_path)
    assert catalog.read_text(encoding="utf-8").endswith("# mine\n")
    put(tmp_path / "full" / "x.txt", "x")
    with pytest.raises(MaskweaveError, match=r"already contains x\.txt"):
        make_project(root, tmp_path / "full")
    with pytest.raises(MaskweaveError, match="is inside"):
        make_project(root, root / "project")
    with pytest.raises(MaskweaveError, match="minutes"):
        make_project(root, tmp_path / "new", minutes=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["s3://bucket/files"],
            "s3://bucket/files: init looks at folders of this machine; copy some hundred samples here",
        ),
        (["files", "--out", "s3://bucket/project"], "--out s3://bucket/project: a project is a folder of this machine"),
    ],
)
def test_places_elsewhere_are_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    assert main(["init", *words]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_more_minutes_give_more_steps(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(tmp_path / "files", a__npy=lambda i: rng.normal(size=64), b__txt=lambda i: i * 0.7)
    short, long = (make_project(root, tmp_path / str(m), minutes=m).plan for m in (0.1, 1000))
    assert short.tokenizer_steps < long.tokenizer_steps and short.steps < long.steps


def test_an_update_has_the_same_samples_on_any_machine(tmp_path: Path, rng: np.random.Generator) -> None:
    """The number of processes is measured where the run starts, also on another machine; a process for each core can be chosen here."""
    root = folder(tmp_path / "files", a__npy=lambda i: rng.normal(size=64), b__txt=lambda i: i * 0.7)
    project = make_project(root, tmp_path / "p", minutes=1)
    train = load_recipe(tmp_path / "p" / "recipe.yaml").train
    assert train.processes == "auto" and train.batch_size == project.plan.batch_size
    assert train.batch_size % project.plan.cores == 0 and train.batch_size >= 4 * project.plan.cores


def test_modalities_of_few_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    """A recipe leaves out what hardly any sample has; inputs of requests are what most samples have together."""

    def below(count: int) -> Callable[[int], object]:
        return lambda i: rng.uniform(0, 1, (8, 8)) if i < count else None

    root = folder(
        tmp_path / "files",
        light__npy=below(COUNT),
        level__txt=lambda i: str(i % 3),
        second__npy=below(COUNT - 4),
        third__npy=below(COUNT - 6),
        rare__npy=below(1),
        late__npy=lambda i: None if i < 7 else rng.uniform(0, 1, (8, 8)),
    )
    project, catalog = made(root, tmp_path)
    recipe = load_recipe(project.folder / "recipe.yaml")
    assert "rare" in catalog and "rare" not in recipe.load_catalog() and "tok_third" in recipe.load_catalog()
    assert any(f"only 1 of {COUNT} samples have it" in doubt for f in project.findings for doubt in f.doubts)
    inputs = {tuple(request.targets): request.inputs for request in recipe.evaluate.requests}
    assert inputs["tok_light",] == ["level", "second", "third"], "10 of 16 samples have them"
    assert inputs["tok_third",] == ["level", "light", "second"] and inputs["tok_late",] == ["level", "light", "second"]
    comment = "# each target from the others that most of its samples have;"
    assert comment in (project.folder / "recipe.yaml").read_text(encoding="utf-8")


def test_two_commands(tmp_path: Path, rng: np.random.Generator) -> None:
    """From files to a report, with very few steps."""
    root = folder(
        tmp_path / "files",
        plane__npy=lambda i: np.where(rng.random((16, 16)) < 0.1, np.nan, rng.normal(i, 1, (16, 16))),
        series__npy=lambda i: rng.normal(size=(8 + i, 2)),
        level__txt=lambda i: i * 0.7,
        kind__txt=lambda i: ["low", "high"][i > 8],
        note__txt=lambda i: f"level {i}",
        facts__json=lambda i: {"a": i, "b": i / 7},
    )
    assert main(["init", str(root), "--out", str(tmp_path / "p"), "--minutes", "0.1"]) == 0
    few = ["--train.steps", "2", "--tokenizers.train.steps", "2", "--tokenizers.jobs", "1", "--train.processes", "1"]
    run = tmp_path / "p" / "run"
    assert main(["run", str(tmp_path / "p" / "recipe.yaml"), "--out", str(run), *few]) == 0
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert {row["target"] for row in rows} == {"tok_plane", "tok_series", "level", "kind", "note", "a", "b"}
    recipe = load_recipe(tmp_path / "p" / "recipe.yaml")
    together = [request for request in recipe.evaluate.requests if "a" in request.targets]
    assert [r.targets for r in together] == [["a", "b"]] and not {"a", "b"} & {*together[0].inputs}, "of one folder"
    assert recipe.model.masking.input_tokens >= 4 + 16 + 24, "all inputs of a sample fit"
    assert (run / "report.html").exists()
