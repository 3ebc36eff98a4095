"""Suites and the commands: tables of probes and outliers over a bundle's features."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_transfer import catalog, make_bundle, write_recipe

import maskweave
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.synthetic.scenes import Scenes
from maskweave.transfer.suite import CHANGES, FOLDER, Changed, load_suite, run_suite

pytestmark = pytest.mark.usefixtures("one_fold")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.yaml") if not load_suite(p.stem).needs_path))
def test_every_shipped_suite_runs(name: str, start: Path) -> None:
    suite = load_suite(name)
    few = dataclasses.replace(suite, data=dataclasses.replace(suite.data, samples=60, validation=20))
    outliers = [dataclasses.replace(item, inputs=["rgb"]) for item in few.outliers]
    probes = [item for item in few.probes if "depth" not in item.inputs]  # this bundle has no tokenizer of it
    rows = run_suite(maskweave.load(start), dataclasses.replace(few, probes=probes, outliers=outliers), name, start)
    assert len(rows) == 2 * len(probes) + sum(3 * len(item.against) for item in outliers)
    assert all(0 <= row.value <= 1 and row.samples == 20 for row in rows)
    noise = {row.metric: row.value for row in rows if row.target == "noise pictures"}
    assert max(noise.values()) > 0.9
    assert len(json.loads((start / f"suite-{name}.json").read_text(encoding="utf-8"))) == len(rows)


def test_what_a_model_does_not_have_is_left_out_and_told(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    data = {"samples": 30, "validation": 10}
    path.write_text(
        yaml.safe_dump({"data": data, "probes": [{"inputs": ["spectrum"], "target": "boxes", "label": "first"}]}),
        encoding="utf-8",
    )
    told = r"every item needs modalities that this model lacks. The suite uses boxes, spectrum; the model has rgb, .*--names spectrum=NAME"
    with pytest.raises(MaskweaveError, match=told):
        run_suite(maskweave.load(start), load_suite(str(path)), "mine")
    probes = [{"inputs": [name], "target": "boxes", "label": "first"} for name in ("spectrum", "rgb")]
    requests = [
        {"inputs": ["rgb"], "targets": ["caption"], "truth": "written"},
        {"inputs": ["rgb"], "targets": ["caption"], "via": ["smell"]},
    ]
    truths = {"written": {"like": "taste"}}
    path.write_text(
        yaml.safe_dump({"data": data, "probes": probes, "requests": requests, "truths": truths}), encoding="utf-8"
    )
    rows = run_suite(maskweave.load(start), load_suite(str(path)), "mine")
    assert {(*row.inputs, row.target) for row in rows} == {("rgb", "boxes first")}
    notes = [line.split(";")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: suite mine: {item} is skipped, as the model lacks {name}"
        for item, name in (("requests.0", "taste"), ("requests.1", "smell"), ("probes.0", "spectrum"))
    ]


def test_invalid_suites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match=r"no suite 'scene': give the path of a .yaml file, or one of .*scenes"):
        load_suite("scene")
    for content, words in (
        ({"probes": []}, "key 'data' is missing"),
        ({"data": {}}, "no requests, probes, outliers or transfers; give at least one"),
        (
            {"data": {}, "outliers": [{"inputs": ["rgb"], "against": ["fog"]}]},
            "against fog; expected some of gray, noise",
        ),
        ({"data": {}, "outliers": [{"inputs": ["rgb"]}]}, "against nothing"),
    ):
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        with pytest.raises(MaskweaveError, match=words):
            load_suite(str(path))


def test_names_that_a_suite_does_not_use_are_refused(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [word for pair in ("dept=map", "rgb=picture", "scenes=x") for word in ("--names", pair)]
    assert main(["evaluate", str(start), "--suite", "scenes", *names]) == 1
    told = "suite scenes: --names dept, scenes: the suite has no modality of this name; it uses boxes, caption, depth, "
    assert told in capsys.readouterr().err
    renamed = load_suite("scenes", {"depth": "map"}).modalities
    assert "map" in renamed and "depth" not in renamed
    assert "room_boxes" in load_suite("arkitscenes").modalities


def test_pictures_are_changed_and_nothing_else() -> None:
    entries = catalog(["rgb", "caption"])
    scenes = Scenes(entries, 2, 0)
    for change in CHANGES:
        changed = Changed(scenes, entries, change)
        assert changed[1]["caption"] == scenes[1]["caption"] and changed.key(1) == scenes.key(1) and len(changed) == 2
        picture = changed[1]["rgb"]
        assert (
            picture.shape == (64, 64, 3) and picture.dtype == np.uint8 and not np.array_equal(picture, scenes[1]["rgb"])
        )
        assert np.array_equal(picture, changed[1]["rgb"]), "a sample is always the same"
    assert (np.ptp(Changed(scenes, entries, "gray")[0]["rgb"], axis=-1) == 0).all()
    with pytest.raises(MaskweaveError, match="outliers against gray need an input of type image, found caption"):
        Changed(Scenes(entries.subset(["caption"]), 2, 0), entries, "gray")


def test_the_commands(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", str(start), "scenes", "--inputs", "rgb", "--samples", "40", "--validation", "10"]
    assert main([*words, "--target", "metadata", "--label", "object_count"]) == 0
    assert (
        "20-nearest-neighbor accuracy" in capsys.readouterr().out
        and len(json.loads((start / "probe.json").read_text(encoding="utf-8"))) == 2
    )
    assert main([*words, "--target", "semseg"]) == 1
    assert "a probe predicts labels and numbers, but 'semseg' has values of type 'classes'" in capsys.readouterr().err
    assert main([*words, "--inputs", "smell"]) == 1
    assert "unknown modality 'smell'" in capsys.readouterr().err

    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "data: {samples: 30, validation: 10}\nprobes: [{inputs: [rgb], target: boxes, label: first}]\n",
        encoding="utf-8",
    )
    assert main(["evaluate", str(start), "--suite", str(suite)]) == 0
    assert "linear-probe accuracy" in capsys.readouterr().out and (start / "suite-mine.json").exists()

    recipe = write_recipe(tmp_path, start, target="metadata", label="object_count")
    assert main(["transfer", str(recipe), "--out", str(tmp_path / "run"), "--train.steps", "3"]) == 0
    assert "accuracy" in capsys.readouterr().out and (tmp_path / "run" / "report.html").exists()
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8"))["train"]["steps"] == 3
    for command in (["report", str(tmp_path / "run")], ["evaluate", str(tmp_path / "run")]):
        assert main(command) == 1
    assert "recipe.yaml" in capsys.readouterr().err
    assert main(["transfer", str(recipe), "--tuning.parameters", "some"]) == 1
    assert "--tuning.parameters" in capsys.readouterr().err
