"""The contract of a value type: a frozen dataclass of an entry's settings, with all behavior that depends on what a value is.

The rest of the library asks a value type and never its name. A type overrides what applies to it; what it leaves alone says that it
cannot do that (`losses = {}`: no tokenizer network; `mergeable = False`: no ensembles).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values import files
from maskweave.values.geometry import Geometry
from maskweave.values.metrics import Labels, Metric

if TYPE_CHECKING:
    from maskweave.values.codec import Codec, TextWriter

Loss = Callable[[Tensor, Tensor], Tensor]
"""A network's output and its target to a scalar."""
Size = tuple[int, int]
"""Height and width of a figure in pixels."""
TextLabels = Callable[[str], "Sequence[str]"]
"""Labels that a text names, with repeats."""


@dataclass(frozen=True)
class ValueType(ABC):
    """Settings of one entry's values, and what can be done with such values. Subclasses are frozen dataclasses of their own fields."""

    tag: ClassVar[str] = "type"
    """Key of an entry that names the class; see `maskweave.config`."""
    type: ClassVar[str] = ""
    """Name in an entry: `value: {type: NAME}`."""
    python: ClassVar[str]
    """The Python form of a value, in one line."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of modality that can hold it: `grid`, `patches`, `vectors` or `sequence`."""

    losses: ClassVar[Mapping[str, Loss]] = {}
    """Losses of a tokenizer network by name, the default first; none: there is no such tokenizer."""
    can_add_noise: ClassVar[bool] = True
    """Whether a diffusion decoder can predict it."""
    is_photograph: ClassVar[bool] = False
    """Whether its file is a picture as it is, and needs no figure."""
    is_text: ClassVar[bool] = False
    """Whether it is text in words: text tokenizers are trained on it, and commands take it as it is typed."""
    is_embedding: ClassVar[bool] = False
    """Whether it is one vector that can stand for the sample in retrieval."""
    mergeable: ClassVar[bool] = False
    """Whether several predictions can be merged into one."""
    head: ClassVar[Literal["", "points", "boxes"]] = ""
    """Head that learns it in fine-tuning; empty: it cannot be learned as a whole."""
    row_dtype: ClassVar[Any] = np.float32
    """Type in which raw rows are stored."""
    stored_facts: ClassVar[tuple[str, ...]] = ("type", "channels", "classes")
    """Settings that imported values were checked against; others, such as the size, may change afterwards."""
    sees_color: ClassVar[bool] = False
    """Whether its figures are drawn over a picture of the same sample."""

    @classmethod
    def variant(cls, content: Mapping[str, Any]) -> Any:
        """The class that an entry names; see `maskweave.config`.

        Raises:
            MaskweaveError: it names none, or one that is not there.
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
    def size(self) -> tuple[int, ...]:
        """Points along each axis of a dense value."""
        return ()

    @property
    def channels(self) -> int:
        return 1

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
            MaskweaveError: says which setting and what is expected; the caller adds the entry's name.
        """

    @property
    def is_picture(self) -> bool:
        """Whether it is a color picture, which figures are drawn over and labels are computed from."""
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
        """The one check of a value: its Python form at its own size, or an error.

        Args:
            where: what to call the value in errors, its file for instance.

        Raises:
            BadSample: wrong type, shape or range, NaN or infinite numbers, unknown class; says what was found and what was expected.
        """

    def from_python(self, value: Any, where: str) -> Any:
        """What a user may hand over in place of a value, a PIL image or a tensor for instance, as what `check` takes."""
        return value

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of files that can hold a value, lower case, without a dot; the first is written."""
        return ("json",)

    def read(self, content: bytes, ending: str, where: str) -> Any:
        """The value in a file's bytes, checked, at its own size.

        Raises:
            BadSample: names the file, what was found and what was expected.
        """
        files.check_size(content, where)
        files.check_ending(ending, self, where)
        return self.check(self.parse(content, ending, where), where)

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """A file's bytes as what `check` takes."""
        return files.read_json_value(content, where)

    def write(self, value: Any) -> tuple[bytes, str]:
        """A checked value as a file's bytes and ending; `read` gives it back."""
        text = json.dumps(value, ensure_ascii=False, default=lambda number: number.item())
        return text.encode(), "json"

    def to_file(self, value: Any, where: str) -> tuple[bytes, str]:
        """Check a value and write it; errors as of `check`."""
        return self.write(self.check(value, where))

    # Crops, flips and sizes

    def extent(self, value: Any) -> tuple[int, ...] | None:
        """Points along each axis that a value has; None where it has none (text, no instances)."""
        return None

    def transform(self, value: Any, geometry: Geometry) -> Any:
        """The value after crop and flip, at the entry's size; None where it cannot be flipped."""
        return value

    # Networks

    def check_batch(self, values: Sequence[Any], name: str, first: int = 0) -> list[Any]:
        """A batch of values for a tokenizer, checked and of the entry's size.

        Args:
            name: the modality's.
            first: number of the first value, for messages.

        Raises:
            BadSample: names the value by its number in the batch.
        """
        return [
            self.check(self.from_python(v, at), at)
            for i, v in enumerate(values, first)
            for at in [f"{name}: value {i} of the batch"]
        ]

    def to_network(self, values: Sequence[Any]) -> Tensor:
        """A batch of checked values of the entry's size as a network takes it: float32 (B, C, *size), or int64 (B, *size) of class indices."""
        raise MaskweaveError(f"values of type {self.type!r} are not arrays, so no network takes them")

    def from_network(self, output: Tensor) -> np.ndarray:
        """A network's output (B, `output_channels`, *size) as a batch of values."""
        raise MaskweaveError(f"values of type {self.type!r} are not arrays, so no network gives them")

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Raw rows (…, width), flattened patches or vectors, as float32 for the network."""
        raise MaskweaveError(f"values of type {self.type!r} cannot be raw rows; use kind 'grid'")

    def task_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of fine-tuning on this type as a whole, and further metrics."""
        return next(iter(self.losses.values()))(output, target), {}

    # Labels, for classification

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels that a value tells, by name, each with its classes."""
        return {}

    def label_of(self, value: Any, label: str) -> str:
        """The class of one of the `labels`.

        Raises:
            BadSample: this value does not tell it.
        """
        raise BadSample(f"values of type {self.type!r} have no label {label!r}")

    # Sequences

    @property
    def written_words(self) -> tuple[str, ...]:
        """Words that its sequences may hold, whatever the values."""
        return self.classes

    def codec(self, name: str, max_tokens: int, text: "TextWriter") -> "Codec":
        """Values to token ids of a text vocabulary and back, for modalities of kind `sequence`.

        Raises:
            MaskweaveError: the vocabulary lacks what the entry needs.
        """
        raise MaskweaveError(f"modality {name!r}: values of type {self.type!r} cannot be written as a sequence")

    # Scores, ensembles and labels

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """All metrics by the name that an entry gives them (`metrics: [abs_rel]`).

        Args:
            parse: labels of a text; lower-case words by default.
        """
        return {}

    default_metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics of entries that name none."""

    def merge(self, values: Sequence[Any], overlap: float) -> Any:
        """One value out of several predictions.

        Args:
            overlap: of things in a list: intersection over union from which two count as one.
        """
        raise MaskweaveError(f"values of type {self.type!r} cannot be merged")

    derivations: ClassVar[Mapping[str, Callable[[Any, np.ndarray], Any]]] = {}
    """Ways to compute a value from a picture, by the name that an entry gives them (`derive: {from: rgb, by: canny}`): functions of the
    value type and the picture, uint8 (height, width, 3)."""

    def derivation_gaps(self, by: str) -> tuple[bool, str]:
        """Whether a derivation gives anything, and what it leaves out, for messages."""
        return True, ""

    # Figures

    def natural_size(self) -> Size:
        """Height and width of a figure of its own size."""
        return 128, 128

    @abstractmethod
    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """A picture of one checked value, uint8 (*size, 3).

        Args:
            over: picture, uint8 (H, W, 3), drawn beneath boxes, instances and the like.
            span: lowest and highest number of the colors or of a curve's axis; see `span`.
            reference: value whose principal components color this one, so that two can be compared.
        """

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        """Lowest and highest number that figures of these values should show; None: as `draw` does by itself."""
        return None

    @property
    def curve(self) -> bool:
        """Whether figures are curves, whose axis has to hold every value."""
        return False

    @property
    def wide(self) -> bool:
        """Whether figures need more width than height."""
        return self.curve

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        """What the colors mean, uint8 (height, width or less, 3); None where figures explain themselves.

        Args:
            values: those that are shown; None: whatever there can be.
            width: most pixels across.
        """
        return None


def refuse(where: str, found: str, expected: str, advice: str = "") -> BadSample:
    """The one form of errors about values."""
    return BadSample(f"{where}: found {found}; expected {expected}" + (f"; {advice}" if advice else ""))


def as_labels(value: Any, parse: Callable[[Any], Sequence[str]]) -> Labels:
    """Labels of a value, or the labels that a best constant already is."""
    return value if isinstance(value, Labels) else Labels(parse(value))
