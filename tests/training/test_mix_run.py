"""A run over several data sets, one of texts alone: shares, tokens, exact resuming, and what cannot be."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from timeless import numbers

from maskweave.data.export import export
from maskweave.data.folders import import_folders
from maskweave.errors import MaskweaveError
from maskweave.evaluate.report import make_report
from maskweave.evaluate.run import evaluate
from maskweave.files import read_json
from maskweave.generate.bundle import load
from maskweave.modality.catalogs import load_catalog
from maskweave.synthetic.scenes import Scenes
from maskweave.training.data_settings import DataSettings
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import build_batches, claim, make_tokens, open_tokens, run_recipe, train_model
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.sources import describe_samples, open_source, open_sources
from maskweave.training.tokenizers import train_tokenizers

CONTENT: dict[str, Any] = {
    "catalog": "scenes",
    "modalities": ["rgb", "depth", "caption"],
    "data": {"validation": 12, "shard_size": 16},
    "tokenizers": {"samples": 32, "train": {"steps": 2, "batch_size": 8}},
    "model": {
        "width": 32,
        "heads": 2,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "masking": {"input_tokens": 24, "target_tokens": 24},
    },
    "train": {"steps": 24, "batch_size": 8, "log_every": 1, "checkpoint_every": 8, "keep": 3, "validate_every": 12},
    "evaluate": {
        "samples": 8,
        "requests": [{"inputs": ["rgb"], "targets": ["depth"]}],
        "sheets": [{"inputs": ["rgb"], "targets": ["depth"]}],
    },
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported data sets: `full` of all three modalities, `texts` of captions alone."""
    root = tmp_path_factory.mktemp("data")
    for name, modalities, count, seed in (("full", ["rgb", "depth", "caption"], 40, 0), ("texts", ["caption"], 90, 7)):
        catalog = load_catalog("scenes").subset(modalities)
        export(Scenes(catalog, count, seed), catalog, root / f"{name} files")
        import_folders(root / f"{name} files", root / name, catalog, shard_size=16)
    return root


def recipe(folder: Path, shards: Path, **changes: Any) -> Recipe:
    mix = {
        "photos": {"source": str(shards / "full"), "weight": 3},
        "words": {"source": str(shards / "texts")},
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "data": {**CONTENT["data"], "mix": mix}}), encoding="utf-8")
    return load_recipe(path, changes)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    run_recipe(recipe(folder, shards), folder / "run", "")
    return folder / "run"


def test_every_data_set_has_tokens_of_what_it_holds(run: Path) -> None:
    for part, counts in (("train", (31, 87)), ("validation", (9, 3))):
        for name, held, count in zip(
            ("photos", "words"), (["rgb", "depth", "caption"], ["caption"]), counts, strict=True
        ):
            root = run / "tokens" / part / name
            assert {path.name for path in root.iterdir()} == {"index.json", "samples", *held}
            assert read_json(root / "index.json")["samples"] == count


