"""A recipe: one YAML file that defines a run, validated before the run starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from maskweave import limits
from maskweave.arguments import check_arguments, check_path
from maskweave.config import build, plain
from maskweave.data.bundle_place import bundle_folder
from maskweave.data.opening import absolute
from maskweave.data.remote import is_remote
from maskweave.data.table_source import NAME
from maskweave.errors import MaskweaveError, shown
from maskweave.families.base import Family, ModelSettings, family_named
from maskweave.files import read_yaml
from maskweave.limits import RecipeLimits
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.modality.checks import decoding_problem
from maskweave.modality.decoding import Decoding
from maskweave.shipped import recipe_path, shipped_bundle
from maskweave.training.data_settings import DataSettings
from maskweave.training.settings import TrainSettings


@dataclass(frozen=True)
class TokenizersSettings:
    """How the tokenizers are trained."""

    samples: int = 2000
    """Samples to train the tokenizers on, kept in memory; 0: all."""
    train: TrainSettings = field(default_factory=TrainSettings)
    steps: dict[str, int] = field(default_factory=dict)
    """Steps of the tokenizers of single modalities, if different from train.steps."""
    jobs: int = 1
    """Number of tokenizers trained in parallel, each in its own process with one thread."""
    reuse: str = ""
    """Folder of trained tokenizers (the `tokenizers` folder of a run). Tokenizers found there are copied instead of trained."""

    def __post_init__(self) -> None:
        if self.train.parallel not in ("auto", "none"):
            raise MaskweaveError(
                f"train.parallel is {self.train.parallel}, but a tokenizer is trained by one process; several processes train different tokenizers. "
                "Set it to auto"
            )


@dataclass(frozen=True)
class EvaluationRequest:
    """One any-to-any request: each target is predicted only from the inputs and `via`."""

    inputs: list[str]
    """Modalities that are given."""
    targets: list[str]
    """Modalities that are predicted, and scored unless `read` is set."""
    via: list[str] = field(default_factory=list)
    """Modalities that are generated first, in this order, and added to the inputs (chained generation); not scored."""
    read: list[str] = field(default_factory=list)
    """Modalities that the same model then predicts from the generated targets; they are scored instead of the targets."""
    metrics: list[str] = field(default_factory=list)
    """Scores, by their names in entries; empty: those of the entry of what is scored."""
    truth: str = ""
    """Modality whose values the only target is compared with, of the same shape, and whose metrics are used; empty: the target's own."""
    ensemble: int = 1
    """Number of predictions of each sample that are merged, as `Bundle.ensemble` does. They only differ if they are sampled at a sufficient temperature; see `decoding`."""
    best_of: int = 1
    """Number of predictions of each sample of which one is kept: the one from which the inputs are likeliest, as `Bundle.best_of` does. If `read` or the scores judge
    by the same model, it is favored."""
    decoding: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By generated modality, settings that replace those of its entry's `decoding`, such as {depth: {temperature: 1.0}}."""

    def decodings(self, catalog: Catalog, where: str = "decoding") -> dict[str, Decoding]:
        """Returns `decoding` in full, by modality."""
        return {name: catalog[name].decoding.changed(s, where, name) for name, s in self.decoding.items()}


SetScore = Literal["frechet", "kernel", "similarity", "identification"]


@dataclass(frozen=True)
class EvaluateSettings:
    """Evaluation of the trained model."""

    samples: int = 200
    """Number of held-out samples."""
    seed: int = 0
    """Seed of the sampling."""
    references: bool = True
    """Compare with simple predictions, too: ridge, logistic regression and nearest neighbors, fitted to training samples in seconds."""
    sets: list[SetScore] = field(default_factory=list)
    """Scores of the generated values as a set, in the space of the model's own features, or of those that `maskweave evaluate --features` names: `frechet` and
    `kernel` distance from the truths (FID, KID), `similarity`, the mean cosine with their own truths, and `identification`, the share of values that are nearer
    to their own truth than to all others."""
    requests: list[EvaluationRequest] = field(default_factory=list)
    """Requests to score; none: no evaluation."""
    sheets: list[EvaluationRequest] = field(default_factory=list)
    """Requests to show as contact sheets in the report."""


@dataclass(frozen=True)
class Recipe:
    """The complete definition of a run."""

    renamed: ClassVar[dict[str, str]] = {
        "catalogue": "catalog",  # codespell:ignore
        "drawing": "model.masking",
        "objective": "model.family",
        "loss": "model.loss",
        "m3ae.model": "model",
        "m3ae": "model",
    }

    catalog: str = "scenes"
    """Name of a shipped catalog, or path of a catalog file."""
    modalities: list[str] = field(default_factory=list)
    """Modalities to use; empty: all of the catalog."""
    data: DataSettings = field(default_factory=DataSettings)
    tokenizers: TokenizersSettings = field(default_factory=TokenizersSettings)
    model: ModelSettings = field(default_factory=lambda: build(ModelSettings, {}, ""))
    """The model family and its settings."""
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    limits: RecipeLimits = field(default_factory=RecipeLimits)
    """How large the files of the data may be."""
    start: str = ""
    """Finished run or bundle whose weights training starts from: its folder, URL, `hf://owner/name`, or the name of one that ships with the package (`maskweave import 4m` makes a bundle from a published checkpoint). Modalities that it lacks are randomly initialized."""
    seed: int = 0
    """Seed of initialization, shuffling and masking."""

    @property
    def start_folder(self) -> Path:
        """The folder of `start`; a bundle on the Hub or at a URL is fetched."""
        return bundle_folder(self.start)

    @property
    def family(self) -> Family[Any, Any]:
        """The model family."""
        return family_named(self.model.family)

    def load_catalog(self) -> Catalog:
        catalog = load_catalog(self.catalog)
        return catalog.subset(self.modalities) if self.modalities else catalog


