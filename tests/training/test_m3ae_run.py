"""A recipe of the family m3ae: from text tokenizer to model, resumed exactly, refused where its keys do not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from timeless import numbers

from maskweave.errors import MaskweaveError
from maskweave.families.weights import load_model
from maskweave.modality.catalogs import load_saved_catalog
from maskweave.models.m3ae import M3AE
from maskweave.synthetic.scenes import Scenes
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import claim, make_tokens, train_model
from maskweave.training.recipe import load_recipe
from maskweave.training.tokenizers import train_tokenizers

CONTENT = {
    "catalog": "scenes",
    "modalities": ["rgb", "caption"],
    "data": {"samples": 40, "validation": 8, "shard_size": 16},
    "tokenizers": {"samples": 32},
    "model": {
        "family": "m3ae",
        "width": 32, "depth": 1, "heads": 2, "decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2,
        "mask_ratio": {"sequence": 0.5},
        "unpaired": 0.4,
    },
    "train": {
        "steps": 24, "batch_size": 8, "learning_rate": 5e-3, "log_every": 1, "checkpoint_every": 8, "keep": 3, "ema": 0.9,
        "validate_every": 12,
    },
}  # fmt: skip


def write(folder: Path, **changes) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m3ae")
    recipe = load_recipe(write(folder))
    catalog = claim(recipe, folder / "run")
    train_tokenizers(recipe, catalog, folder / "run")
    make_tokens(recipe, catalog, folder / "run")
    train_model(recipe, catalog, folder / "run")
    return folder / "run"


def test_the_loss_falls(run: Path) -> None:
    lines = [line for line in read_metrics(run) if line["split"] == "validation"]
    assert [line["step"] for line in lines] == [12, 24]
    assert set(lines[0]) >= {"loss/rgb", "loss/caption", "accuracy/caption"}
    first = read_metrics(run)[0]
    assert lines[-1]["loss/caption"] < 0.75 * first["loss/caption"]
    assert {path.name for path in (run / "tokenizers").iterdir()} == {"text"}, "pictures need no tokenizer"


def test_a_run_goes_on_exactly(run: Path, tmp_path: Path) -> None:
    again = shutil.copytree(run, tmp_path / "again")
    for step in (16, 24):
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(again / "model")
    recipe = load_recipe(write(tmp_path))
    result = train_model(recipe, claim(recipe, again), again)
    assert result.resumed_from == 8
    assert numbers(again) == numbers(run)
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (run, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_saved_model_is_the_trained_one(run: Path) -> None:
    catalog = load_saved_catalog(run)
    model = load_model(run, catalog)
    assert isinstance(model, M3AE) and not model.training and model.config.width == 32
    assert json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))["family"] == "m3ae"


def test_the_report_shows_what_is_restored(run: Path, tmp_path: Path) -> None:
    from maskweave.evaluate.report import make_report

    copy = shutil.copytree(run, tmp_path / "copy")
    page = make_report(copy).read_text(encoding="utf-8")
    assert page.count('alt="restored"') == page.count('alt="attention"') == 1
    assert "75% of patches, 50% of sequences" in page
    assert {path.name for path in (copy / "sheets").iterdir()} == {"restored.png", "attention.png"}


def test_a_bundle_that_cannot_generate_says_so(run: Path) -> None:
    from maskweave.generate.bundle import load

    bundle = load(run)
    scene = Scenes(bundle.catalog, 1, 0)[0]
    with pytest.raises(MaskweaveError, match="its model is of family 'm3ae', which cannot generate"):
        bundle.generate({"rgb": scene["rgb"]}, targets=["caption"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"family": "mae"}}, "'model': unknown model family 'mae'; known: fourm, m3ae"),
        ({"model": {"family": 3}}, "unknown model family 3"),
        ({"modalities": ["rgb", "depth"]}, r"kind patches and sequence, found depth \(grid\).*'modalities'"),
        ({"model": {"family": "m3ae", "size": "huge"}}, "unknown size 'huge'"),
        (
            {"model": {"family": "m3ae", "mask_ratio": {"patches": 2}}},
            "'model.mask_ratio': mask_ratio.patches is 2.0; expected a share",
        ),
        ({"model": {"family": "m3ae", "mask_ratio": 0.5}}, "'model.mask_ratio'"),
        ({"model": {"family": "m3ae", "unpaired": 2}}, "'model': unpaired must be a share from 0 to 1, found 2"),
        (
            {"model": {"family": "m3ae", "masking": {"input_tokens": 5}}},
            "unknown key 'model.masking'; it is only valid if model.family is 'fourm'",
        ),
        (
            {"model": {"mask_ratio": {"patches": 0.5}}},
            "unknown key 'model.mask_ratio'; it is only valid if model.family is 'm3ae'",
        ),
        (
            {"model": {"family": "m3ae", "normalised_patches": True}},  # codespell:ignore
            "is now 'model.normalized_patches'",
        ),  # codespell:ignore
        (
            {"evaluate": {"requests": [{"inputs": ["rgb"], "targets": ["caption"]}]}},
            "evaluate.requests and evaluate.sheets need a model that generates, but model.family is 'm3ae'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes, words) -> None:
    with pytest.raises(MaskweaveError, match=words):
        load_recipe(write(tmp_path, **changes))
