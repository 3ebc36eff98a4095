"""init on one file with all samples: npz, HDF5."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.init.project import Project, import_files, make_project
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source

COUNT = 60


def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "images": rng.integers(0, 255, (COUNT, 32, 32, 3), np.uint8),
        "gray": rng.integers(0, 255, (COUNT, 32, 32), np.uint8),
        "depth": rng.random((COUNT, 32, 32), np.float32),
        "motion": rng.random((COUNT, 40, 6), np.float32),
        "labels": rng.permutation(np.arange(COUNT) % 5),
        "mass": rng.random(COUNT),
        "count": rng.integers(0, 1000, COUNT),
        "id": np.array([f"obj{i}" for i in range(COUNT)]),
        "wave": np.arange(5.0),
    }


def made(root: Path, out: Path) -> tuple[Project, Catalog]:
    project = make_project(root, out, minutes=1)
    import_files(project)
    return project, load_catalog(out / "catalog.yaml")


@pytest.mark.parametrize("kind", ["npz", "h5"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_file_with_all_samples(kind: str, as_folder: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    content, place = arrays(rng), tmp_path / f"in/data.{kind}"
    place.parent.mkdir()
    if kind == "npz":
        np.savez(place, **content)
    else:
        with h5py.File(place, "w") as file:
            for name, array in content.items():
                file[name] = array.astype(object) if array.dtype.kind == "U" else array
    project, catalog = made(place.parent if as_folder else place, tmp_path / "project")
    types = {name: m.value.type for name, m in catalog.items() if not m.source}
    assert types == {
        "images": "image", "gray": "image", "depth": "map", "motion": "map", "labels": "label", "mass": "scalar", "count": "scalar",
    }  # fmt: skip
    assert catalog["labels"].value.classes == ("0", "1", "2", "3", "4")
    assert (catalog["motion"].value.size, catalog["motion"].value.channels) == ((40,), 6)
    text = project.survey_text()
    assert "array wave: (5,) of float64; expected 60 rows" in text and "column id: names of the samples" in text
    assert "labels: whole numbers from 0 to 4 are taken as classes; if they are quantities" in text
    shards = Shards(tmp_path / "project/data", catalog)
    assert len(shards) == COUNT
    for i in (0, 31, COUNT - 1):
        at, sample = int(shards.key(i).removeprefix("obj")), shards[i]
        for name in ("images", "gray", "depth", "motion"):
            np.testing.assert_array_equal(np.squeeze(sample[name]), content[name][at])
        assert sample["labels"] == str(content["labels"][at])
        assert sample["mass"] == pytest.approx(content["mass"][at]) and sample["count"] == content["count"][at]
    recipe = load_recipe(tmp_path / "project/recipe.yaml")
    assert set(open_source(recipe, catalog, "train").names) == set(types)


def test_a_project_of_one_file_trains(tmp_path: Path, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "data.npz", X=rng.random((COUNT, 16), np.float32), y=np.arange(COUNT) % 3)
    made(tmp_path / "data.npz", tmp_path / "project")
    steps = ["--train.steps", "2", "--tokenizers.train.steps", "2", "--train.processes", "1"]
    command = ["run", str(tmp_path / "project/recipe.yaml"), "--out", str(tmp_path / "run"), *steps]
    assert main(command) == 0
    assert (tmp_path / "run/report.html").is_file() and read_json(tmp_path / "run/evaluation.json")


def test_files_that_stay_as_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    for i in range(12):
        for name, value in (("flux", rng.random(50)), ("stamp", rng.random((24, 24, 3)))):
            path = tmp_path / f"aligned/{name}/obj{i}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, value)
    project = make_project(tmp_path / "aligned", tmp_path / "project")
    assert project.listing.layout == "aligned" and {f.name for f in project.findings} == {"flux", "stamp"}
    flat = make_project(tmp_path / "aligned/flux", tmp_path / "flat")
    assert flat.listing.layout == "flat" and len(flat.listing.names) == 12


def test_whole_numbers_that_are_no_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    content = {"age": 20 + np.arange(COUNT) % 9, "gaps": np.arange(COUNT) % 6 * 7, "sign": np.arange(COUNT) % 2 * 2 - 1, "one": np.arange(COUNT)[:, None] % 4 + 1}  # fmt: skip
    np.savez(tmp_path / "a.npz", **content)
    _, catalog = made(tmp_path / "a.npz", tmp_path / "project")
    assert {name: m.value.type for name, m in catalog.items()} == {
        "age": "scalar",
        "gaps": "scalar",
        "sign": "label",
        "one": "label",
    }
    assert catalog["one"].value.classes == ("1", "2", "3", "4") and catalog["sign"].value.classes == ("-1", "1")
    first = Shards(tmp_path / "project/data", catalog)[0]
    assert (first["sign"], first["one"], first["age"]) == ("-1", "1", 20)


def test_what_cannot_be_read_is_told(tmp_path: Path, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "a.npz", x=rng.random((COUNT, 3, 32, 32), np.float32), y=np.arange(COUNT) % 3)
    project = make_project(tmp_path / "a.npz", tmp_path / "project")
    assert "channels first" in project.survey_text() and "numpy.moveaxis(array, -3, -1)" in project.survey_text()
    np.savez(tmp_path / "b.npz", o=np.array([{}, {}], object))
    with pytest.raises(MaskweaveError, match="never unpickled"):
        make_project(tmp_path / "b.npz", tmp_path / "other")
    (tmp_path / "c.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(MaskweaveError, match="corrupt or truncated HDF5"):
        make_project(tmp_path / "c.h5", tmp_path / "other")


@pytest.mark.parametrize(
    "content", [{"X": torch.rand(6, 4), "y": torch.arange(6)}, (torch.rand(6, 4), torch.arange(6))]
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_the_line_that_converts_a_torch_file_works(content: object, as_folder: bool, tmp_path: Path) -> None:
    place = tmp_path / "in/data.pt"
    place.parent.mkdir()
    torch.save(content, place)
    with pytest.raises(MaskweaveError, match="never read") as error:
        make_project(place.parent if as_folder else place, tmp_path / "project")
    line = re.search(r"one line of Python: (from torch.*?d\)\)\}\))", str(error.value))
    assert line is not None
    exec(line[1], {})
    project = make_project(tmp_path / "in/data.npz", tmp_path / "project")
    assert len(project.listing.names) == 6 and len(project.findings) == 2
