"""The contract of a model family, and the registry that finds one by its name.

A family ties together all that depends on which kind of model is trained: its settings in a recipe, the model, the batches it is
trained on, the objective, the encoder for features, its weights on disk, and what a report shows of it. A new family is one file: a
settings dataclass, an `nn.Module`, an objective and a subclass of `Family`. The package that brings it names it in its pyproject.toml:

    [project.entry-points."maskweave.families"]
    mine = "my_package.family:MyFamily"

after which recipes say `model: {family: mine, ...}`.
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

from torch import nn

from maskweave.data.mixing import MixedTokens
from maskweave.data.order import SizedBatches
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.families.sheets import Sheet
from maskweave.modality.catalogs import Catalog
from maskweave.models.encoder import Encoder
from maskweave.nn.weights import save_tensors, take_tensors
from maskweave.tokenizers.base import Tokenizer

BUILT_IN = {"fourm": "maskweave.families.fourm:FourMFamily", "m3ae": "maskweave.families.m3ae:M3AEFamily"}
GROUP = "maskweave.families"
"""Entry points by which other packages bring families."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ModelSettings:
    """What stands under `model` in a recipe: the family, and that family's own settings."""

    family: str = "fourm"
    """Model family: `fourm` predicts any modality from any others, `m3ae` restores masked patches and tokens; other packages bring more."""

    @classmethod
    def variant(cls, content: Mapping[str, Any]) -> type["ModelSettings"]:
        """The settings of the family that a recipe names.

        Raises:
            MaskweaveError: there is no such family.
        """
        return family_named(content.get("family", ModelSettings.family)).Settings if cls is ModelSettings else cls

    @classmethod
    def variants(cls) -> list[type["ModelSettings"]]:
        """The settings of all families."""
        return [family.Settings for family in families()] if cls is ModelSettings else []


S = TypeVar("S", bound=ModelSettings)
M = TypeVar("M", bound=nn.Module)


class Family(ABC, Generic[S, M]):
    """All that depends on which kind of model is trained.

    A model has the members of `maskweave.models.encoder.Encodes`, is built from a frozen dataclass of its architecture, and keeps that,
    all numbers filled in, as `config`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[ModelSettings]]
    """Frozen dataclass of what a recipe sets under `model`: a subclass of `ModelSettings`, and of `Config` or with all its fields."""
    Config: ClassVar[type]
    """Frozen dataclass of the architecture, which the weights rest on."""
    Model: ClassVar[type[nn.Module]]
    generates: ClassVar[bool] = False
    """Whether a bundle can generate with it: the model then has the members of FourM that `maskweave.generate.engine` calls."""
    resumable: ClassVar[tuple[str, ...]] = ()
    """Patterns of its settings that may change when a run resumes; all others decide which tokens are seen, or the architecture."""
    learns_new_inputs: ClassVar[bool] = False
    """Whether a transfer may give it inputs that it was not trained with."""
    summary: ClassVar[str] = ""
    """A sentence about the model for the report."""
    shown_samples: ClassVar[int] = 0
    """Held-out samples that `sheets` is given."""

    # Training.

    def check(self, settings: S, catalog: Catalog) -> None:
        """See that settings and modalities fit together, before anything is made.

        Raises:
            MaskweaveError: they do not; says what was found and expected.
        """

    def tokens_per_sample(self, settings: S, catalog: Catalog) -> int:
        """Most tokens of a sample in a batch."""
        return sum(m.tokens for m in catalog.values())

    @abstractmethod
    def build_model(self, catalog: Catalog, config: Any) -> M:
        """A model with random weights.

        Args:
            config: of type `Config`, or the settings.
        """

    def initialize(self, model: M, settings: S, tokenizers: Callable[[], Mapping[str, Tokenizer]]) -> None:
        """Change the random weights of a new model, if the settings say so.

        Args:
            tokenizers: opens the run's tokenizers.
        """

    def warm_start(self, model: M, catalog: Catalog, donor: M, theirs: Catalog, folder: Path) -> list[str]:
        """Take over the weights of a trained model of this family.

        Args:
            theirs: the donor's modalities.
            folder: where the donor lies, for messages.

        Returns:
            Sentences about the modalities that only one of the two has.

        Raises:
            MaskweaveError: the two do not fit; names what differs.
        """
        raise MaskweaveError(f"start: a model of family {self.name!r} cannot go on from another; remove 'start'")

    @abstractmethod
    def build_objective(self, model: M, settings: S) -> nn.Module:
        """Model + batch → loss and metrics, as `maskweave.training.loop.fit` takes it."""

    @abstractmethod
    def build_batches(
        self, settings: S, data: TokenData | MixedTokens, batch_size: int, seed: int, held_out: bool
    ) -> SizedBatches:
        """What the objective is trained on.

        Args:
            held_out: for validation: samples in order, masked alike in every pass, and with all that they have.
        """

    # Use.

    def encoder(self, model: M, catalog: Catalog, names: Sequence[str]) -> Encoder:
        """The model's encoder over some of its modalities, for features and transfer."""
        return Encoder(model, catalog, names)  # type: ignore[arg-type]

    def trained_without_inputs(self, settings: S) -> bool | None:
        """Whether some samples had no input in training, so that the model may generate from nothing. None: unknown."""
        return None

    # Weights.

    def empty_model(self, catalog: Catalog, config: Any) -> M:
        """A model whose weights are about to be read; better one that takes no memory before."""
        return self.build_model(catalog, config)

    def write_weights(self, model: M, folder: Path) -> None:
        """Write the weights, and what else the model brings, into a new folder."""
        save_tensors(model.state_dict(), folder / WEIGHTS)

    def read_weights(self, catalog: Catalog, config: Any, folder: Path) -> M:
        """The model that `write_weights` wrote. The weights are mapped, not copied.

        Raises:
            MaskweaveError: a file is damaged, or of another architecture.
        """
        model = self.empty_model(catalog, config)
        take_tensors(model, folder / WEIGHTS)
        return model

    # Report.

    def facts(self, settings: S) -> dict[str, str]:
        """Named facts about the training for the report."""
        return {}

    def sheets(
        self,
        model: M,
        settings: S,
        catalog: Catalog,
        tokenizers: Mapping[str, Tokenizer],
        samples: Sequence[Mapping[str, Any]],
    ) -> list[Sheet]:
        """Contact sheets of some held-out samples for the report, besides those of the recipe's requests."""
        return []


