"""The interface of a layout: the samples of a published data set, with values by field, in their own sizes and units.

A place `layout: NAME SPLIT PATH` is such a data set, wherever a data set is named; `fields` says which field each modality reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from maskweave.data.parts import read_part
from maskweave.data.source import check_key
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.values.base import ValueType
from maskweave.values.files import read_bytes, read_picture
from maskweave.values.formats import split_ending
from maskweave.values.formats.base import Selection
from maskweave.values.formats.numpy_arrays import read_npy

PREFIX = "layout:"
PICTURE, DISTANCE, DIRECTION, CLASSES = "picture", "distance", "direction", "classes"
"""Fields. `picture`: a photograph. `distance`: meters, NaN where unknown. `direction`: unit vectors, NaN where unknown. `classes`: class ids; an id of the
entry's `ignore` where unknown."""
LAYOUTS = {
    "diode": "maskweave.data.layouts.diode:Diode",
    "coco-panoptic": "maskweave.data.layouts.coco_panoptic:CocoPanoptic",
    "imagenet": "maskweave.data.layouts.imagenet:ImageNet",
    "nyuv2": "maskweave.data.layouts.nyuv2:NYUv2",
    "hypersim": "maskweave.data.layouts.hypersim:Hypersim",
    "cifar10": "maskweave.data.layouts.cifar:Cifar10",
    "cifar100": "maskweave.data.layouts.cifar:Cifar100",
    "ade20k": "maskweave.data.layouts.ade20k:ADE20K",
}


class DataLayout(ABC):
    """A data set on disk.

    Args:
        root: folder into which the official archives were unpacked.
        split: such as `val`, as the data set calls it.

    Raises:
        MaskweaveError: the folder does not have this layout; the message says what was expected.
    """

    fields: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __init__(self, root: Path, split: str): ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, i: int) -> str: ...

    @abstractmethod
    def read(self, i: int, field: str, value: ValueType) -> Any:
        """Returns a field of sample i in the Python form of a value type, at its own size; None if the sample lacks it.

        Raises:
            BadSample: it cannot be read.
        """


class LayoutPlace(NamedTuple):
    """The parts of `layout: NAME SPLIT PATH`."""

    layout: str
    split: str
    root: str

    def __str__(self) -> str:
        return f"{PREFIX} {self.layout} {self.split} {self.root}"


def parse_place(place: str) -> LayoutPlace | None:
    """Returns the parts of a place; None if it is no layout.

    Raises:
        MaskweaveError: an unknown layout, or parts are missing.
    """
    if not place.startswith(PREFIX):
        return None
    parts = place.removeprefix(PREFIX).split(maxsplit=2)
    if len(parts) < 3 or parts[0] not in LAYOUTS:
        raise MaskweaveError(f"{place}: expected {PREFIX} NAME SPLIT PATH, where NAME is one of {', '.join(LAYOUTS)}")
    return LayoutPlace(parts[0], parts[1], str(Path(parts[2]).expanduser().resolve()))


def open_layout(place: LayoutPlace, catalog: Catalog, names: Sequence[str], fields: Mapping[str, str]) -> Any:
    """Opens a data set as a source.

    Args:
        names: modalities to read.
        fields: field that each reads.

    Raises:
        MaskweaveError: no such folder, another layout, or a field that it lacks.
    """
    root = Path(place.root)
    if not root.is_dir():
        raise MaskweaveError(f"{root}: no such folder; give the folder of the unpacked data set {place.layout}")
    module, _, name = LAYOUTS[place.layout].partition(":")
    kind: Any = getattr(import_module(module), name)
    wanted = {name: fields[name] for name in dict.fromkeys(names) if name in fields}
    if missing := [name for name in names if name not in fields]:
        raise MaskweaveError(
            f"{place}: fields says nothing of {', '.join(missing)}; expected one of {', '.join(kind.fields)} for each modality"
        )
    for modality, field in wanted.items():
        if field not in kind.fields:
            raise MaskweaveError(
                f"{place}: fields.{modality}: there is no {field!r}; expected {', '.join(kind.fields)}"
            )
    if not issubclass(kind, DataLayout):
        return kind(root, place.split, [catalog[name] for name in wanted])
    return LayoutSource(kind(root, place.split), catalog, wanted)


class LayoutSource:
    """The samples of a layout at their entries' sizes.

    Args:
        fields: field that each modality reads.
    """

    def __init__(self, layout: DataLayout, catalog: Catalog, fields: Mapping[str, str]):
        self.layout, self.catalog, self.fields = layout, catalog, dict(fields)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.fields)

    def __len__(self) -> int:
        return len(self.layout)

    def key(self, i: int) -> str:
        return check_key(self.layout.key(i), type(self.layout).__name__)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        found = {name: read_part(name, partial(self._read, i, name)) for name in self.fields}
        return fit({name: value for name, value in found.items() if value is not None}, self.catalog)

    def _read(self, i: int, name: str) -> Any:
        value_type, where = self.catalog[name].value, f"{self.key(i)}: {name}"
        value = self.layout.read(i, self.fields[name], value_type)
        return None if value is None else value_type.check(value_type.from_python(value, where), where)


# Reading


def photograph(path: Path) -> np.ndarray:
    """Returns a picture file as uint8 (H, W, 3)."""
    return read_picture(read_bytes(path), split_ending(path.name)[1], 3, (255, 255, 255), str(path))


def array(path: Path, shape: str, axes: int) -> np.ndarray:
    """Returns a .npy file.

    Args:
        shape: in words, for messages.
        axes: number of axes after removing a last axis of length 1, if there is one more.

    Raises:
        BadSample: the file is damaged, or has another shape.
    """
    found = read_npy(read_bytes(path), str(path), Selection()).array
    if found.ndim == axes + 1 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.ndim != axes or found.dtype.kind not in "fiub":
        raise BadSample(f"{path}: found {found.dtype} of shape {found.shape}; expected {shape}")
    return found


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Returns directions (H, W, 3) of length 1, NaN where a vector is shorter than half of that or not finite."""
    vectors = np.nan_to_num(vectors.astype(np.float32))
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 0.5, vectors / np.maximum(length, 1e-6), np.float32(np.nan))


def class_ids(names: Mapping[int, str], value: ValueType, where: str) -> dict[int, int]:
    """Returns the index in an entry's classes of each category id.

    Raises:
        MaskweaveError: the entry lacks one.
    """
    if missing := sorted({name for name in names.values() if name not in value.classes}):
        raise MaskweaveError(
            f"{where}: the classes {', '.join(missing[:10])} are not among the {len(value.classes)} classes of the entry; list all of them"
        )
    return {number: value.classes.index(name) for number, name in names.items()}


def numbered_classes(ids: np.ndarray, value: ValueType) -> np.ndarray:
    """Returns the classes of points that a data set numbers from 1 on, in the order of the entry's classes; 0 becomes unknown."""
    return np.where(ids == 0, unknown_id(value), ids.astype(np.int64) - 1)


def unknown_id(value: ValueType) -> int:
    """Returns the id that an entry of classes gives to unknown points: the first of its `ignore`.

    Raises:
        MaskweaveError: it has none.
    """
    ignored = getattr(value, "ignore", ())
    if not ignored:
        raise MaskweaveError(
            "points of this data set may be unlabeled; set value.ignore of the entry, to 255 for instance"
        )
    return int(ignored[0])
