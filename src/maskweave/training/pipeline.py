"""Runs the stages of a recipe: tokenizers, tokens, model. Every stage resumes where it stopped."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from maskweave.modality.catalogs import Catalog
from maskweave.provenance import Origin, carried, made_now, read_provenance, write_provenance
from maskweave.ranks import WHOLE, JobPart, is_main_process, processes_of
from maskweave.tokenizers.folder import load_tokenizers, to_device
from maskweave.tokenizers.pretrained import origins_of_taken
from maskweave.training import checkpoints
from maskweave.training.buildable import check_buildable
from maskweave.training.checkpoint_files import latest, weights_digest
from maskweave.training.distributed import check_device, local_device
from maskweave.training.launch import barrier, divide, first
from maskweave.training.layout import seconds_per_update, settle
from maskweave.training.learned_scaling import learn_scaling, with_learned, with_learned_of
from maskweave.training.loop import FitResult, fit
from maskweave.training.processes import run_together
from maskweave.training.recipe import Recipe
from maskweave.training.run_folder import claim_folder, writing
from maskweave.training.settings import TrainSettings
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
    learned first. Of several launched processes, the first one does this.

    Raises:
        MaskweaveError: the folder contains a run of another recipe or of more steps; the message lists the keys that differ.
    """
    return first(lambda: _claim(recipe, folder)) or _known_catalog(recipe, folder)


def _claim(recipe: Recipe, folder: Path) -> Catalog:
    catalog = _known_catalog(recipe, folder)
    check_buildable(recipe, catalog, folder)
    check_device(recipe.train.device, recipe.train.fixed_processes)
    newest = latest(folder)
    checkpoints.check_steps(newest, recipe.train.steps)
    checkpoints.check_split(newest, recipe.train, processes_of(recipe.train.fixed_processes), claimed=True)
    claim_folder(folder, plain(recipe), catalog)
    taken = [origin for part, start in _taken_from(recipe) for origin in carried(start, part)]
    taken += _origins_of_tokenizers(recipe, catalog, folder)
    if taken:
        write_provenance(made_now(origins=taken), folder)
    return learn_scaling(recipe, catalog, folder)


def _taken_from(recipe: Recipe) -> list[tuple[str, Path]]:
    """Returns what a run takes of bundles, and from which ones."""
    parts = [("start", recipe.start_folder)] if recipe.start else []
    reused = Path(recipe.tokenizers.reuse).parent
    taken = bool(recipe.tokenizers.reuse) and reused not in [place for _, place in parts]
    return [*parts, *([("tokenizers", reused)] if taken else [])]


def _origins_of_tokenizers(recipe: Recipe, catalog: Catalog, folder: Path) -> list[Origin]:
    """Returns where the tokenizers of a run come from that entries name; those that it has already are not looked up again, and `carried` has those that it reuses."""
    known = read_provenance(folder).origins
    origins = []
    for m in catalog.values():
        part = f"tokenizers/{m.name}"
        if recipe.tokenizers.reuse and (Path(recipe.tokenizers.reuse) / m.name).is_dir():
            continue
        origins += [origin for origin in known if origin.part == part] or origins_of_taken(m, part)
    return origins


def _known_catalog(recipe: Recipe, folder: Path) -> Catalog:
    """The recipe's entries, with the statistics that the run it starts from and the folder have."""
    catalog = with_learned(recipe.load_catalog(), recipe.start_folder) if recipe.start else recipe.load_catalog()
    return with_learned(catalog, folder)


def make_tokens(recipe: Recipe, catalog: Catalog, folder: Path, part: JobPart = WHOLE) -> None:
    """Writes token shards of the training and held-out samples to `folder/tokens/PART`, or `PART/NAME` for each data set of a mix. Launched processes share
    the shards. Tokens of another run, `data.tokens`, are only checked.

    Args:
        part: the part of the shards to write, for jobs that are not connected.
    """
    tokenizers = load_tokenizers(folder / "tokenizers", catalog)
    if recipe.data.tokens:
        _check_tokens(recipe, catalog, folder, {name: tokenizer.fingerprint for name, tokenizer in tokenizers.items()})
        return
    to_device(tokenizers, local_device(recipe.train.device))
    for split in ("train", "validation"):
        for name, source in open_sources(recipe, catalog, split).items():
            if name:
                print(f"{name}, {split}: {len(source):,} samples")
            if split == "train" and recipe.data.augment is not None and recipe.data.augment.copies:
                source = Augmented(source, recipe.data.augment, with_learned_of(catalog, tokenizers), recipe.seed)
            write = partial(
                tokenize,
                source,
                catalog.subset(m.name for m in catalog.values() if m.reads in source.names),
                tokenizers,
                folder / "tokens" / split / name,
                shard_size=recipe.data.shard_size,
                workers=recipe.data.workers,
                limit=recipe.data.limit,
                bad=recipe.data.bad,
            )
            skips = divide(lambda some, write=write: write(part=some), part)  # type: ignore[misc]
            for line in remark_lines(skips.remarks, {}):
                print(f"{split}: {line}")
            if skips.summary():
                print(skips.summary())