def family_named(name: Any) -> Family[Any, Any]:
    """The family of that name, the package's own or one of another package.

    Raises:
        MaskweaveError: there is none, or the package that brings it cannot be imported.
    """
    if isinstance(name, str) and name in BUILT_IN:
        return _built_in(name)
    found = _entry_points()
    if not isinstance(name, str) or name not in found:
        known = ", ".join([*BUILT_IN, *found])
        raise MaskweaveError(
            f"unknown model family {name!r}; known: {known}. Others come with packages that have an entry point {GROUP!r}"
        )
    return _brought(found[name])


def families() -> Iterator[Family[Any, Any]]:
    """All families, the package's own first. Those of packages that cannot be imported are left out: using one says why."""
    yield from map(_built_in, BUILT_IN)
    for point in _entry_points().values():
        with contextlib.suppress(MaskweaveError):
            yield _brought(point)


def family_of(model: nn.Module) -> Family[Any, Any]:
    """The family of a model.

    Raises:
        MaskweaveError: it is of none.
    """
    for family in families():
        if isinstance(model, family.Model):
            return family
    known = ", ".join(f"{family.name} ({family.Model.__name__})" for family in families())
    raise MaskweaveError(f"{type(model).__name__} is no model of a known family: {known}")


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


@cache
def _built_in(name: str) -> Family[Any, Any]:
    module, _, member = BUILT_IN[name].partition(":")
    family: Family[Any, Any] = getattr(importlib.import_module(module), member)()
    return family


@cache
def _brought(point: EntryPoint) -> Family[Any, Any]:
    where = f"model family {point.name!r} (entry point {point.value!r})"
    try:
        kind = point.load()
    except Exception as error:
        raise MaskweaveError(
            f"{where}: cannot be imported: {error}; update or remove the package that brings it"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Family)) or kind.name != point.name:
        raise MaskweaveError(
            f"{where}: expected a subclass of maskweave.families.base.Family whose name is {point.name!r}, found {kind!r}"
        )
    family: Family[Any, Any] = kind()
    return family
