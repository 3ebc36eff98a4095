"""A modality: one declarative entry, validated. Everything else in the library follows from its kind and value type.

A catalog is a YAML file with entries and the vocabularies that they share. Names follow 4M (https://arxiv.org/abs/2312.06647).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.modality.decoding import DEFAULT, Decoding
from maskweave.modality.derivation import Derivation
from maskweave.modality.external import ExternalSpec
from maskweave.modality.tokenizer import TokenizerSpec
from maskweave.values.base import TextLabels, ValueType
from maskweave.values.metrics import Metric

Kind = Literal["grid", "sequence", "patches", "vectors"]


@dataclass(frozen=True)
class Validity:
    """Which points of a modality's values are known."""

    aliases: ClassVar[dict[str, str]] = {"from": "source"}
    """Key in YAML to the field that holds it."""

    source: str
    """Modality of the same view that says what is known: masks of type `binary`, where they are true, or maps of one channel, such as an inverse
    variance, where they are above 0."""


@dataclass(frozen=True)
class Modality:
    """One way of seeing a sample. Behavior follows from this entry's fields, never from its name."""

    name: str
    id: int
    """Stable number of the modality, from 1 (0 is padding); never reuse one."""
    kind: Kind
    value: ValueType
    source: str = ""
    """Modality whose values are tokenized, if not this one; both must have the same value type and number of channels."""
    folder: str = ""
    """Folder of its files below ROOT in `maskweave data import ROOT`, if it is not named like the entry; several entries may read one folder."""
    grid: tuple[int, ...] = ()
    """Tokens along each axis of a grid or of patches; value types that are tokenized by rules, such as scalars, need none."""
    max_tokens: int = 0
    """Longest sequence, end token included, or most vectors."""
    vocabulary: str = ""
    """Sequences: the catalog's vocabulary that holds their ids. Grids have their own, under their own name."""
    chunk: int = 1
    """Sequences: tokens masked together, 2 for key-value pairs."""
    positions: Literal["sine", "learned"] = "sine"
    tokenizer: TokenizerSpec | ExternalSpec | None = None
    """Grids only, unless rules tokenize their values; the default depends on the value type. With the key `external`, a tokenizer that was trained elsewhere."""
    decoding: Decoding = DEFAULT
    """How it is generated; labels by default with temperature 0, as their most probable class."""
    metrics: tuple[str, ...] = ()
    """Scores of its predictions, by the names of its value type; none: the type's defaults."""
    derive: Derivation | None = None
    """How `maskweave label` computes its values from those of another modality."""
    view: str = ""
    """Modalities of one view show the same frame: they are cropped, flipped and resized together. Entries of another camera, for instance,
    need their own view; all frames of a video or volume are treated alike, and values of one axis stay as they are."""
    valid: Validity | None = None
    """`{from: mask}`: points are unknown where another modality of the sample, the mask, is false or 0. A sample without it is known everywhere."""
    weight: str = ""
    """Modality of the same view that holds the weight of each number, such as its inverse variance: the tokenizer's loss, the scores and the best
    constants weigh the numbers by it. Points of weight 0 are unknown; all numbers of a sample without it weigh as much as the average."""
    input_only: bool = False
    """The model reads this grid or sequence but never predicts it; patches and vectors are never predicted."""

    @property
    def tokens(self) -> int:
        """Most tokens of one sample."""
        return math.prod(self.grid) if self.grid else self.max_tokens

    @property
    def patch(self) -> tuple[int, ...]:
        """Points of the value along each axis that one token of a grid, or one patch, covers."""
        return tuple(s // g for s, g in zip(self.value.size, self.grid, strict=True)) if self.value.size else ()

    @property
    def codes(self) -> int:
        """Ids of a grid's tokens: those of its rules or its codebook, and one for tokens whose points are all unknown if these are predicted.

        Raises:
            MaskweaveError: it has no vocabulary of its own.
        """
        if self.kind == "grid" and self.value.tokenized_by == "rules":
            return self.value.rule_tokens[1]
        if self.tokenizer is None:
            raise MaskweaveError(f"{self.name} is input only and has no vocabulary")
        return self.tokenizer.size + self.value.predicts_unknown

    @property
    def network(self) -> TokenizerSpec | None:
        """Its tokenizer network, if it has one that is trained here."""
        return self.tokenizer if isinstance(self.tokenizer, TokenizerSpec) else None

    @property
    def external(self) -> ExternalSpec | None:
        """Its tokenizer, if that was trained elsewhere."""
        return self.tokenizer if isinstance(self.tokenizer, ExternalSpec) else None

    @property
    def row_width(self) -> int:
        """Width of one row of raw values: a flattened patch, or a vector."""
        return math.prod(self.patch) * self.value.channels if self.kind == "patches" else self.value.channels

    @property
    def has_tokens(self) -> bool:
        """Whether it has token ids rather than raw rows."""
        return self.kind in ("grid", "sequence")

    @property
    def is_target(self) -> bool:
        """Whether the model can predict it."""
        return self.has_tokens and not self.input_only

    def scores(self, parse: TextLabels | None = None) -> list[Metric]:
        """The metrics of its predictions; by default those of the value type that apply to its settings.

        Args:
            parse: labels of a text; its lower-case words by default.
        """
        known = self.value.metrics(parse)
        return [known[name] for name in self.metrics or self.value.default_metrics if name in known]

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Modalities of a sample that say which of its points are known, and what they weigh."""
        return tuple(filter(None, (self.valid.source if self.valid else "", self.weight)))

    @property
    def reads(self) -> str:
        """Modality whose folder holds this one's values."""
        return self.source or self.name


def training_facts(modality: Modality, as_plain: Callable[[Any], Any] = plain) -> dict[str, Any]:
    """Returns the settings of an entry, as plain values, that its tokens and the training depend on.

    The others, such as `decoding`, `metrics` and the value type's `report_facts`, may change after training.
    """
    facts: dict[str, Any] = as_plain(modality)
    for path in ("decoding", "metrics", "derive", "folder", *(f"value.{path}" for path in modality.value.report_facts)):
        _remove(facts, path.split("."))
    return facts


def _remove(content: dict[str, Any], path: list[str]) -> None:
    first, *rest = path
    for name in [*content] if first == "*" else [first] if first in content else []:
        if not rest:
            del content[name]
        elif isinstance(content[name], dict):
            _remove(content[name], rest)
