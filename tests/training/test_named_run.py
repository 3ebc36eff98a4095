"""A run on samples that a user's own code makes: recipe, tokenizers side by side, tokens, model, evaluation; and whose code is run when."""

import shutil
import sys
from pathlib import Path

import own_sources
import pytest

import maskweave
from maskweave.cli.main import main
from maskweave.data.named import check_source_allowed
from maskweave.errors import MaskweaveError
from maskweave.evaluate.report import make_report
from maskweave.evaluate.run import evaluate, held_out_samples, read_recipe
from maskweave.files import read_yaml, write_yaml
from maskweave.permission import code_allowed
from maskweave.retrieve.sources import open_indexed, reopen_indexed
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source

RECIPE = """\
catalog: scenes
modalities: [rgb, tok_rgb, caption]
data: {source: "python:own_sources:Endless", samples: 24, validation: 4, seed: 1, shard_size: 8, workers: 1}
tokenizers: {samples: 16, train: {steps: 2, batch_size: 8}, jobs: 2}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 16, target_tokens: 16}}
train: {steps: 2, batch_size: 8, workers: 1}
evaluate: {samples: 3, requests: [{inputs: [rgb], targets: [caption]}]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)


def test_a_run_from_own_code(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["recipe", "check", str(recipe)]) == 0
    assert "24 samples and 4 held out" in capsys.readouterr().out
    run = tmp_path / "run"
    assert main(["run", str(recipe), "--out", str(run)]) == 0
    assert read_yaml(run / "recipe.yaml")["data"]["source"] == "python: own_sources:Endless", "in one spelling"
    with pytest.raises(
        MaskweaveError,
        match=r"^data.source of the run's recipe.yaml is code, python: own_sources:Endless, which runs only if",
    ):
        evaluate(maskweave.load(run), run)
    assert main(["evaluate", str(run)]) == 1 and "MASKWEAVE_ALLOW_CODE=1" in capsys.readouterr().err
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    rows = evaluate(maskweave.load(run), run)
    assert [(row.target, row.metric, row.samples, row.seed) for row in rows] == [("caption", "F1", 3, 2)]
    assert {row.seed for row in evaluate(maskweave.load(run), run, scenes_seed=9)} == {9}
    assert rows[0].constant == 0, (
        "every text has a label of its own, so no constant is right; of words, 'level' would be"
    )


def test_training_and_held_out_samples_are_others(recipe: Path) -> None:
    endless = load_recipe(recipe)
    parts = [open_source(endless, endless.load_catalog(), part) for part in ("train", "validation")]
    assert [source.key(0) for source in parts] == ["seed-1-100", "seed-2-200"]
    own = {"data.source": "python: own_sources:fixed", "data.samples": 0, "data.validation": 3}
    fixed = load_recipe(recipe, own)
    train, held_out = (open_source(fixed, fixed.load_catalog(), part) for part in ("train", "validation"))
    keys = [[source.key(i) for i in range(len(source))] for source in (train, held_out)]
    assert (len(keys[0]), len(keys[1])) == (7, 3) and sorted(keys[0] + keys[1]) == [f"fixed-{i:03d}" for i in range(10)]
    with pytest.raises(MaskweaveError, match="fixed data set and takes no seed"):
        open_source(fixed, fixed.load_catalog(), "validation", seed=3)
    with pytest.raises(
        MaskweaveError, match="data.samples must be 1 or more for python: own_sources:Endless, which is endless"
    ):
        load_recipe(recipe, {"data.samples": 0})
    with pytest.raises(
        MaskweaveError, match="own.yaml: python: own_sources:gone: module own_sources has no function or class gone"
    ):
        load_recipe(recipe, {"data.source": "python: own_sources:gone"})


def test_loading_a_bundle_runs_no_code_that_its_recipe_names(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bundle from elsewhere; evaluating, reporting and indexing it open its data, and run that code only if it is allowed."""
    bundle = shutil.copytree(tiny_run, tmp_path / "bundle")
    content = read_yaml(bundle / "recipe.yaml")
    content["data"]["source"] = "python: stranger_code:make"
    write_yaml(bundle / "recipe.yaml", content)
    (tmp_path / "code").mkdir()
    shutil.copy(own_sources.__file__, tmp_path / "code" / "stranger_code.py")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    loaded = maskweave.load(bundle)
    assert loaded.generate({"caption": "a red cube"}, ["depth"])["depth"].shape == (64, 64)
    assert read_recipe(bundle).data.source == "python: stranger_code:make"
    assert "stranger_code" not in sys.modules
    mix = {"validation": 4, "mix": {"a": {"source": "python: stranger_code:make", "samples": 8}}}
    stranger = {**content, "data": mix}
    for recipe, key in ((content, "data.source"), (stranger, "data.mix.a.source")):
        write_yaml(bundle / "recipe.yaml", recipe)
        for opens in (
            lambda: evaluate(loaded, bundle),
            lambda: held_out_samples(loaded, read_recipe(bundle), None, 1),
            lambda: make_report(bundle),
            lambda: open_indexed("", loaded.catalog, run=str(bundle)),
        ):
            with pytest.raises(
                MaskweaveError, match=rf"^{key} of the run's recipe.yaml is code, python: stranger_code:make, which"
            ):
                opens()
    index = {"data": {"data": "python:stranger_code:make", "samples": 0, "seed": None}}
    with pytest.raises(
        MaskweaveError, match="^the data of the index is code, python:stranger_code:make, which runs only if"
    ):
        reopen_indexed(index, loaded.catalog)
    assert "stranger_code" not in sys.modules
    with code_allowed(), pytest.raises(MaskweaveError, match="module stranger_code has no function or class make"):
        evaluate(loaded, bundle)
    assert "stranger_code" in sys.modules


def test_sources_of_the_library_need_no_permission() -> None:
    for place in ("scenes", "python: maskweave.synthetic.scenes:Scenes", "some/folder"):
        check_source_allowed(place, "data.source")
    for place in (
        "python: maskweave.synthetic.scenes:np.load",
        "python: maskweave.files:remove",
        "python:maskweave.synthetic:x",
    ):
        with pytest.raises(MaskweaveError, match="is code"):
            check_source_allowed(place, "data.source")


def test_a_folder_of_pictures_is_data_too(recipe: Path, tmp_path: Path) -> None:
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "6"]) == 0
    own = {
        "data.source": str(tmp_path / "files" / "rgb"),
        "data.samples": 0,
        "data.validation": 2,
        "evaluate.requests": [],
    }
    pictures = load_recipe(recipe, {**own, "modalities": ["rgb", "tok_rgb"]})
    train, held_out = (open_source(pictures, pictures.load_catalog(), part) for part in ("train", "validation"))
    assert (len(train), len(held_out), train.names) == (4, 2, ("rgb",)) and held_out.key(1).endswith(".png")
