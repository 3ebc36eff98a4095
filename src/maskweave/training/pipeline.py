"""From a recipe to a finished run, stage by stage: tokenizers, tokens, model. Every stage goes on where it stopped."""

import contextlib
from pathlib import Path

import torch

from maskweave.bundle import io as saving
from maskweave.config import plain
from maskweave.data.mixing import MixedTokens
from maskweave.data.token_store import TokenData
from maskweave.data.tokenizing import tokenize
from maskweave.errors import MaskweaveError
from maskweave.masking.fourm import MaskSampler, TokenBatches
from maskweave.masking.m3ae import MaskedBatches
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM
from maskweave.models.m3ae import M3AE
from maskweave.objectives.fourm import FourMObjective
from maskweave.objectives.m3ae import M3AEObjective
from maskweave.training.buildable import check_buildable
from maskweave.training.distributed import is_main_process
from maskweave.training.loop import FitResult, fit
from maskweave.training.processes import spawn_workers
from maskweave.training.recipe import Recipe
from maskweave.training.run_folder import claim_folder
from maskweave.training.sources import open_sources
from maskweave.training.tokenizers import train_tokenizers
from maskweave.training.warm_start import other_tokenizers, warm_start


def run_recipe(recipe: Recipe, folder: Path, command: str) -> None:
    """All stages in order. Afterwards `folder` is a bundle.

    Args:
        command: what to type to go on after an interruption.
    """
    catalog = claim(recipe, folder)
    train_tokenizers(recipe, catalog, folder, command)
    make_tokens(recipe, catalog, folder)
    train_model(recipe, catalog, folder, command)


def claim(recipe: Recipe, folder: Path) -> Catalog:
    """Write recipe and modality entries into the run folder, or check that they are the ones that are there.

    Raises:
        MaskweaveError: the folder holds another recipe's run; names the keys that differ.
    """
    catalog = recipe.load_catalog()
    check_buildable(recipe, catalog, folder)
    claim_folder(folder, plain(recipe), catalog)
    return catalog


def make_tokens(recipe: Recipe, catalog: Catalog, folder: Path) -> None:
    """Token shards of the training and the held-out samples, `folder/tokens/PART`, of a mix `PART/NAME` for each data set."""
    tokenizers = saving.load_tokenizers(folder / "tokenizers", catalog)
    for part in ("train", "validation"):
        for name, source in open_sources(recipe, catalog, part).items():
            if name:
                print(f"{name}, {part}: {len(source):,} samples")
            skips = tokenize(
                source,
                catalog.subset(m.name for m in catalog.values() if m.reads in source.names),
                tokenizers,
                folder / "tokens" / part / name,
                shard_size=recipe.data.shard_size,
                workers=recipe.data.workers,
                limit=recipe.data.limit,
            )
            if skips.summary():
                print(skips.summary())


def open_tokens(recipe: Recipe, catalog: Catalog, folder: Path, part: str) -> TokenData | MixedTokens:
    """What `make_tokens` made of a part, "train" or "validation"."""
    weights = recipe.data.weights
    parts = [TokenData(folder / "tokens" / part / name, catalog) for name in weights]
    return MixedTokens(parts, list(weights.values())) if recipe.data.mix else parts[0]


def train_model(recipe: Recipe, catalog: Catalog, folder: Path, command: str = "") -> FitResult:
    """Train the model on the token shards, in as many processes as the recipe says, and save it."""
    with spawn_workers(recipe.train.processes, _train_together, recipe, catalog, folder):
        model, result = _fit_model(recipe, catalog, folder, command)
    saved = folder / "model" / "config.json"
    fresh = not saved.exists() or saved.stat().st_mtime_ns < (result.checkpoint / "state.json").stat().st_mtime_ns
    if fresh and is_main_process():
        saving.save_model(model, catalog, folder)
    return result


def _fit_model(recipe: Recipe, catalog: Catalog, folder: Path, command: str) -> tuple[FourM | M3AE, FitResult]:
    train, validation = (open_tokens(recipe, catalog, folder, part) for part in ("train", "validation"))
    torch.manual_seed(recipe.seed)
    objective = build_objective(recipe, catalog, folder)
    result = fit(
        objective,
        build_batches(recipe, train, held_out=False),
        recipe.train,
        folder,
        validation=build_batches(recipe, validation, held_out=True),
        title="train model",
        resume_command=command,
    )
    return objective.model, result


def build_objective(recipe: Recipe, catalog: Catalog, folder: Path) -> FourMObjective | M3AEObjective:
    """The recipe's model, initialized, in its objective."""
    if recipe.objective == "m3ae":
        own = recipe.m3ae
        return M3AEObjective(M3AE(catalog, own.model), own.loss_weight, own.normalized_patches)
    model = FourM(catalog, recipe.model)
    if recipe.model.init_from_tokenizers:
        tokenizers = saving.load_tokenizers(folder / "tokenizers", catalog)
        model.init_from_tokenizers({name: t.token_embeddings for name, t in tokenizers.items()})
    if recipe.start:
        told = warm_start(model, catalog, Path(recipe.start))
        for sentence in told + other_tokenizers(catalog, folder / "tokenizers", Path(recipe.start) / "tokenizers"):
            if is_main_process():
                print(f"start: {sentence}")
    return FourMObjective(model, recipe.loss)


def build_batches(recipe: Recipe, data: TokenData | MixedTokens, held_out: bool) -> TokenBatches | MaskedBatches:
    """What the recipe's objective is trained on; held-out samples come in order, always drawn alike and with all that they have."""
    size, seed = recipe.train.batch_size, recipe.seed + held_out
    if recipe.objective == "m3ae":
        unpaired = 0.0 if held_out else recipe.m3ae.unpaired
        return MaskedBatches(data, recipe.m3ae.mask_ratio, size, seed, unpaired, shuffle=not held_out)
    return TokenBatches(data, MaskSampler(data.catalog, recipe.drawing), size, seed, shuffle=not held_out)


def _train_together(recipe: Recipe, catalog: Catalog, folder: Path) -> None:
    """Body of a companion; what stops it stops the first process too, which tells."""
    with contextlib.suppress(MaskweaveError):
        _fit_model(recipe, catalog, folder, "")
