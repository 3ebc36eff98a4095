"""What is done with a recipe: `maskweave run`, `tokenizer`, `tokenize`, `train` and `recipe check`."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from maskweave.config import names
from maskweave.evaluate.report import is_reported, make_report
from maskweave.evaluate.run import describe, evaluate
from maskweave.generate.bundle import load
from maskweave.training import pipeline
from maskweave.training.buildable import check_buildable
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.sources import describe_samples
from maskweave.training.tokenizers import train_tokenizers

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # a recipe's keys are told as the code tells them


def recipe_arguments(parser: ArgumentParser, kind: type = Recipe) -> None:
    """Those of a command that does something with a recipe.

    Args:
        kind: dataclass of the recipe.
    """
    parser.usage = f"{parser.prog} RECIPE [--out FOLDER] [--KEY VALUE ...]"
    parser.add_argument(
        "recipe", metavar="RECIPE", type=str, help="YAML file; any of its keys can be replaced on the command line"
    )
    parser.add_argument("--out", metavar="FOLDER", type=str, help="run folder (default: runs/NAME of the recipe)")
    parser.add_class_arguments(kind, None)


def typed_recipe(given: Namespace, read: Callable[..., Any] = load_recipe, name: str = "run") -> tuple[Any, Path, str]:
    """The recipe with what was typed, the run folder, and the command that goes on with it.

    Args:
        read: from the recipe's path and what replaces its keys.
        name: of that command.
    """
    path = Path(given.recipe)
    overrides = {
        key: _plain(value) for key, value in given.items(branches=False) if key not in ("recipe", "out", "only")
    }
    folder = Path(given.get("out") or Path("runs") / path.stem)
    typed = [
        word
        for key, value in overrides.items()
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]
    return (
        read(path, overrides),
        folder,
        shlex.join(["maskweave", name, str(path), "--out", str(folder), *typed]),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return value.as_dict()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


run_arguments = tokenize_arguments = train_arguments = recipe_check_arguments = recipe_arguments


def run(given: Namespace) -> None:
    recipe, folder, again = typed_recipe(given)
    pipeline.run_recipe(recipe, folder, again)
    if is_reported(folder):
        print(f"{folder}: finished, nothing is left to do; report: {folder / 'report.html'}")
        return
    if recipe.evaluate.requests:
        print(describe(evaluate(load(folder), folder)))
    print(f"report: {make_report(folder)}")


def tokenizer_arguments(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--only", metavar="NAMES", type=str, help="modalities or vocabularies, with commas (default: all)"
    )


def tokenizer(given: Namespace) -> None:
    recipe, folder, _ = typed_recipe(given)
    only = names("only", given.get("only")) or None
    train_tokenizers(recipe, pipeline.claim(recipe, folder), folder, only=only)
    print(f"tokenizers: {folder / 'tokenizers'}")


def tokenize(given: Namespace) -> None:
    recipe, folder, _ = typed_recipe(given)
    pipeline.make_tokens(recipe, pipeline.claim(recipe, folder), folder)
    print(f"tokens: {folder / 'tokens'}")


def train(given: Namespace) -> None:
    recipe, folder, again = typed_recipe(given)
    pipeline.train_model(recipe, pipeline.claim(recipe, folder), folder, again)
    print(f"model: {folder / 'model'}")


def recipe_check(given: Namespace) -> None:
    recipe, _, _ = typed_recipe(given)
    catalog = recipe.load_catalog()
    check_buildable(recipe, catalog)
    print(
        f"{given.recipe}: sound; {len(catalog)} modalities ({', '.join(catalog)}); {describe_samples(recipe, catalog)}; "
        f"{recipe.train.steps} steps of {recipe.train.samples_per_step} samples"
    )