def _check_tokens(recipe: Recipe, catalog: Catalog, folder: Path, fingerprints: dict[str, str]) -> None:
    """Checks that the tokens of another run were made with the tokenizers of this one.

    Raises:
        MaskweaveError: they were made with others, or are missing; the message names them.
    """
    for part in ("train", "validation"):
        data = open_tokens(recipe, catalog, folder, part)
        for one in data.parts if isinstance(data, MixedTokens) else [data]:
            other = [name for name, made in one.tokenizers.items() if fingerprints.get(name, made) != made]
            if other:
                raise MaskweaveError(
                    f"{one.root}: its tokens of {', '.join(other)} were made with other tokenizers than those in {folder / 'tokenizers'}; "
                    "set tokenizers.reuse to the 'tokenizers' folder of the run that made the tokens"
                )


def open_tokens(recipe: Recipe, catalog: Catalog, folder: Path, part: str) -> TokenData | MixedTokens:
    """Opens the tokens of a part, "train" or "validation": those that `make_tokens` wrote, or those of `data.tokens`."""
    weights, root = recipe.data.weights, recipe.data.tokens.rstrip("/") or str(folder / "tokens")
    places = [f"{root}/{part}/{name}".rstrip("/") for name in weights]
    parts = [TokenData(place, catalog, recipe.data.shuffle_window) for place in places]
    return MixedTokens(parts, list(weights.values())) if recipe.data.mix else parts[0]


def train_model(recipe: Recipe, catalog: Catalog, folder: Path, command: str = "") -> FitResult:
    """Trains the model on the token shards, in `train.processes` processes, and saves it."""

    def measure(train: TrainSettings) -> float:
        seconds: float = run_together(train.fixed_processes, _measure, replace(recipe, train=train), catalog, folder)
        return seconds

    train = settle(recipe.train, folder, measure, recipe.family.batch_multiple(recipe.model))
    found = run_together(train.fixed_processes, _fit_and_save, replace(recipe, train=train), catalog, folder, command)
    barrier()
    return FitResult(**{**found, "checkpoint": Path(found["checkpoint"])})


def _measure(recipe: Recipe, catalog: Catalog, folder: Path) -> float:
    """Body of each process of a measurement of `training.layout`: seconds per update."""
    model = recipe.family.build_model(catalog, recipe.model)
    batches = build_batches(recipe, open_tokens(recipe, catalog, folder, "train"), held_out=False)
    return seconds_per_update(recipe.family.build_objective(model, recipe.model, catalog), batches, recipe.train)


def _fit_and_save(recipe: Recipe, catalog: Catalog, folder: Path, command: str) -> dict[str, Any]:
    """Body of each process of a training. Returns the fields of its `FitResult`, in the types of JSON."""
    model, result = _fit_model(recipe, catalog, folder, command)
    if is_main_process():
        weights = weights_digest(result.checkpoint)
        if made_from(folder) != weights:
            save_model(model, catalog, folder, weights)
    return {**asdict(result), "checkpoint": str(result.checkpoint)}


def _fit_model(recipe: Recipe, catalog: Catalog, folder: Path, command: str) -> tuple[nn.Module, FitResult]:
    train, validation = (open_tokens(recipe, catalog, folder, split) for split in ("train", "validation"))
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
        notes = warm_start(model, catalog, recipe.start_folder)
        for sentence in notes + other_tokenizers(catalog, folder / "tokenizers", recipe.start_folder / "tokenizers"):
            if is_main_process():
                print(f"start: {sentence}")
    return model


def build_batches(recipe: Recipe, data: TokenData | MixedTokens, held_out: bool) -> SizedBatches:
    """Builds the batches for the recipe's model. Held-out samples keep their order, masks and all their modalities in every pass.

    Raises:
        MaskweaveError: there are fewer training samples than the loss compares with each other.
    """
    samples, compared = sum(data.counts), recipe.family.batch_multiple(recipe.model)
    if not held_out and samples < compared:
        raise MaskweaveError(
            f"there are {samples} training samples, but the loss compares {compared} with each other, so some would be compared with themselves; use more samples, or lower model.group_size"
        )
    size, seed = recipe.train.batch_size, recipe.seed + held_out
    return recipe.family.build_batches(recipe.model, data, size, seed, held_out)
