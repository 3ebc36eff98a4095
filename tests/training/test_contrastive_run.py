"""A recipe of the family contrastive: trained, resumed exactly, saved and loaded, its features probed and searched, refused where its keys do not fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from timeless import numbers

import maskweave
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import load_catalog
from maskweave.models.contrastive import Contrastive
from maskweave.retrieve.features import Pooled
from maskweave.synthetic.scenes import Scenes
from maskweave.training.estimate import estimate
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import build_batches, claim, make_tokens, train_model
from maskweave.training.recipe import load_recipe
from maskweave.training.settings import TrainSettings
from maskweave.training.tokenizers import train_tokenizers
from maskweave.transfer.data import open_examples
from maskweave.transfer.probe import probe
from maskweave.transfer.recipe import TransferData, TransferRecipe
from maskweave.transfer.run import run_transfer

CONTENT = {
    "catalog": "scenes",
    "modalities": ["rgb", "caption"],
    "data": {"samples": 128, "validation": 24, "shard_size": 64},
    "tokenizers": {"samples": 64},
    "model": {"family": "contrastive", "width": 32, "depth": 1, "heads": 2, "group_size": 16},
    "train": {
        "steps": 150, "batch_size": 16, "learning_rate": 5e-3, "log_every": 1, "checkpoint_every": 50, "keep": 3, "ema": 0.9,
        "validate_every": 75,
    },
}  # fmt: skip

RECIPES = Path(__file__).parents[2] / "recipes"


def write(folder: Path, **changes) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contrastive")
    recipe = load_recipe(write(folder))
    catalog = claim(recipe, folder / "run")
    train_tokenizers(recipe, catalog, folder / "run")
    make_tokens(recipe, catalog, folder / "run")
    train_model(recipe, catalog, folder / "run")
    return folder / "run"


def test_the_loss_falls(run: Path) -> None:
    lines = [line for line in read_metrics(run) if line["split"] == "validation"]
    assert [line["step"] for line in lines] == [75, 150]
    assert set(lines[0]) >= {"loss/rgb", "loss/caption", "accuracy/rgb", "accuracy/caption", "temperature"}
    assert lines[-1]["loss"] < 0.8 * np.log(16), "below chance"
    assert lines[-1]["accuracy/caption"] > 3 / 16
    assert lines[-1]["temperature"] != pytest.approx(0.07, rel=1e-3), "it is learned"


def test_a_run_goes_on_exactly(run: Path, tmp_path: Path) -> None:
    again = shutil.copytree(run, tmp_path / "again")
    for step in (100, 150):
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(again / "model")
    recipe = load_recipe(write(tmp_path))
    result = train_model(recipe, claim(recipe, again), again)
    assert result.resumed_from == 50
    assert numbers(again) == numbers(run)
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (run, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_pictures_are_found_by_captions(run: Path) -> None:
    bundle = maskweave.load(run)
    assert isinstance(bundle.model, Contrastive) and bundle.family.name == "contrastive"
    scenes = [dict(scene) for scene in Scenes(bundle.catalog, 32, seed=5)]
    features = Pooled(bundle)
    pictures, captions = (features([{name: s[name]} for s in scenes]) for name in ("rgb", "caption"))
    assert pictures.shape == (32, 32) and np.linalg.norm(captions, axis=1) == pytest.approx(1, abs=1e-5)
    order = (captions @ pictures.T).argsort(axis=1)[:, ::-1]
    rank = (order == np.arange(32)[:, None]).argmax(axis=1)
    assert np.median(rank) < 8, "chance is 16"
    both = features([{name: s[name] for name in bundle.catalog} for s in scenes])
    assert both == pytest.approx((pictures + captions) / 2, abs=1e-5)


def test_each_quarter_of_a_picture_is_projected(run: Path) -> None:
    bundle = maskweave.load(run)
    samples = [{"rgb": scene["rgb"]} for scene in Scenes(bundle.catalog, 2, seed=5)]
    quarters = np.split(Pooled(bundle, quarters=True)(samples), 4, axis=1)
    assert [np.linalg.norm(q, axis=1).tolist() for q in quarters] == [pytest.approx([1, 1], abs=1e-5)] * 4
    cells = bundle.encoder(["rgb"])(samples).feature_map("rgb").detach()
    first = bundle.model.project("rgb", cells[:, :, :4, :4].mean(dim=(2, 3))).detach().numpy()
    assert quarters[0] == pytest.approx(first, abs=1e-5)


def test_a_modality_s_features_do_not_depend_on_the_others(run: Path) -> None:
    bundle = maskweave.load(run)
    scenes = [dict(scene) for scene in Scenes(bundle.catalog, 4, seed=5)]
    alone, together = bundle.encoder(["rgb"])(scenes), bundle.encoder(["rgb", "caption"])(scenes)
    assert torch.allclose(alone.tokens, together.tokens[:, together.slices["rgb"]], atol=1e-5)


@pytest.mark.slow
def test_the_encoder_is_probed_and_fine_tuned(run: Path, tmp_path: Path) -> None:
    data = TransferData(samples=100, validation=50)
    examples = open_examples(data, load_catalog("scenes"), ["rgb"], "metadata", "object_count")
    rows = {row.metric: row.value for row in probe(maskweave.load(run).encoder(["rgb"]), examples, 0)}
    assert 0 < rows["linear-probe accuracy"] <= 1
    recipe = TransferRecipe(
        start=str(run), inputs=["rgb"], target="metadata", label="object_count", catalog="scenes",
        data=TransferData(samples=40, validation=20), train=TrainSettings(steps=4, batch_size=8),
    )  # fmt: skip
    assert any(row.metric == "accuracy" for row in run_transfer(recipe, tmp_path / "count"))


def test_the_report_says_what_was_compared(run: Path, tmp_path: Path) -> None:
    from maskweave.evaluate.report import make_report

    page = make_report(shutil.copytree(run, tmp_path / "copy")).read_text(encoding="utf-8")
    assert "16 samples at a time" in page


def test_fewer_samples_than_a_group_are_refused(run: Path) -> None:
    recipe = load_recipe(run / "recipe.yaml", {"model.group_size": 256, "train.batch_size": 256})
    data = TokenData(run / "tokens/train", recipe.load_catalog())
    with pytest.raises(
        MaskweaveError, match="there are 128 training samples, but the loss compares 256.*lower model.group_size"
    ):
        build_batches(recipe, data, held_out=False)
    build_batches(recipe, data, held_out=True)


def test_its_costs_are_estimated() -> None:
    """All patches are encoded, where M3AE encodes a quarter of them and decodes all with a small decoder."""
    costs = []
    for name in ("contrastive-scenes", "m3ae-scenes"):
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        costs.append(estimate(recipe, recipe.load_catalog()))
    assert costs[0].parameters < costs[1].parameters and costs[0].flops > costs[1].flops


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modalities": ["rgb"]}, "needs two or more, found rgb; add one to 'modalities'"),
        ({"modalities": ["rgb", "depth"]}, r"kind patches and sequence, found depth \(grid\)"),
        ({"model": {"family": "contrastive", "group_size": 1}}, "'model': group_size must be 2 or more, found 1"),
        ({"model": {"family": "contrastive", "size": "huge"}}, "unknown size 'huge'"),
        (
            {"model": {"family": "contrastive", "group_size": 32}},
            "train.batch_size is 16, but the loss compares 32 samples with each other; make it a multiple of 32",
        ),
        (
            {"model": {"family": "contrastive", "mask_ratio": {"patches": 0.5}}},
            "unknown key 'model.mask_ratio'; it is only valid if model.family is 'm3ae'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes, words) -> None:
    with pytest.raises(MaskweaveError, match=words):
        load_recipe(write(tmp_path, **changes))
