"""What the studies of 4M share: the demo's scenes as tokens, made once, and models trained on them, each in a folder of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from maskweave.bundle import io as saving
from maskweave.modality.catalogs import Catalog
from maskweave.training.pipeline import build_objective, claim, make_tokens, train_model
from maskweave.training.recipe import EvaluateSettings, Recipe, load_recipe
from maskweave.training.tokenizers import train_tokenizers

DEMO = Path(__file__).parents[2] / "recipes/demo.yaml"
SHARED = ("tokenizers", "tokens")


def prepare(base: Path) -> None:
    """The demo's tokenizers and tokens under `base`; what is there is kept."""
    recipe = load_recipe(DEMO)
    catalog = claim(recipe, base)
    train_tokenizers(recipe, catalog, base)
    make_tokens(recipe, catalog, base)


def demo_for(seed: int, steps: int, **changes: Any) -> Recipe:
    """The demo's recipe for one process, without an evaluation.

    Args:
        changes: fields of the recipe that are others.
    """
    demo = load_recipe(DEMO)
    train = replace(demo.train, steps=steps, seed=seed, processes=1, keep=1)
    ready = replace(demo.tokenizers, steps={})
    return replace(demo, seed=seed, train=train, tokenizers=ready, evaluate=EvaluateSettings(), **changes)


def pretrain(recipe: Recipe, folder: Path, base: Path) -> None:
    """Train the recipe's model on the tokens of `base`, or go on; afterwards `folder` is a bundle."""
    train_model(recipe, open_folder(recipe, folder, base), folder)


def untrained(recipe: Recipe, folder: Path, base: Path) -> None:
    """The bundle that `pretrain` begins with."""
    catalog = open_folder(recipe, folder, base)
    torch.manual_seed(recipe.seed)
    objective = build_objective(recipe, catalog, folder)
    saving.save_model(objective.model, catalog, folder)


def open_folder(recipe: Recipe, folder: Path, base: Path) -> Catalog:
    """Write recipe and entries into `folder`, and links to what is shared."""
    catalog = claim(recipe, folder)
    for name in SHARED:
        if not (folder / name).exists():
            (folder / name).symlink_to((base / name).resolve())
    return catalog
