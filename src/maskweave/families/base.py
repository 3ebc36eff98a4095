"""The interface of a model family, and the registry that looks families up by name.

A family defines everything that depends on the kind of model: its settings in a recipe, the model, its training batches,
the objective, the encoder for features, the weights on disk, and its part of the report. A new family is one file: a
settings dataclass, an `nn.Module`, an objective and a subclass of `Family`. Another package registers its family in pyproject.toml:

    [project.entry-points."maskweave.families"]
    mine = "my_package.family:MyFamily"

Recipes can then use `model: {family: mine, ...}`.
"""

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from maskweave.data.mixing import MixedTokens
from maskweave.data.order import SizedBatches
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError, shown
from maskweave.families.sheets import Sheet
from maskweave.masking.paths import TrainedPaths
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder import Encoded, Encoder
from maskweave.nn.weights import save_weights, take_tensors
from maskweave.tokenizers.base import Tokenizer

BUILT_IN = {
    "fourm": "maskweave.families.fourm:FourMFamily",
    "m3ae": "maskweave.families.m3ae:M3AEFamily",
    "contrastive": "maskweave.families.contrastive:ContrastiveFamily",
}
GROUP = "maskweave.families"
"""Entry point group in which other packages register families."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ModelSettings:
    """The `model` section of a recipe: the family and its settings."""

    family: str = "fourm"
    """Model family: `fourm` predicts any modality from any others, `m3ae` reconstructs masked patches and tokens, `contrastive` tells which modalities belong together; other packages can add more."""

    @classmethod
    def variant(cls, content: Mapping[str, Any]) -> type["ModelSettings"]:
        """Returns the settings class of the family that a recipe selects.

        Raises:
            MaskweaveError: the family does not exist.
        """
        return family_named(content.get("family", ModelSettings.family)).Settings if cls is ModelSettings else cls

    @classmethod
    def variants(cls) -> list[type["ModelSettings"]]:
        """Returns the settings classes of all families."""
        return [family.Settings for family in families()] if cls is ModelSettings else []


S = TypeVar("S", bound=ModelSettings)
M = TypeVar("M", bound=nn.Module)


class Family(ABC, Generic[S, M]):
    """Everything that depends on the kind of model.

    A model has the members of `maskweave.models.encoder.Encodes`. It is built from a frozen dataclass that describes its architecture
    and keeps it, with all sizes filled in, as `config`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[ModelSettings]]
    """Frozen dataclass of a recipe's `model` section: a subclass of `ModelSettings` that also has all fields of `Config`."""
    Config: ClassVar[type]
    """Frozen dataclass of the architecture. The weights depend on all of its fields."""
    Model: ClassVar[type[nn.Module]]
    generates: ClassVar[bool] = False
    """Whether a bundle can generate with this model. The model then has the members of FourM that `maskweave.generate.engine` calls."""
    resumable: ClassVar[tuple[str, ...]] = ()
    """Patterns of its settings that may change when a run resumes; all others decide which tokens are seen, or the architecture."""
    learns_new_inputs: ClassVar[bool] = False
    """Whether a transfer may add inputs that the model was not trained with."""
    summary: ClassVar[str] = ""
    """One sentence about the model for the report."""
    shown_samples: ClassVar[int] = 0
    """Number of held-out samples passed to `sheets`."""

    # Training.

    def check(self, settings: S, catalog: Catalog) -> None:
        """Checks that settings and modalities fit together, before anything is built.

        Raises:
            MaskweaveError: they do not fit; the message says what was found and what was expected.
        """

    def tokens_per_sample(self, settings: S, catalog: Catalog) -> int:
        """Returns the largest number of tokens that one sample has in a batch."""
        return sum(m.tokens for m in catalog.values())

    def batch_multiple(self, settings: S) -> int:
        """Returns the number of samples that the loss compares with each other: a batch must have a multiple of it."""
        return 1

    def target_tokens(self, settings: S) -> int:
        """Returns the most tokens of a sample that it learns to predict at once; 0: it does not generate tokens."""
        return 0

    @abstractmethod
    def build_model(self, catalog: Catalog, config: Any) -> M:
        """Builds a model with random weights.

        Args:
            config: of type `Config`, or the settings.
        """

    def initialize(self, model: M, settings: S, tokenizers: Callable[[], Mapping[str, Tokenizer]]) -> None:
        """Changes the random weights of a new model if the settings ask for it.

        Args:
            tokenizers: loads the tokenizers of the run when called.
        """

    def how_to_import(self, folder: Path) -> str:
        """Says how a published checkpoint becomes a bundle of this family; by default there are none."""
        return f"it cannot start a model of family {self.name!r}; give a bundle or a finished run"

    def warm_start(self, model: M, catalog: Catalog, donor: M, theirs: Catalog, folder: Path) -> list[str]:
        """Copies the weights of a trained model of this family.

        Args:
            theirs: the donor's modalities.
            folder: folder of the donor, for messages.

        Returns:
            Sentences about the modalities that only one of the two models has.

        Raises:
            MaskweaveError: the models do not fit; the message lists the differences.
        """
        raise MaskweaveError(f"start: a model of family {self.name!r} cannot start from another model; remove 'start'")

    @abstractmethod
    def build_objective(self, model: M, settings: S, catalog: Catalog) -> nn.Module:
        """Builds the objective (model + batch → loss and metrics) for `maskweave.training.loop.fit`."""

    @abstractmethod
    def build_batches(
        self, settings: S, data: TokenData | MixedTokens, batch_size: int, seed: int, held_out: bool
    ) -> SizedBatches:
        """Builds the batches for the objective.

        Args:
            held_out: for validation: samples in order, with the same masks in every pass, and with all their modalities.
        """

    # Use.

    def encoder(self, model: M, catalog: Catalog, names: Sequence[str]) -> Encoder:
        """Returns the model's encoder for some of its modalities, for features and transfer."""
        return Encoder(model, catalog, names)  # type: ignore[arg-type]

    def vectors(self, model: M, encoded: Encoded) -> Tensor:
        """Returns (B, D), one vector per sample, to find samples that are similar; by default the mean over its tokens."""
        return encoded.pooled

    def trained_without_inputs(self, settings: S) -> bool | None:
        """Whether some training samples had no inputs, so that the model can generate without inputs. None: unknown."""
        return None

    def trained_paths(self, settings: S, catalog: Catalog) -> TrainedPaths | None:
        """Returns how often a training sees inputs together with a target. None: unknown."""
        return None

    # Weights.

    def empty_model(self, catalog: Catalog, config: Any) -> M:
        """Builds a model whose weights will be loaded next. Ideally it allocates no memory for weights."""
        return self.build_model(catalog, config)

    def write_weights(self, model: M, folder: Path) -> None:
        """Writes the weights, and any other files of the model, into a new folder."""
        save_weights(model.state_dict(), folder / WEIGHTS)

    def read_weights(self, catalog: Catalog, config: Any, folder: Path) -> M:
        """Loads the model that `write_weights` wrote.

        Raises:
            MaskweaveError: a file is damaged or belongs to another architecture.
        """
        model = self.empty_model(catalog, config)
        take_tensors(model, folder / WEIGHTS)
        return model

    # Report.

    def facts(self, settings: S) -> dict[str, str]:
        """Returns facts about the training, by name, for the report."""
        return {}

    def sheets(
        self,
        model: M,
        settings: S,
        catalog: Catalog,
        tokenizers: Mapping[str, Tokenizer],
        samples: Sequence[Mapping[str, Any]],
    ) -> list[Sheet]:
        """Returns contact sheets of held-out samples for the report, in addition to those of the recipe's requests."""
        return []