@check_arguments
def load_recipe(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: of a YAML file, or the name of a shipped recipe, such as `demo`.
        overrides: values by dotted key, `{"train.steps": 200}`, that replace those of the file; groups of keys are merged.

    Raises:
        MaskweaveError: a key is unknown, or its value has the wrong type or is out of range; the message gives file and key.
    """
    recipe = build(Recipe, read_recipe_file(path, overrides), str(path))
    check_recipe(recipe, str(path))
    return recipe


def read_recipe_file(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the content of a recipe of any kind, with its include and the overrides applied, not checked yet."""
    content = _read(recipe_path(path))
    for dotted, value in (overrides or {}).items():
        *parents, last = dotted.split(".")
        group = content
        for parent in parents:
            group = group.setdefault(parent, {})
            if not isinstance(group, dict):
                raise MaskweaveError(f"{path}: override {shown(dotted)}: {shown(parent)} is not a group of keys")
        group[last] = _over(value, group.get(last))
    return _resolved(content, Path())


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a recipe file and merges it over the one that it includes, if any."""
    if path.resolve() in within:
        raise MaskweaveError(f"{path}: this recipe includes itself through 'include'; remove one of the includes")
    content = _resolved(read_yaml(path), path.parent)
    if "include" not in content:
        return content
    name = content.pop("include")
    if not isinstance(name, str) or not name.endswith((".yaml", ".yml")):
        raise MaskweaveError(
            f"{path}: 'include' is {shown(name)}; expected the path of a .yaml recipe, relative to this file"
        )
    return _over(content, _read(path.parent / name, (*within, path.resolve())))


def _over(content: Any, included: Any) -> Any:
    """Merges groups of keys; all other values are replaced."""
    if not isinstance(content, dict) or not isinstance(included, dict):
        return content
    return {**included, **{key: _over(value, included.get(key)) for key, value in content.items()}}


PATHS = ("start", "reuse", "source", "tokens", "sidecar", "held_out", "pictures", "held_out_pictures", "file")
"""Keys whose values are files or folders, in recipes of all kinds and in their groups `data`, `data.split` and `tokenizers`."""
DATA = ("source", "held_out")
"""Those whose value may also be a named source."""


def _resolved(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Makes paths absolute, because the run's copy of the recipe is in another folder and may be read from anywhere.

    The catalog's path is relative to `folder`: that of the recipe file, or the working directory for overrides. Other paths are relative to
    the working directory.
    """
    catalog, data = content.get("catalog"), content.get("data")
    if isinstance(catalog, str) and catalog.endswith((".yaml", ".yml")):
        content["catalog"] = str((folder / catalog).resolve())
    mix = data.get("mix") if isinstance(data, dict) else None
    sets = [data, *(mix.values() if isinstance(mix, dict) else ())]
    splits = [one.get("split") for one in sets if isinstance(one, dict)]
    for group in (content, content.get("tokenizers"), *sets, *splits):
        for key in PATHS:
            path = group.get(key) if isinstance(group, dict) else None
            if isinstance(path, str) and path:
                check_path(key, path)
                if key == "start" and shipped_bundle(path) and not Path(path).is_dir():
                    continue
                group[key] = absolute(path) if key in DATA or is_remote(path) else str(Path(path).resolve())
    return content


def check_recipe(recipe: Recipe, where: str) -> None:
    """Checks that names exist and that values of different keys fit together.

    Raises:
        MaskweaveError: the message gives `where`, the key and the problem.
    """
    try:
        catalog = recipe.load_catalog()
        recipe.family.check(recipe.model, catalog)
        if recipe.train.batch_size % (multiple := recipe.family.batch_multiple(recipe.model)):
            raise MaskweaveError(
                f"train.batch_size is {recipe.train.batch_size}, but the loss compares {multiple} samples with each other; make it a multiple of {multiple}"
            )
        if not recipe.family.generates and (recipe.evaluate.requests or recipe.evaluate.sheets):
            raise MaskweaveError(
                f"evaluate.requests and evaluate.sheets need a model that generates, but model.family is {recipe.model.family!r}; remove them"
            )
        recipe.data.check()
        _check_fields(recipe)
        if recipe.data.augment is not None:
            try:
                recipe.data.augment.check(catalog)
            except MaskweaveError as error:
                raise MaskweaveError(f"data.{error}") from error
            if recipe.data.augment.copies and plain(recipe.model).get("unpaired"):
                raise MaskweaveError(
                    "data.augment.copies and model.unpaired cannot be combined: a sample and its copies would be paired differently; remove one of them"
                )
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error
    if recipe.tokenizers.train.processes != 1:
        raise MaskweaveError(
            f"{where}: tokenizers.train.processes is {recipe.tokenizers.train.processes}, but each tokenizer is trained by one process; "
            "remove it, and set tokenizers.jobs to train several tokenizers in parallel"
        )
    for name, steps in recipe.tokenizers.steps.items():
        if steps < 1:
            raise MaskweaveError(f"{where}: tokenizers.steps.{name} must be 1 or more, found {steps}")
        if name not in catalog or catalog[name].kind != "grid":
            raise MaskweaveError(
                f"{where}: tokenizers.steps has {shown(name)}, which is not a modality of kind grid; the recipe's modalities are {', '.join(catalog)}"
            )
    unconditional = recipe.family.trained_without_inputs(recipe.model)
    for key in ("requests", "sheets"):
        for i, request in enumerate(getattr(recipe.evaluate, key)):
            check_evaluation(request, catalog, unconditional, f"{where}: evaluate.{key}.{i}")
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


def _check_fields(recipe: Recipe) -> None:
    """Checks that `data.fields` names modalities of the catalog; those that the recipe does not use are ignored."""
    for name, data in recipe.data.sets().items():
        known = list(load_catalog(recipe.catalog)) if data.fields else []
        if unknown := [field for field in data.fields if field not in (*known, NAME)]:
            key = f"data.mix.{name}.fields" if name else "data.fields"
            raise MaskweaveError(
                f"{key} has {shown(unknown[0])}, which is no modality of {recipe.catalog}; expected some of {', '.join(known[:20])}"
            )


def check_evaluation(request: EvaluationRequest, catalog: Catalog, unconditional: bool | None, where: str) -> None:
    """Refuses a request that generation would refuse.

    Args:
        unconditional: whether the model is also trained on samples without inputs; None: unknown.
    """
    for name in (*request.inputs, *request.via, *request.targets, *request.read):
        if name not in catalog:
            raise MaskweaveError(
                f"{where} has {shown(name)}, which is not one of the recipe's modalities ({', '.join(catalog)})"
            )
    for name in (*request.via, *request.targets, *request.read):
        if not catalog[name].is_target:
            raise MaskweaveError(
                f"{where}: {shown(name)} is of kind {catalog[name].kind}, which the model cannot predict; use it only as an input"
            )
    if not request.targets:
        raise MaskweaveError(f"{where}.targets is empty; give at least one modality to predict")
    for key, names in (("targets", request.targets), ("via", request.via), ("read", request.read)):
        if twice := [name for name in names if names.count(name) > 1]:
            raise MaskweaveError(f"{where}.{key} has {twice[0]!r} twice; give each modality once")
    if both := [name for name in request.targets if name in request.via]:
        raise MaskweaveError(f"{where}: {both[0]!r} is both in via and in targets; remove it from one of them")
    if not 1 <= request.ensemble <= limits.ENSEMBLE:
        raise MaskweaveError(f"{where}.ensemble must be from 1 to {limits.ENSEMBLE}, found {request.ensemble}")
    if not 1 <= request.best_of <= limits.ENSEMBLE or min(request.ensemble, request.best_of) > 1:
        raise MaskweaveError(
            f"{where}.best_of must be from 1 to {limits.ENSEMBLE}, and 1 beside an ensemble, found {request.best_of}"
        )
    if request.best_of > 1 and not all(catalog.judges(request.inputs, [name]) for name in request.targets):
        raise MaskweaveError(
            f"{where}.best_of is {request.best_of}, but the model cannot predict any of the inputs, which are to choose among results; remove best_of"
        )
    for name in request.decoding:
        if name not in (*request.via, *request.targets, *request.read):
            raise MaskweaveError(
                f"{where}.decoding has {shown(name)}, which this request does not generate; remove it, or give one of via, targets and read"
            )
    for name, how in request.decodings(catalog, f"{where}.decoding").items():
        if problem := decoding_problem(catalog[name], how):
            raise MaskweaveError(f"{where}.decoding.{name}: {problem}")
    if request.truth and (len(request.targets) != 1 or request.read):
        raise MaskweaveError(f"{where}.truth is for one target without read; remove it, or divide the request")
    for name in [request.truth] if request.truth else request.read or request.targets:
        known = catalog[name].value.metrics()
        if unknown := [metric for metric in request.metrics if metric not in known]:
            raise MaskweaveError(
                f"{where}.metrics: {name!r} has no metric {shown(unknown[0])}; it has {', '.join(known) or 'none'}"
            )
    if not request.inputs and unconditional is False:
        raise MaskweaveError(
            f"{where}.inputs is empty, but the model is always trained with inputs; give at least one, or set model.masking.unconditional above 0"
        )
