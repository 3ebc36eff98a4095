"""A recipe: one YAML file that fixes a run, validated before anything starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from maskweave import limits
from maskweave.config import build
from maskweave.data.opening import absolute
from maskweave.errors import MaskweaveError, shown
from maskweave.families.base import Family, ModelSettings, family_named
from maskweave.files import read_yaml
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.training.data_settings import DataSettings
from maskweave.training.settings import TrainSettings


@dataclass(frozen=True)
class TokenizersSettings:
    """How the tokenizers are made."""

    samples: int = 2000
    """Samples they are trained on, held in memory; 0: all."""
    train: TrainSettings = field(default_factory=TrainSettings)
    steps: dict[str, int] = field(default_factory=dict)
    """Steps of single modalities' tokenizers, where they differ from train.steps."""
    jobs: int = 1
    """Tokenizers trained side by side, each in a process of its own with one thread."""
    reuse: str = ""
    """Folder of ready tokenizers (a run's `tokenizers`) to take instead of training those that it has."""


@dataclass(frozen=True)
class EvaluationRequest:
    """One any-to-any request of the evaluation: each target is predicted from the inputs, and from nothing else but `via`."""

    inputs: list[str]
    """Modalities that are given."""
    targets: list[str]
    """Modalities that are predicted, and scored unless `read` names others."""
    via: list[str] = field(default_factory=list)
    """Modalities generated first, in order, each joining the inputs (chained generation); not scored."""
    read: list[str] = field(default_factory=list)
    """Modalities that the same model then reads from the generated targets and that are scored instead of them."""


@dataclass(frozen=True)
class EvaluateSettings:
    """What is asked of the trained model, and of how many samples."""

    samples: int = 200
    """Held-out samples."""
    seed: int = 0
    """Of the sampling."""
    requests: list[EvaluationRequest] = field(default_factory=list)
    """Requests that are scored; none: no evaluation."""
    sheets: list[EvaluationRequest] = field(default_factory=list)
    """Requests shown as contact sheets in the report."""


@dataclass(frozen=True)
class Recipe:
    """All that fixes a run."""

    renamed: ClassVar[dict[str, str]] = {
        "catalogue": "catalog",
        "drawing": "model.masking",
        "objective": "model.family",
        "loss": "model.loss",
        "m3ae.model": "model",
        "m3ae": "model",
    }

    catalog: str = "scenes"
    """Name of a shipped catalog, or the path of one."""
    modalities: list[str] = field(default_factory=list)
    """Those to use; empty: all of the catalog."""
    data: DataSettings = field(default_factory=DataSettings)
    tokenizers: TokenizersSettings = field(default_factory=TokenizersSettings)
    model: ModelSettings = field(default_factory=lambda: build(ModelSettings, {}, ""))
    """The model family, and what it sets."""
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    start: str = ""
    """Folder of a finished run or bundle (`maskweave import` makes one of a published checkpoint) whose model training goes on from; modalities that it does not know are initialized."""
    seed: int = 0
    """Of initialization, shuffling and masking."""

    @property
    def family(self) -> Family[Any, Any]:
        """What the model is trained as."""
        return family_named(self.model.family)

    def load_catalog(self) -> Catalog:
        catalog = load_catalog(self.catalog)
        return catalog.subset(self.modalities) if self.modalities else catalog


