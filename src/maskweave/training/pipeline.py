"""Runs the stages of a recipe: tokenizers, tokens, model. Every stage resumes where it stopped."""

import contextlib
from pathlib import Path

import torch
from torch import nn

from maskweave.config import plain
from maskweave.data.augment import Augmented
from maskweave.data.error_budget import remark_lines
from maskweave.data.mixing import MixedTokens
from maskweave.data.order import SizedBatches
from maskweave.data.token_store import TokenData
from maskweave.data.tokenizing import tokenize
from maskweave.errors import MaskweaveError
from maskweave.families.weights import made_from, save_model
from maskweave.files import digest
from maskweave.modality.catalogs import Catalog
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.training import checkpoints
from maskweave.training.buildable import check_buildable
from maskweave.training.distributed import is_main_process
from maskweave.training.learned_scaling import learn_scaling, with_learned, with_learned_of
from maskweave.training.loop import FitResult, fit
from maskweave.training.processes import spawn_workers
from maskweave.training.recipe import Recipe
from maskweave.training.run_folder import claim_folder, writing
from maskweave.training.sources import open_sources
from maskweave.training.tokenizers import train_tokenizers
from maskweave.training.warm_start import other_tokenizers, warm_start


def run_recipe(recipe: Recipe, folder: Path, command: str) -> None:
    """Runs all stages in order. Afterwards `folder` is a bundle.

    Args:
        command: command to resume after an interruption.
    """
    with writing(folder):
        catalog = claim(recipe, folder)
        train_tokenizers(recipe, catalog, folder, command)
        make_tokens(recipe, catalog, folder)
        train_model(recipe, catalog, folder, command)


def claim(recipe: Recipe, folder: Path) -> Catalog:
    """Writes recipe and modality entries into the run folder, or checks that they match those in it. Statistics of patches that scale themselves are
    learned first.

    Raises:
        MaskweaveError: the folder contains a run of another recipe or of more steps; the message lists the keys that differ.
    """
    catalog = with_learned(recipe.load_catalog(), Path(recipe.start)) if recipe.start else recipe.load_catalog()
    catalog = with_learned(catalog, folder)
    check_buildable(recipe, catalog, folder)
    checkpoints.check_steps(checkpoints.latest(folder), recipe.train.steps)
    claim_folder(folder, plain(recipe), catalog)
    return learn_scaling(recipe, catalog, folder)


def make_tokens(recipe: Recipe, catalog: Catalog, folder: Path) -> None:
    """Writes token shards of the training and held-out samples to `folder/tokens/PART`, or `PART/NAME` for each data set of a mix."""
    tokenizers = load_tokenizers(folder / "tokenizers", catalog)
    for part in ("train", "validation"):
        for name, source in open_sources(recipe, catalog, part).items():
            if name:
                print(f"{name}, {part}: {len(source):,} samples")
            if part == "train" and recipe.data.augment is not None and recipe.data.augment.copies:
                source = Augmented(source, recipe.data.augment, with_learned_of(catalog, tokenizers), recipe.seed)
            skips = tokenize(
                source,
                catalog.subset(m.name for m in catalog.values() if m.reads in source.names),
                tokenizers,
                folder / "tokens" / part / name,
                shard_size=recipe.data.shard_size,
                workers=recipe.data.workers,
                limit=recipe.data.limit,
                bad=recipe.data.bad,
            )
            for line in remark_lines(skips.remarks, {}):
                print(f"{part}: {line}")
            if skips.summary():
                print(skips.summary())


def open_tokens(recipe: Recipe, catalog: Catalog, folder: Path, part: str) -> TokenData | MixedTokens:
    """Opens the tokens that `make_tokens` wrote for a part, "train" or "validation"."""
    weights = recipe.data.weights
    parts = [TokenData(folder / "tokens" / part / name, catalog) for name in weights]
    return MixedTokens(parts, list(weights.values())) if recipe.data.mix else parts[0]


def train_model(recipe: Recipe, catalog: Catalog, folder: Path, command: str = "") -> FitResult:
    """Trains the model on the token shards, in `train.processes` processes, and saves it."""
    with spawn_workers(recipe.train.processes, _train_together, recipe, catalog, folder):
        model, result = _fit_model(recipe, catalog, folder, command)
    if is_main_process():
        weights = digest(result.checkpoint / "model.safetensors", result.checkpoint / "ema.safetensors")
        if made_from(folder) != weights:
            save_model(model, catalog, folder, weights)
    return result


def _fit_model(recipe: Recipe, catalog: Catalog, folder: Path, command: str) -> tuple[nn.Module, FitResult]:
    train, validation = (open_tokens(recipe, catalog, folder, part) for part in ("train", "validation"))
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, catalog, folder)
    result = fit(
        recipe.family.build_objective(model, recipe.model, catalog),
        build_batches(recipe, train, held_out=False),
        recipe.train,
        folder,
        validation=build_batches(recipe, validation, held_out=True),
        title="train model",
        resume_command=command,
    )
    return model, result


def build_model(recipe: Recipe, catalog: Catalog, folder: Path) -> nn.Module:
    """Builds and initializes the recipe's model."""
    family = recipe.family
    model = family.build_model(catalog, recipe.model)
    family.initialize(model, recipe.model, lambda: load_tokenizers(folder / "tokenizers", catalog))
    if recipe.start:
        notes = warm_start(model, catalog, Path(recipe.start))
        for sentence in notes + other_tokenizers(catalog, folder / "tokenizers", Path(recipe.start) / "tokenizers"):
            if is_main_process():
                print(f"start: {sentence}")
    return model


def build_batches(recipe: Recipe, data: TokenData | MixedTokens, held_out: bool) -> SizedBatches:
    """Builds the batches for the recipe's model. Held-out samples keep their order, masks and all their modalities in every pass."""
    size, seed = recipe.train.batch_size, recipe.seed + held_out
    return recipe.family.build_batches(recipe.model, data, size, seed, held_out)


def _train_together(recipe: Recipe, catalog: Catalog, folder: Path) -> None:
    """Body of a worker process. Its errors also occur in the first process, which reports them."""
    with contextlib.suppress(MaskweaveError):
        _fit_model(recipe, catalog, folder, "")
