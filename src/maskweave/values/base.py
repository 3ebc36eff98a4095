"""The contract of a value type: a frozen dataclass of an entry's settings, with all behavior that depends on what a value is.

The rest of the library calls a value type's members and never checks its name. A type overrides what it supports; the defaults mean
"not supported" (`losses = {}`: no tokenizer network; `mergeable = False`: no ensembles).
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values import files
from maskweave.values.drawn import Drawn
from maskweave.values.drawn import Size as Size
from maskweave.values.geometry import Geometry
from maskweave.values.metrics import Labels, Metric
from maskweave.values.remarks import remark
from maskweave.values.rules import Rules
from maskweave.values.scales import Scale
from maskweave.values.unknown import known_points, over_known
from maskweave.values.variation import Variation

if TYPE_CHECKING:
    from maskweave.values.codec import Codec, TextWriter

Loss = Callable[..., Tensor]
"""Maps a network's output and its target to a scalar; for values that can be weighted, also from weights in the target's shape."""
TextLabels = Callable[[str], "Sequence[str]"]
"""Maps a text to the labels in it, with repeats."""


@dataclass(frozen=True)
class ValueType(Drawn):
    """Settings of one entry's values, and the operations on such values. Subclasses are frozen dataclasses with fields of their own."""

    tag: ClassVar[str] = "type"
    """Key of an entry that chooses the class; see `maskweave.config`."""
    type: ClassVar[str] = ""
    """Name in an entry: `value: {type: NAME}`."""
    python: ClassVar[str]
    """The Python form of a value, in one line."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of modality that can hold it: `grid`, `patches`, `vectors` or `sequence`."""

    tokenized_by: ClassVar[Literal["network", "rules"]] = "network"
    """What turns grids of this type into tokens: a trained network, or rules such as bins (`fit_rules`, `rules`)."""
    losses: ClassVar[Mapping[str, Loss]] = {}
    """Losses of a tokenizer network by name, the default first; empty: no tokenizer network."""
    can_add_noise: ClassVar[bool] = True
    """Whether a diffusion decoder can predict it."""
    blends_patches: ClassVar[bool] = False
    """Whether decoded patches are blended with their neighbors by default: values that are smooth along their axes."""
    is_photograph: ClassVar[bool] = False
    """Whether its file is already a picture and needs no figure."""
    is_text: ClassVar[bool] = False
    """Whether it is plain text: text tokenizers are trained on it, and commands take it as typed."""
    may_be_empty: ClassVar[bool] = False
    """Whether an empty text file says nothing; otherwise it is damaged."""
    is_mask: ClassVar[bool] = False
    """Whether it can say which points of other values are known: where it is true, or above 0."""
    can_be_weighted: ClassVar[bool] = False
    """Whether its losses and metrics can weigh the numbers of a value, and whether its values can be such weights."""
    is_embedding: ClassVar[bool] = False
    """Whether it is one vector that can stand for the sample in retrieval."""
    mergeable: ClassVar[bool] = False
    """Whether several predictions can be merged into one."""
    head: ClassVar[Literal["", "points", "boxes", "label", "sample", "numbers"]] = ""
    """Head that predicts it in fine-tuning; empty: not supported. `points`: a value at each point of a plane; `numbers`: all numbers of a sample
    from its pooled features; `sample`: yes or no for each class."""
    default_decoding: ClassVar[Mapping[str, Any]] = {}
    """Settings of `decoding` for entries that have none, where they differ from the defaults."""
    stored_facts: ClassVar[tuple[str, ...]] = ("type", "channels", "classes")
    """Settings that must not change after values were imported; others, such as the size, may."""
    report_facts: ClassVar[tuple[str, ...]] = ("unit",)
    """Settings that only scores, figures and messages depend on, so that they may change after training; dotted for nested ones, `*` for any name."""
    sees_color: ClassVar[bool] = False
    """Whether its figures are drawn over a picture of the same sample."""

    @classmethod
    def variant(cls, content: Mapping[str, Any]) -> Any:
        """Returns the class of an entry's `type`; see `maskweave.config`.

        Raises:
            MaskweaveError: the type is missing or unknown.
        """
        from maskweave.values import value_type

        if cls.type:
            return cls
        if "type" not in content:
            raise MaskweaveError("the key 'type' is missing; expected the name of a value type")
        return value_type(content["type"])

    @classmethod
    def variants(cls) -> list[Any]:
        """All value types."""
        from maskweave.values import value_types

        return [] if cls.type else list(value_types().values())

    # Settings that some types have as fields

    @property
    def channels(self) -> int:
        return 1

    @property
    def row_dtype(self) -> Any:
        """NumPy type of stored raw rows."""
        return np.dtype(np.float32)

    @property
    def unit(self) -> str:
        return ""

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    # The entry

    @abstractmethod
    def check_settings(self, kind: str) -> None:
        """Refuse settings that contradict each other or the modality's kind.

        Raises:
            MaskweaveError: gives the setting and what was expected; the caller adds the entry's name.
        """

    @property
    def has_unknown(self) -> bool:
        """Whether points of a value may be unknown: NaN, or −1 in ids. Tokenizers then see which points are known."""
        return False

    @property
    def predicts_unknown(self) -> bool:
        """Whether the model also predicts which points are unknown: tokens without any known point have a code of their own and are inputs and
        targets, and the tokenizer's decoder has a validity logit for each channel, above 0 where it is known."""
        return False

    @property
    def input_channels(self) -> int:
        """Channels of a tokenizer's input: those of the value, and of its validity."""
        return self.channels * (2 if self.has_unknown else 1)

    def hide(self, value: Any, known: np.ndarray) -> Any:
        """Returns a checked value of the entry's size whose points are unknown where `known`, bool (*size), is False."""
        raise MaskweaveError(f"values of type {self.type!r} cannot have unknown points")

    def known(self, value: Any) -> np.ndarray:
        """Which elements of a checked value are known, bool, in the value's shape."""
        return known_points(np.asarray(value))

    @property
    def is_picture(self) -> bool:
        """Whether it is a color picture: figures are drawn over it and labels are computed from it."""
        return False

    @property
    def num_classes(self) -> int:
        """Classes per point; 0: points are numbers."""
        return 0

    @property
    def output_channels(self) -> int:
        """Channels of a tokenizer's output."""
        return self.num_classes or self.channels

    def describe(self) -> str:
        """The type with its size and counts, for tables."""
        return " ".join([self.type, "×".join(map(str, self.size))]).strip()

    def describe_range(self) -> str:
        """The range of its numbers, for tables."""
        return "–"

    # Values

    @abstractmethod
    def check(self, value: Any, where: str) -> Any:
        """Check a value, of any size. Every value passes this check and no other.

        Args:
            where: name of the value in errors, its file for instance.

        Returns:
            the value in its Python form, at its own size.

        Raises:
            BadSample: wrong type, shape or range, NaN or infinite numbers, unknown class; gives what was found and what was expected.
        """

    def from_python(self, value: Any, where: str) -> Any:
        """Convert what a user may pass as a value, a PIL image or a tensor for instance, to what `check` takes."""
        return value

    def typed(self, text: str) -> Any:
        """Returns the value that a text means where a value or a path may be given, on the command line for instance; None: it is a path."""
        return None

    @property
    def endings(self) -> tuple[str, ...]:
        """File endings that can hold a value, lower case, without a dot; `write` uses the first."""
        return ("json",)

    def read(self, content: bytes, ending: str, where: str) -> Any:
        """Returns the value in a file's bytes, checked, at its own size; None if the file says that the value is missing: it contains `null`,
        or nothing in it is known.

        Raises:
            BadSample: gives the file, what was found and what was expected.
        """
        files.check_ending(ending, self, where)
        if not content and self.may_be_empty and ending in ("txt", "csv"):
            content = b"\n"
        files.check_size(content, where)
        parsed = self.parse(content, ending, where)
        value = None if parsed is None else self.check(parsed, where)
        if value is None or self.is_missing(value):
            remark("values that say nothing count as missing")
            return None
        return value

    def is_missing(self, value: Any) -> bool:
        """Whether a checked value says nothing, so that its sample lacks the modality."""
        return False

    def reads_photograph(self, ending: str) -> bool:
        """Whether files with an ending are read as they are shown: upright, and in color."""
        return False

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """Parse a file's bytes to what `check` takes."""
        return files.read_json_value(content, where)

    @property
    def is_in_name(self) -> bool:
        """Whether the names of samples tell the values, so that an import needs no files of them."""
        return False

    def in_name(self, name: str) -> Any:
        """Returns the checked value that a sample's name tells.

        Args:
            name: path of its files below the modalities' folders, without ending.

        Raises:
            BadSample: the name does not tell it.
        """
        raise BadSample(f"values of type {self.type!r} cannot be read from the name {name!r}")

    def write(self, value: Any) -> tuple[bytes, str]:
        """Returns a checked value as a file's bytes and ending; `read` returns the same value."""
        text = json.dumps(value, ensure_ascii=False, default=lambda number: number.item())
        return text.encode(), "json"

    def to_file(self, value: Any, where: str) -> tuple[bytes, str]:
        """Check a value and write it; same errors as `check`."""
        return self.write(self.check(value, where))

    def result_files(self, value: Any, where: str) -> tuple[dict[str, bytes], list[str]]:
        """Returns the files of a generated value by ending, and why others cannot be written; same errors as `check`."""
        content, ending = self.to_file(value, where)
        return {ending: content}, []

    # Crops, flips and sizes

    def extent(self, value: Any) -> tuple[int, ...] | None:
        """Points of a value along each axis; None for values without axes (text, an empty list of instances)."""
        return None

    @property
    def follows_view(self) -> bool:
        """Whether its values are cropped with the pictures of its view."""
        return True

    def fit_sizes(self, value: Any, where: str) -> Any:
        """Cuts or extends a value as its entry says, before `transform` resizes it.

        Raises:
            BadSample: its size differs from the entry's, and the entry says neither how to resize nor how to crop it.
        """
        return value

    def transform(self, value: Any, geometry: Geometry) -> Any:
        """Returns the value after crop and flip, at the entry's size; None if it cannot be flipped."""
        return value

    varied_by: ClassVar[tuple[str, ...]] = ()
    """Parts of an augmentation that change its values, besides crops and flips: `color`, `noise`, `shift`; see `vary`."""

    def vary(self, value: Any, variation: Variation) -> Any:
        """Returns a checked value of the entry's size after those parts of a variation that are in `varied_by`."""
        return value

    # Networks

    def check_batch(self, values: Sequence[Any], name: str, first: int = 0) -> list[Any]:
        """Check a batch of values for a tokenizer; all must have the entry's size.

        Args:
            name: name of the modality.
            first: number of the first value, for messages.

        Raises:
            BadSample: gives the number of the value in the batch.
        """
        return [self.check_item(v, f"{name}: value {i} of the batch") for i, v in enumerate(values, first)]

    def check_item(self, value: Any, where: str) -> Any:
        """Check a value of a batch, which must have the entry's size; returns what `to_network` takes. A value that was returned before stays as it is."""
        return self.check(self.from_python(value, where), where)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        """Converts a batch of checked values of the entry's size to a network's input: float32 (B, C, *size), NaN at unknown points; or class
        indices, int64 (B, *size), −1 at unknown points."""
        raise MaskweaveError(f"values of type {self.type!r} are not arrays and cannot be the input of a network")

    def from_network(self, output: Tensor) -> np.ndarray:
        """Converts a network's output (B, `output_channels`, *size) to a batch of values."""
        raise MaskweaveError(f"values of type {self.type!r} are not arrays and cannot be the output of a network")

    def fit_to(self, values: np.ndarray) -> Self:
        """Returns the value type with what it learns from the training values of a tokenizer, (S, *size[, C]); itself if it learns nothing."""
        return self

    def fitted_like(self, other: "ValueType") -> Self:
        """Returns the value type with what `other`, the same type in a saved tokenizer, has learned."""
        return self

    def with_unknown(self, values: np.ndarray, logits: Tensor) -> Any:
        """Returns a batch of decoded values without their unknown points, as an array or a list.

        Args:
            logits: (B, C, *size) above 0 where a point is known.
        """
        raise MaskweaveError(f"values of type {self.type!r} have no unknown points that can be predicted")

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Converts raw rows (…, width), flattened patches or vectors, to float32 for the network."""
        raise MaskweaveError(f"values of type {self.type!r} cannot be raw rows; use kind 'grid'")

    def task_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss for fine-tuning on this type, and further metrics."""
        return self.known_loss(next(iter(self.losses.values())))(output, target), {}

    def known_loss(self, loss: Loss) -> Loss:
        """Returns a loss that skips the unknown points of the target, which are NaN or −1 as in `to_network`."""
        return over_known(loss) if self.has_unknown else loss

    def answers(self, output: Tensor) -> list[Any]:
        """Converts the output of a fine-tuned head to predictions: values, or distributions."""
        return list(self.from_network(output))

    def gaussian_answers(self, mean_BK: np.ndarray, std_BK: np.ndarray) -> list[Any] | None:
        """Returns the distributions of values whose numbers have these means and standard deviations on the network's scale; None: not supported."""
        return None

    # Rules, for types that are tokenized by them

    @property
    def rule_tokens(self) -> tuple[int, int]:
        """Tokens of a value, and size of their vocabulary."""
        raise MaskweaveError(f"values of type {self.type!r} are tokenized by a network, not by rules")

    def fit_rules(self, values: Sequence[Any]) -> dict[str, Any]:
        """Returns what the rules learn from checked training values (at least one), as content for a JSON file."""
        raise MaskweaveError(f"values of type {self.type!r} are tokenized by a network, not by rules")

    def rules(self, facts: Mapping[str, Any]) -> Rules:
        """Returns the rules with the facts that `fit_rules` returned.

        Raises:
            MaskweaveError: the facts are damaged, or belong to another entry.
        """
        raise MaskweaveError(f"values of type {self.type!r} are tokenized by a network, not by rules")

    @property
    def target_smoothing(self) -> np.ndarray | None:
        """Weight (R + 1,) of the ids at distance 0 to R from a target's in training, where neighboring ids mean similar values; None: the
        target's id only."""
        return None

    # Labels, for classification

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels that can be read from a value: the classes of each, by the label's name."""
        return {}

    def label_of(self, value: Any, label: str) -> str:
        """Returns the class of one of the `labels`; with an empty label, the class that a value of head `label` is.

        Raises:
            BadSample: the value lacks it.
        """
        raise BadSample(f"values of type {self.type!r} have no label {label!r}")

    # Numbers, for regression

    @property
    def numbers(self) -> Mapping[str, "ValueType"]:
        """Numbers that can be read from a value: the type of each, which predicts one number, by the number's name."""
        return {}

    def number_of(self, value: Any, name: str) -> float:
        """Returns one of the `numbers`.

        Raises:
            BadSample: the value lacks it.
        """
        raise BadSample(f"values of type {self.type!r} have no number {name!r}")

    @property
    def number_scale(self) -> tuple[str, Scale, float] | None:
        """Unit, scale and softening of a value that is one number, for its distribution; None: it is not one number."""
        return None

    # Sequences

    @property
    def written_words(self) -> tuple[str, ...]:
        """Words that its sequences may contain."""
        return self.classes

    def codec(self, name: str, max_tokens: int, text: "TextWriter") -> "Codec":
        """Returns the codec between values and token ids of a text vocabulary, for modalities of kind `sequence`.

        Raises:
            MaskweaveError: the vocabulary lacks what the entry needs.
        """
        raise MaskweaveError(f"modality {name!r}: values of type {self.type!r} cannot be written as a sequence")

    # Scores, ensembles and labels

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """Returns all metrics by their name in entries (`metrics: [abs_rel]`).

        Args:
            parse: returns the labels in a text; by default its lower-case words.
        """
        return {}

    default_metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics of entries that list none."""

    def merge(self, values: Sequence[Any], overlap: float) -> Any:
        """Merges several predictions into one value.

        Args:
            overlap: for lists of boxes or instances: two of at least this intersection over union count as one.
        """
        raise MaskweaveError(f"values of type {self.type!r} cannot be merged")

    def spread(self, values: Sequence[Any]) -> np.ndarray | None:
        """Returns by how much several predictions differ at each point, float32 (*size); None: not supported.

        Of numbers, the standard deviation, the root mean square over the channels, in their unit; of classes, the share that is not the most frequent one.
        """
        return None

    derivations: ClassVar[Mapping[str, Callable[[Any, np.ndarray], Any]]] = {}
    """Functions that compute a value from the value type and a picture, uint8 (height, width, 3), by their name in entries
    (`derive: {from: rgb, by: canny}`)."""

    def to_blend(self, value: Any) -> np.ndarray:
        """Returns float32 (*size, C) whose weighted mean over several predictions of a point merges them, NaN at unknown points.

        Raises:
            MaskweaveError: values of this type are not planes of points.
        """
        raise MaskweaveError(f"values of type {self.type!r} are not points of a plane and cannot be blended")

    def from_blend(self, mean: np.ndarray) -> Any:
        """Returns the value for a mean of `to_blend`, of any size; points that are NaN in all channels become unknown, or 0 if the type has none."""
        raise MaskweaveError(f"values of type {self.type!r} are not points of a plane and cannot be blended")

    def derivation_gaps(self, by: str) -> tuple[bool, str]:
        """Returns whether a derivation can compute anything, and what it leaves out, for messages."""
        return True, ""


def refuse(where: str, found: str, expected: str, advice: str = "") -> BadSample:
    """Returns an error about a value; all such errors have this form."""
    return BadSample(f"{where}: found {found}; expected {expected}" + (f"; {advice}" if advice else ""))


def as_labels(value: Any, parse: Callable[[Any], Sequence[str]]) -> Labels:
    """Returns the labels of a value; a best constant consists of labels already."""
    return value if isinstance(value, Labels) else Labels(parse(value))
