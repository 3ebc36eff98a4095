"""Code shared by the studies of 4M: the tokens of the demo's scenes, created once, and models trained on them, each in its own folder."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch
from study import parser

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
QUICK_SAMPLES = 64
"""Scenes of each part with --quick."""


def base_parser(name: str, about: str, *, steps: int) -> argparse.ArgumentParser:
    """Returns a parser with the options of all studies, and the folder of the tokens."""
    made = parser(name, about, steps=steps)
    about_base = "run folder with tokenizers and tokens; missing ones are created"
    made.add_argument("--base", type=Path, default=Path("runs/studies/scenes"), help=about_base)
    return made


def prepare_base(options: argparse.Namespace) -> None:
    """Creates the tokenizers and tokens of the demo's scenes in `options.base`; with --quick a few of them, in a folder of the study."""
    if not options.quick:
        return prepare(options.base)
    options.base = options.out.with_name("quick_scenes")
    few = {"data.samples": QUICK_SAMPLES, "data.validation": QUICK_SAMPLES, "tokenizers.samples": QUICK_SAMPLES}
    demo = load_recipe(DEMO, {**few, "tokenizers.train.steps": 5, "tokenizers.jobs": 1})
    prepare(options.base, replace(demo, tokenizers=replace(demo.tokenizers, steps={})))


def first_samples(folder: Path, catalog: Catalog, count: int) -> TokenData:
    """Opens the first `count` samples of a folder of tokens, or all if there are fewer."""
    data = TokenData(folder, catalog, window=0)
    data.counts = (min(count, len(data)),)
    return data


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
