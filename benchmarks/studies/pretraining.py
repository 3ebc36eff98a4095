"""Code shared by the studies of 4M: the tokens of the demo's scenes, created once, and models trained on them, each in its own folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch

from maskweave.data.token_store import TokenData
from maskweave.families.weights import save_model
from maskweave.masking.fourm import MaskingConfig
from maskweave.modality.catalogs import Catalog
from maskweave.training.loop import fit
from maskweave.training.pipeline import build_batches, build_model, claim, make_tokens, train_model
from maskweave.training.recipe import EvaluateSettings, Recipe, load_recipe
from maskweave.training.tokenizers import train_tokenizers

DEMO = Path(__file__).parents[2] / "recipes/demo.yaml"
SHARED = ("tokenizers", "tokens")


def prepare(base: Path, recipe: Recipe | None = None) -> None:
    """Creates the tokenizers and tokens of a recipe, by default the demo's, under `base`; existing ones are kept."""
    recipe = recipe or load_recipe(DEMO)
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


def seconds_per_step(recipe_of: Callable[[int], Recipe], base: Path, short: int, long: int) -> float:
    """Returns the CPU seconds of one training step on the tokens of `base`, from a long and a short training, so that what happens once does not count.

    Args:
        recipe_of: returns the recipe of so many steps.
        short, long: steps of the trainings.
    """
    taken = []
    for steps in (short, long):
        recipe = recipe_of(steps)
        catalog = recipe.load_catalog()
        objective = recipe.family.build_objective(build_model(recipe, catalog, base), recipe.model, catalog)
        batches = build_batches(recipe, TokenData(base / "tokens/train", catalog), held_out=False)
        with TemporaryDirectory() as folder:
            start = process_time()
            fit(objective, batches, recipe.train, Path(folder))
            taken.append(process_time() - start)
    return (taken[1] - taken[0]) / (long - short)