def family_named(name: Any) -> Family[Any, Any]:
    """Returns the family with this name, built in or from another package.

    Raises:
        MaskweaveError: the family does not exist, or its package cannot be imported.
    """
    if isinstance(name, str) and name in BUILT_IN:
        return _built_in(name)
    found = _entry_points()
    if not isinstance(name, str) or name not in found:
        known = ", ".join([*BUILT_IN, *found])
        raise MaskweaveError(
            f"unknown model family {shown(name)}; known: {known}. Other packages add families with an entry point in {GROUP!r}"
        )
    return _from_entry_point(found[name])


def families() -> Iterator[Family[Any, Any]]:
    """Yields all families, built-in ones first. Skips families whose package cannot be imported; `family_named` reports why."""
    yield from map(_built_in, BUILT_IN)
    for point in _entry_points().values():
        with contextlib.suppress(MaskweaveError):
            yield _from_entry_point(point)


def family_of(model: nn.Module) -> Family[Any, Any]:
    """Returns the family of a model.

    Raises:
        MaskweaveError: the model belongs to no family.
    """
    for family in families():
        if isinstance(model, family.Model):
            return family
    known = ", ".join(f"{family.name} ({family.Model.__name__})" for family in families())
    raise MaskweaveError(f"{type(model).__name__} is not a model of a known family; expected one of {known}")


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


@cache
def _built_in(name: str) -> Family[Any, Any]:
    module, _, member = BUILT_IN[name].partition(":")
    family: Family[Any, Any] = getattr(importlib.import_module(module), member)()
    return family


@cache
def _from_entry_point(point: EntryPoint) -> Family[Any, Any]:
    where = f"model family {point.name!r} (entry point {point.value!r})"
    try:
        kind = point.load()
    except Exception as error:
        raise MaskweaveError(f"{where}: cannot be imported: {error}; update or remove its package") from error
    if not (isinstance(kind, type) and issubclass(kind, Family)) or kind.name != point.name:
        raise MaskweaveError(
            f"{where}: expected a subclass of maskweave.families.base.Family with name = {point.name!r}, found {kind!r}"
        )
    family: Family[Any, Any] = kind()
    return family