def load_recipe(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        overrides: dotted keys to values, `{"train.steps": 200}`, that replace the file's; groups of keys are joined with it.

    Raises:
        MaskweaveError: naming file and key: unknown, of a wrong type, or of a size that cannot be.
    """
    recipe = build(Recipe, read_recipe_file(path, overrides), str(path))
    check_recipe(recipe, str(path))
    return recipe


def read_recipe_file(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of a recipe of any kind, with what it includes and what replaces it, not checked yet."""
    content = _read(Path(path))
    for dotted, value in (overrides or {}).items():
        *parents, last = dotted.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise MaskweaveError(f"{path}: override {shown(dotted)}: {shown(parent)} is not a group of keys")
        place[last] = _over(value, place.get(last))
    return _resolved(content, Path())


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe file over the one that it includes, if it does."""
    if path.resolve() in within:
        raise MaskweaveError(f"{path}: 'include' leads back to this file; remove it from one of those that include it")
    content = _resolved(read_yaml(path), path.parent)
    if "include" not in content:
        return content
    name = content.pop("include")
    if not isinstance(name, str) or not name.endswith((".yaml", ".yml")):
        raise MaskweaveError(
            f"{path}: 'include' names a recipe by its path from here, a .yaml file, found {shown(name)}"
        )
    return _over(content, _read(path.parent / name, (*within, path.resolve())))


def _over(content: Any, included: Any) -> Any:
    """Groups of keys are joined, and everything else is replaced."""
    if not isinstance(content, dict) or not isinstance(included, dict):
        return content
    return {**included, **{key: _over(value, included.get(key)) for key, value in content.items()}}


PATHS = ("start", "reuse", "source", "sidecar", "held_out", "pictures", "held_out_pictures")
"""Keys that name files or folders, in recipes of all kinds and in their groups `data` and `tokenizers`."""
DATA = ("source", "held_out")
"""Those that may be a named source instead."""


def _resolved(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths made absolute, since the run's copy of the recipe lies elsewhere and is read from anywhere.

    A catalog's is from `folder`, where the recipe lies or, if it was typed, the working folder; all others are from the working folder.
    """
    catalog, data = content.get("catalog"), content.get("data")
    if isinstance(catalog, str) and catalog.endswith((".yaml", ".yml")):
        content["catalog"] = str((folder / catalog).resolve())
    mix = data.get("mix") if isinstance(data, dict) else None
    for group in (content, content.get("tokenizers"), data, *(mix.values() if isinstance(mix, dict) else ())):
        for key in PATHS:
            place = group.get(key) if isinstance(group, dict) else None
            if isinstance(place, str) and place:
                group[key] = absolute(place) if key in DATA else str(Path(place).resolve())
    return content


def check_recipe(recipe: Recipe, where: str) -> None:
    """What single keys cannot show: that names exist and sizes fit together.

    Raises:
        MaskweaveError: says where and what.
    """
    try:
        catalog = recipe.load_catalog()
        recipe.family.check(recipe.model, catalog)
        if not recipe.family.generates and (recipe.evaluate.requests or recipe.evaluate.sheets):
            raise MaskweaveError(
                f"evaluate.requests and evaluate.sheets are for models that generate, and model.family is {recipe.model.family!r}; remove them"
            )
        recipe.data.check()
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error
    if recipe.tokenizers.train.processes > 1:
        raise MaskweaveError(
            f"{where}: tokenizers.train.processes is {recipe.tokenizers.train.processes}, but each tokenizer is trained by one process; "
            "remove it, and set tokenizers.jobs to train several tokenizers side by side"
        )
    for name, steps in recipe.tokenizers.steps.items():
        if steps < 1:
            raise MaskweaveError(f"{where}: tokenizers.steps.{name} must be 1 or more, found {steps}")
        if name not in catalog or catalog[name].kind != "grid":
            raise MaskweaveError(
                f"{where}: tokenizers.steps names {shown(name)}, which is not a grid of the recipe's modalities ({', '.join(catalog)})"
            )
    for key in ("requests", "sheets"):
        for i, request in enumerate(getattr(recipe.evaluate, key)):
            for name in (*request.inputs, *request.via, *request.targets, *request.read):
                if name not in catalog:
                    raise MaskweaveError(
                        f"{where}: evaluate.{key}.{i} names {shown(name)}, which is not one of the recipe's modalities ({', '.join(catalog)})"
                    )
            for name in (*request.via, *request.targets, *request.read):
                if not catalog[name].is_target:
                    raise MaskweaveError(
                        f"{where}: evaluate.{key}.{i}: {shown(name)} is of kind {catalog[name].kind}, which the model cannot predict"
                    )
    if recipe.seed < 0 or recipe.evaluate.seed < 0:
        raise MaskweaveError(
            f"{where}: seed and evaluate.seed must be 0 or more, found {recipe.seed} and {recipe.evaluate.seed}"
        )
    for key, seed in (("seed", recipe.seed), ("evaluate.seed", recipe.evaluate.seed)):
        limits.check_most(f"{where}: {key}", seed, limits.SEED, fixed=True)
    limits.check_most(f"{where}: tokenizers.jobs", recipe.tokenizers.jobs, limits.PROCESSES)
    limits.check_most(f"{where}: tokenizers.samples", recipe.tokenizers.samples, limits.SAMPLES)
    limits.check_most(f"{where}: evaluate.samples", recipe.evaluate.samples, limits.SAMPLES)
    tokens = family_named(recipe.model.family).tokens_per_sample(recipe.model, catalog) * recipe.train.batch_size
    limits.check_most(f"{where}: tokens of a batch of train.batch_size samples", tokens, limits.BATCH_TOKENS)
    if recipe.tokenizers.jobs < 1 or recipe.tokenizers.samples < 0 or recipe.evaluate.samples < 1:
        raise MaskweaveError(
            f"{where}: tokenizers.jobs and evaluate.samples must be 1 or more, and tokenizers.samples 0 or more"
        )
