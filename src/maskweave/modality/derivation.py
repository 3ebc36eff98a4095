"""How an entry's values are computed from other values: `derive` of an entry.

`by` chooses the settings: `teacher` (a network), `agreement` (of two labels), `normals` (of a depth map), or a rule of the value type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from maskweave.errors import MaskweaveError, shown
from maskweave.permission import PYTHON

MOST_BATCH = 4096


@dataclass(frozen=True)
class Confidence:
    """What happens to labels that the teacher is not sure of. What its confidence is depends on its task; see docs/teachers.md."""

    drop_below: float | None = None
    """Items of lists, such as boxes, with a lower confidence are dropped; other labels as a whole, by their mean confidence."""
    unknown_below: float | None = None
    """Points of dense labels with a lower confidence become unknown; the entry needs `value.missing` or `value.ignore`."""

    def __post_init__(self) -> None:
        for name in ("drop_below", "unknown_below"):
            given = getattr(self, name)
            if given is not None and not 0 < given <= 1:
                raise MaskweaveError(f"{name} must be above 0 and at most 1, found {given}")

    @property
    def is_set(self) -> bool:
        return self.drop_below is not None or self.unknown_below is not None


@dataclass(frozen=True)
class Derivation:
    """How values are computed from the values of another modality: here, by a rule of the value type, from pictures."""

    aliases: ClassVar[dict[str, str]] = {"from": "source"}
    """Key in YAML to the field that holds it: `from` is a reserved word of Python."""

    source: str
    """Modality that the values are computed from; for rules, color pictures."""
    by: str
    """Name of one of the value type's rules (`canny`, `palette`, `image_statistics`); or `teacher`, `agreement`, `normals`."""

    @classmethod
    def variant(cls, content: Mapping[str, Any]) -> Any:
        """Returns the class of a `derive`; see `maskweave.config`."""
        by = content.get("by")
        return COMPUTED.get(by, cls) if isinstance(by, str) else cls

    @property
    def sources(self) -> tuple[str, ...]:
        """All modalities that are read to compute a value."""
        return (self.source,)


@dataclass(frozen=True)
class PictureInput:
    """How an ONNX model takes pictures, channels first."""

    size: tuple[int, int]
    """[height, width] that pictures are resized to."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from each channel, in units of 0 to 1."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Then each channel is divided by this."""
    bgr: bool = False
    """The channels are blue, green, red, also in `mean` and `std`."""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or max(self.size) > 8192 or min(self.std) <= 0:
            raise MaskweaveError(
                f"size must be [height, width] of 1 to 8192 and std above 0, found {list(self.size)} and {list(self.std)}"
            )


@dataclass(frozen=True)
class TeacherDerivation(Derivation):
    """A network, the teacher, computes the values."""

    by: str = "teacher"
    model: str = ""
    """Folder or Hub id of a model of the transformers library with safetensors weights; a file `NAME.onnx`; or `python: package.module:function`."""
    task: str = ""
    """What the model does, such as `depth-estimation`; docs/teachers.md lists all. A Python function needs none."""
    revision: str = ""
    """Branch, tag or commit of a Hub id."""
    license: str = ""
    """License of the model's weights, for the record of the labels; by default what the model's README says."""
    classes: dict[str, str] = field(default_factory=dict)
    """The teacher's classes to the entry's, where their names differ."""
    labels: tuple[str, ...] = ()
    """Names of the teacher's classes in order, for ONNX models."""
    confidence: Confidence = field(default_factory=Confidence)
    """Filters by the teacher's confidence."""
    side: int = 0
    """Shorter side of dense labels in points, if the picture's is longer; 0: the picture's own size."""
    boxes: str = ""
    """Modality of boxes that the teacher also reads: people, for `pose-estimation`."""
    picture: PictureInput | None = None
    """Input of ONNX models."""
    batch_size: int = 8
    """Values that the teacher computes at once."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: matrix products in bfloat16, on GPUs only."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Options of the task, such as `prompt`, or the function's keyword arguments."""

    def __post_init__(self) -> None:
        if not self.model:
            raise MaskweaveError(
                "the key 'model' is missing; expected a folder or Hub id, a .onnx file, or python: package.module:function"
            )
        if not (self.task or self.model.startswith(PYTHON)):
            raise MaskweaveError("the key 'task' is missing; expected what the model does, such as depth-estimation")
        if not (1 <= self.batch_size <= MOST_BATCH and 0 <= self.side <= 8192):
            raise MaskweaveError(
                f"batch_size must be 1 to {MOST_BATCH} and side 0 to 8192, found {shown(self.batch_size)} and {shown(self.side)}"
            )

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source, *filter(None, (self.boxes,)))


@dataclass(frozen=True)
class AgreementDerivation(Derivation):
    """Where two teachers agree, as a weight or mask of their labels."""

    aliases: ClassVar[dict[str, str]] = {"from": "source", "with": "other"}
    by: str = "agreement"
    other: str = ""
    """The other teacher's labels, of the same value type."""
    align: bool = False
    """Fit the other map's scale and offset first, for maps of which only relative values matter."""

    def __post_init__(self) -> None:
        if not self.other or self.other == self.source:
            raise MaskweaveError(
                f"with is {shown(self.other)}; expected another modality with labels like those of {self.source!r}"
            )

    @property
    def sources(self) -> tuple[str, ...]:
        return self.source, self.other


@dataclass(frozen=True)
class NormalsDerivation(Derivation):
    """Surface normals of a depth map, by the directions of neighboring points in space."""

    by: str = "normals"
    field_of_view: float = 55.0
    """Angle that the longer side of the picture spans, in degrees; teachers of depth do not tell it."""

    def __post_init__(self) -> None:
        if not 1 <= self.field_of_view <= 170:
            raise MaskweaveError(f"field_of_view must be 1 to 170 degrees, found {self.field_of_view}")


COMPUTED: dict[str, type[Derivation]] = {
    "teacher": TeacherDerivation,
    "agreement": AgreementDerivation,
    "normals": NormalsDerivation,
}
"""What `by` may be besides the rules of a value type."""