def test_a_data_set_of_texts_trains_beside_a_full_one(run: Path, shards: Path, tmp_path: Path) -> None:
    lines = read_metrics(run)
    assert lines[0]["loss/caption"] > lines[-1]["loss/caption"]
    assert {"loss/depth", "loss/caption"} <= set(lines[-1])
    wanted = recipe(tmp_path, shards)
    catalog = wanted.load_catalog()
    batches = build_batches(wanted, open_tokens(wanted, catalog, run, "train"), held_out=False)
    drawn = np.concatenate([batches.order[i] for i in range(125)])
    assert (drawn < 31).sum() == 750
    for i in range(10):
        texts = batches.order[i] >= 31
        drawn_of = batches[i].inputs.modality.numpy()[texts]  # type: ignore[union-attr]
        assert set(np.unique(drawn_of)) <= {0, catalog["caption"].id}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_exactly(run: Path, shards: Path, tmp_path: Path, workers: int) -> None:
    again = shutil.copytree(run, tmp_path / "again")
    for step in (16, 24):
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(again / "model")
    wanted = recipe(tmp_path, shards)
    wanted = dataclasses.replace(wanted, train=dataclasses.replace(wanted.train, workers=workers))
    result = train_model(wanted, wanted.load_catalog(), again)
    assert result.resumed_from == 8
    assert numbers(again) == numbers(run)
    assert (again / "model" / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()


def test_it_is_scored_and_shown_on_samples_that_have_the_inputs(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    rows = evaluate(load(copy), copy)
    assert {row.samples for row in rows} == {6}
    page = make_report(copy).read_text(encoding="utf-8")
    assert "photos (75%): 31; words (25%): 87" in page
    shutil.rmtree(copy / "tokens")
    assert "photos (75%): all; words (25%): all" in make_report(copy).read_text(encoding="utf-8")


def test_how_many_samples_each_has_is_told(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maskweave.cli.main import main

    wanted = recipe(tmp_path, shards)
    description = "photos (75%): 31 samples and 9 held out; words (25%): 87 samples and 3 held out"
    assert describe_samples(wanted, wanted.load_catalog()) == description
    assert main(["recipe", "check", str(tmp_path / "own.yaml"), "--data.mix.words", '{"weight": 2}']) == 0
    assert "photos (60%): 33 samples and 7 held out; words (40%)" in capsys.readouterr().out
    alone = dataclasses.replace(wanted, data=DataSettings(str(shards / "full"), validation=4))
    assert describe_samples(alone, wanted.load_catalog()) == "36 samples and 4 held out"


def test_texts_that_are_not_restored_are_told(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maskweave.cli.main import main

    for i, text in enumerate(("a cube", "a cone", "Ein Würfel", "Zwei Würfel")):
        (tmp_path / "files" / "caption").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / "caption" / f"{i}.txt").write_text(text, encoding="utf-8")
    import_folders(tmp_path / "files", tmp_path / "odd", load_catalog("scenes").subset(["caption"]))
    odd = {"source": str(tmp_path / "odd"), "weight": 1}
    wanted = recipe(tmp_path, shards, **{"data.mix.words": odd, "data.validation": 4})
    assert len(open_sources(wanted, wanted.load_catalog(), "train")["words"]) == 3
    assert (
        main(
            [
                "recipe",
                "check",
                str(tmp_path / "own.yaml"),
                "--data.validation",
                "4",
                "--data.mix.words",
                json.dumps(odd),
            ]
        )
        == 0
    )
    assert re.search(
        r"words \(25%\): caption: (33|67)% of 3 texts are not restored exactly", said := capsys.readouterr().out
    )
    assert "photos (75%): caption" not in said, "the captions of scenes are restored"
    train_tokenizers(wanted, wanted.load_catalog(), tmp_path / "run", only=["text"])
    assert "are not restored exactly by the vocabulary 'text' of type 'wordpiece'" in capsys.readouterr().out


def test_samples_of_all_data_sets_are_read_by_weight(shards: Path, tmp_path: Path) -> None:
    wanted = recipe(tmp_path, shards, **{"data.mix.words": {"samples": 50}})
    catalog = wanted.load_catalog()
    first = open_source(wanted, catalog, "train", samples=8)
    assert [first.key(i).partition("/")[0] for i in range(8)].count("words") == 2
    assert "depth" in first[0] and set(open_sources(wanted, catalog, "train")["words"][0]) == {"caption"}
    spread = open_source(wanted, catalog, "train", samples=16, spread=True)
    keys = [spread.key(i).rpartition("/")[2] for i in range(16)]
    whole = open_sources(wanted, catalog, "train")
    assert {name: len(source) for name, source in whole.items()} == {"photos": 31, "words": 50}
    for source, places in zip(whole.values(), (np.linspace(0, 30, 12), np.linspace(0, 49, 4)), strict=True):
        assert {source.key(int(place)).rpartition("/")[2] for place in places} <= set(keys)
    held_out, train = (open_sources(wanted, catalog, part)["photos"] for part in ("validation", "train"))
    assert not {held_out.key(i) for i in range(9)} & {train.key(i) for i in range(31)}


def test_scenes_and_features_beside_take_part(shards: Path, tmp_path: Path) -> None:
    half, sidecar = shutil.copytree(shards / "full", tmp_path / "half"), tmp_path / "sidecar"
    sidecar.mkdir()
    (half / "depth").rename(sidecar / "depth")
    photos = {"source": str(half), "sidecar": str(sidecar)}
    made = {"source": "scenes", "samples": 6}
    wanted = recipe(tmp_path, shards, **{"data.mix": {"photos": photos, "made": made}})
    sources = open_sources(wanted, wanted.load_catalog(), "train")
    assert {name: len(source) for name, source in sources.items()} == {"photos": 33, "words": 87, "made": 6}
    assert set(sources["photos"][0]) == set(sources["made"][0]) == {"rgb", "depth", "caption"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.mix.words": {"source": "nowhere"}}, "data.mix.words: .*nowhere: no such folder"),
        ({"data.validation": 400}, "data.mix.photos: .*full: has 40 samples, too few to hold out 300"),
        ({"data.mix.photos": {"sidecar": "nowhere"}}, "data.mix.photos: data.sidecar: .*nowhere: no such folder"),
        ({"modalities": ["rgb", "depth", "normal", "palette", "caption"]}, "data.mix: none of photos, words has normal, palette;"),
    ],
)  # fmt: skip
def test_data_sets_that_do_not_do_are_named(shards: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    wanted = recipe(tmp_path, shards, **changes)
    catalog = claim(wanted, tmp_path / "run")
    with pytest.raises(MaskweaveError, match=words):
        open_sources(wanted, catalog, "train")


def test_other_weights_are_another_run(run: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match=r"another recipe \(data.mix.words.weight differ\)"):
        claim(recipe(tmp_path, shards, **{"data.mix.words": {"weight": 2}}), run)


def test_finished_tokens_are_kept(run: Path, shards: Path, tmp_path: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in (run / "tokens").rglob("*") if path.is_file()}
    wanted = recipe(tmp_path, shards)
    make_tokens(wanted, wanted.load_catalog(), run)
    assert files == {path: path.stat().st_mtime_ns for path in (run / "tokens").rglob("*") if path.is_file()}
