"""Code shared by the studies of 4M: the tokens of the demo's scenes, created once, and models trained on them, each in its own folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from maskweave.families.weights import save_model
from maskweave.masking.fourm import MaskingConfig
from maskweave.modality.catalogs import Catalog
from maskweave.training.pipeline import build_model, claim, make_tokens, train_model
from maskweave.training.recipe import EvaluateSettings, Recipe, load_recipe
from maskweave.training.tokenizers import train_tokenizers

DEMO = Path(__file__).parents[2] / "recipes/demo.yaml"
SHARED = ("tokenizers", "tokens")


def prepare(base: Path) -> None:
    """Creates the demo's tokenizers and tokens under `base`; existing ones are kept."""
    recipe = load_recipe(DEMO)
    catalog = claim(recipe, base)
    train_tokenizers(recipe, catalog, base)
    make_tokens(recipe, catalog, base)


def demo_for(seed: int, steps: int, masking: MaskingConfig | None = None, **changes: Any) -> Recipe:
    """Returns the demo's recipe for one process and 16 samples a step, without evaluation.

    Args:
        masking: replaces the demo's masking.
        changes: other fields of the recipe to replace.
    """
    demo = load_recipe(DEMO)
    train = replace(demo.train, steps=steps, seed=seed, batch_size=16, processes=1, keep=1)
    model: Any = demo.model if masking is None else replace(demo.model, masking=masking)
    ready = replace(demo.tokenizers, steps={})
    return replace(demo, seed=seed, model=model, train=train, tokenizers=ready, evaluate=EvaluateSettings(), **changes)


def pretrain(recipe: Recipe, folder: Path, base: Path) -> None:
    """Trains the recipe's model on the tokens of `base`, or resumes; afterwards `folder` is a bundle."""
    train_model(recipe, open_folder(recipe, folder, base), folder)


def untrained(recipe: Recipe, folder: Path, base: Path) -> None:
    """Writes the bundle that `pretrain` starts from, with random weights."""
    catalog = open_folder(recipe, folder, base)
    torch.manual_seed(recipe.seed)
    save_model(build_model(recipe, catalog, folder), catalog, folder)


def open_folder(recipe: Recipe, folder: Path, base: Path) -> Catalog:
    """Writes recipe and entries into `folder`, and links to the shared tokenizers and tokens."""
    catalog = claim(recipe, folder)
    for name in SHARED:
        if not (folder / name).exists():
            (folder / name).symlink_to((base / name).resolve())
    return catalog
