"""Suites of the papers' tables: their figures, protocols and settings of fine-tuning, as the papers give them."""

import pytest

from maskweave.config import build
from maskweave.errors import MaskweaveError
from maskweave.transfer.recipe import TransferRecipe
from maskweave.transfer.suite import FOLDER, load_suite, published_table

PAPERS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "scenes")
FIGURES = {
    "diode-normals": [21.7, 21.1, 20.8],
    "diode-depth": [0.71, 0.69, 0.68],
    "coco-semantic": [42.5, 46.4, 48.1],
    "imagenet-knn": [73.1, 77.0, 78.3],
    "imagenet-finetune": [84.5, 86.5, 87.1],
    "ade20k": [50.1, 53.4, 56.0],
    "nyuv2-depth": [90.8, 93.7, 96.5],
    "arkitscenes": [42.4, 47.0, 48.4],
}
"""Of 4M-21 B, L and XL."""


def test_published_figures_are_those_of_the_paper() -> None:
    found = {name: [one.figures for one in some] for name in PAPERS if (some := load_suite(name).published)}
    models = ("4M-21 B", "4M-21 L", "4M-21 XL")
    table = {name: [dict(zip(models, figures, strict=True))] for name, figures in FIGURES.items()}
    assert found == {**table, "m3ae-linear": [{"M3AE": 61.3, "MAE": 44.6, "CLIP": 69.0}]}


def test_m3ae_is_fine_tuned_as_the_paper_says() -> None:
    """100 epochs of 1,281,167 pictures, 1,024 a step, at a learning rate of 1e-3."""
    recipe = recipes("m3ae-finetune")["rgb"]
    train, tuning = recipe.train, recipe.tuning
    assert train.batch_size * train.accumulate == 1024 and train.learning_rate == 1e-3
    assert train.steps == pytest.approx(100 * 1_281_167 / 1024, rel=2e-3)
    assert (tuning.layer_decay, tuning.stochastic_depth) == (0.6, 0.1)
    assert (train.betas, train.weight_decay, train.warmup) == ((0.9, 0.999), 0.05, 0.05)


@pytest.mark.parametrize("name", [name for name in PAPERS if load_suite(name).transfers])
def test_settings_of_fine_tuning_are_within_the_usual(name: str) -> None:
    for recipe in recipes(name).values():
        train, tuning = recipe.train, recipe.tuning
        assert 5e-5 <= train.learning_rate <= 4e-3 and 0.01 <= train.weight_decay <= 0.1
        assert 16 <= train.batch_size * train.accumulate <= 1024 and 5_000 <= train.steps <= 200_000
        assert 0 < train.warmup <= 0.2 and train.betas == (0.9, 0.999) and train.precision == "auto"
        assert 0.5 <= tuning.layer_decay <= 1 and 0 <= tuning.stochastic_depth <= 0.3
        assert train.checkpoint_every <= train.steps / 5


def recipes(name: str) -> dict[str, TransferRecipe]:
    """The recipes of a suite's fine-tunings."""
    transfers = load_suite(name).transfers
    return {title: build(TransferRecipe, {"start": "x", **content}, name) for title, content in transfers.items()}


@pytest.mark.parametrize("name", PAPERS)
def test_every_suite_of_a_paper_tells_its_protocol_and_figures(name: str) -> None:
    suite = load_suite(name)
    assert suite.needs_path and len(suite.protocol) > 100 and "not stated" in suite.protocol.lower()
    header = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("\ndata:")[0]
    assert f"--suite {name} --data PATH" in header and "# PATH: " in header
    for published in suite.published:
        assert "arXiv" in published.paper and published.figures and not set(published.here) - set(published.figures)
    table = published_table(suite)
    assert all(model in table for published in suite.published for model in published.figures)
    with pytest.raises(MaskweaveError, match="this suite needs the folder of its data; give it with --data"):
        suite.at("")
