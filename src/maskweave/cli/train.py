"""Commands that take a recipe: `maskweave run`, `tokenizer`, `tokenize`, `train` and `recipe check`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from maskweave.cli.shared import part_argument, part_of
from maskweave.config import names
from maskweave.data.remote import is_remote
from maskweave.errors import MaskweaveError, shown_command
from maskweave.evaluate.report import describe_report
from maskweave.evaluate.run import describe, evaluate
from maskweave.families.base import families
from maskweave.generate.bundle import load
from maskweave.permission import code_allowed
from maskweave.ranks import world
from maskweave.report.html import is_current
from maskweave.training import pipeline
from maskweave.training.buildable import check_buildable
from maskweave.training.distributed import local_device
from maskweave.training.estimate import describe_estimate
from maskweave.training.hardware import GPUS
from maskweave.training.launch import tell
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.run_folder import writing
from maskweave.training.sources import describe_recipe_texts, describe_samples
from maskweave.training.tokenizers import train_tokenizers

set_parsing_settings(
    docstring_parse_attribute_docstrings=True
)  # the docstrings under dataclass fields become the help texts

RECIPE = Recipe
"""Type of the recipe that these commands read."""


def recipe_arguments(parser: ArgumentParser, kind: type = Recipe) -> None:
    """Adds the arguments of a command that takes a recipe.

    Args:
        kind: dataclass of the recipe.
    """
    parser.usage = f"{parser.prog} RECIPE [--out FOLDER] [--KEY VALUE ...]"
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        type=str,
        help="YAML file, or the name of a shipped recipe, such as demo; any key can be overridden on the command line",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=str, help="run folder (default: runs/NAME, where the recipe is NAME.yaml)"
    )
    own_model = "model" in {f.name for f in dataclasses.fields(kind)}
    parser.add_class_arguments(kind, None, skip={"model"} if own_model else None)
    if own_model:
        _model_arguments(parser)


def _model_arguments(parser: ArgumentParser) -> None:
    """Adds the keys under `model` of all families. Whether the recipe's family has a key is checked when the recipe is read."""
    hints: dict[str, list[Any]] = {}
    for family in families():
        own = get_type_hints(family.Settings)
        for f in dataclasses.fields(family.Settings):
            hints.setdefault(f.name, []).append(own[f.name])
    of_several_types = {key for key, found in hints.items() if any(hint != found[0] for hint in found)}
    added = set(of_several_types)
    for number, family in enumerate(families()):
        keys = {f.name for f in dataclasses.fields(family.Settings)}
        if keys - added:
            parser.add_class_arguments(family.Settings, "model", as_group=number == 0, skip=added & keys)
        added |= keys
    for key in sorted(of_several_types):
        parser.add_argument(f"--model.{key}", type=Any, help="its type depends on the model family")


def typed_recipe(given: Namespace, read: Callable[..., Any] = load_recipe, name: str = "run") -> tuple[Any, Path, str]:
    """Returns the recipe with the keys typed on the command line, the run folder, and the command that resumes the run; with a launcher, which is
    not known here, none.

    Args:
        read: reads a recipe, given its path and the keys to override.
        name: name of the command that resumes.
    """
    path = Path(given.recipe)
    overrides = {
        key: _plain(value)
        for key, value in given.items(branches=False)
        if key not in ("recipe", "out", "only", "fractions", "part", "gpu", "gpus")
    }
    if is_remote(given.get("out") or ""):
        raise MaskweaveError(
            f"--out is {given.out}, but runs write to folders; give a folder, and copy it with: {shown_command('upload', 'FOLDER', given.out)}"
        )
    folder = Path(given.get("out") or Path("runs") / path.stem)
    typed = [
        word
        for key, value in overrides.items()
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]
    if given.get("fractions"):
        typed += ["--fractions", given.fractions]
    again = "" if world() > 1 else shown_command(name, path, "--out", folder, *typed)
    return read(path, overrides), folder, again


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return value.as_dict()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


run_arguments = train_arguments = recipe_arguments


def run(given: Namespace) -> None:
    recipe, folder, again = typed_recipe(given)
    with writing(folder):
        pipeline.run_recipe(recipe, folder, again)
        _describe(recipe, folder)


def _describe(recipe: Recipe, folder: Path) -> None:
    """Evaluation and report of a finished run. Launched processes share them."""
    if tell(is_current(folder)):
        print(f"{folder}: already finished; report: {folder / 'report.html'}")
        return
    bundle = load(folder, local_device(recipe.train.device)) if recipe.evaluate.requests else None
    with code_allowed():  # the recipe is the user's, and its data has been opened
        if bundle is not None:
            print(describe(evaluate(bundle, folder)))
        print(describe_report(folder))


def tokenizer_arguments(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--only", metavar="NAMES", type=str, help="modalities or vocabularies, separated by commas (default: all)"
    )


def tokenizer(given: Namespace) -> None:
    recipe, folder, _ = typed_recipe(given)
    only = names("only", given.get("only")) or None
    with writing(folder):
        train_tokenizers(recipe, pipeline.claim(recipe, folder), folder, only=only)
    print(f"tokenizers: {folder / 'tokenizers'}")


def tokenize_arguments(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    part_argument(parser)


def tokenize(given: Namespace) -> None:
    recipe, folder, _ = typed_recipe(given)
    part = part_of(given)
    with writing(folder, part):
        pipeline.make_tokens(recipe, pipeline.claim(recipe, folder), folder, part)
    print(f"tokens: {folder / 'tokens'}")


def train(given: Namespace) -> None:
    recipe, folder, again = typed_recipe(given, name="train")
    with writing(folder):
        pipeline.train_model(recipe, pipeline.claim(recipe, folder), folder, again)
    print(f"model: {folder / 'model'}")


def recipe_check_arguments(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--gpu",
        metavar="NAME",
        type=str,
        help=f"GPU to estimate time and memory for (default: h100): {', '.join(GPUS)}",
    )
    parser.add_argument(
        "--gpus", metavar="NUMBER", type=int, help="number of GPUs, each with a process (default: train.processes)"
    )


def recipe_check(given: Namespace) -> None:
    recipe, _, _ = typed_recipe(given)
    gpus = given.get("gpus") or recipe.train.fixed_processes
    if gpus < 1:
        raise MaskweaveError(f"--gpus is {gpus}; expected 1 or more")
    catalog = recipe.load_catalog()
    check_buildable(recipe, catalog)
    for line in describe_estimate(recipe, catalog, given.get("gpu") or "h100", gpus):  # first, because it needs no data
        print(line)
    print(
        f"{given.recipe}: valid; {len(catalog)} modalities ({', '.join(catalog)}); {describe_samples(recipe, catalog)}; "
        f"{recipe.train.steps} steps of {recipe.train.samples_per_step} samples"
    )
    for line in describe_recipe_texts(recipe, catalog):
        print(line)
