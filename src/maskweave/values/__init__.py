"""Value types: what a modality's value is outside the model. Each type is one class in one file.

`value_type("map")` returns the class for an entry's `value: {type: map, …}`. Other packages add their own types by an entry point:

    [project.entry-points."maskweave.values"]
    quaternion = "my_package.quaternion:Quaternion"
"""

import difflib
import functools
import importlib.metadata
from typing import Any

from maskweave.errors import MaskweaveError, shown
from maskweave.values.audio import Audio
from maskweave.values.base import ValueType
from maskweave.values.binary import Binary
from maskweave.values.boxes import Boxes
from maskweave.values.boxes3d import Boxes3D
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.features import Features
from maskweave.values.image import Image
from maskweave.values.instances import Instances
from maskweave.values.label import Label
from maskweave.values.map import Map
from maskweave.values.metadata import Metadata
from maskweave.values.palette import Palette
from maskweave.values.poses import Poses
from maskweave.values.queries import Queries
from maskweave.values.scalar import Scalar
from maskweave.values.series import Series
from maskweave.values.tags import Tags
from maskweave.values.text import Text
from maskweave.values.vector import Vector
from maskweave.values.vectors import Vectors
from maskweave.values.video import Video

BUILT_IN: tuple[type[ValueType], ...] = (
    Image, Map, Series, Direction, Features, Classes, Binary, Vector, Vectors, Scalar, Label, Tags, Audio, Video,
    Text, Boxes, Boxes3D, Palette, Metadata, Instances, Poses, Queries,
)  # fmt: skip
GROUP = "maskweave.values"
"""Entry-point group of value types in other packages."""


@functools.cache
def value_types() -> dict[str, type[ValueType]]:
    """Returns all value types by name: built-in ones, then those of installed packages.

    Raises:
        MaskweaveError: an entry point cannot be loaded, is not a `ValueType`, or has the name of another type.
    """
    found: dict[str, type[ValueType]] = {cls.type: cls for cls in BUILT_IN}
    for point in importlib.metadata.entry_points(group=GROUP):
        where = f"value type {point.name!r} ({point.value})"
        try:
            cls = point.load()
        except Exception as error:  # importing another package can raise anything
            raise MaskweaveError(f"{where}: cannot be imported ({error}); fix or uninstall its package") from error
        if not (isinstance(cls, type) and issubclass(cls, ValueType)) or cls.type != point.name:
            raise MaskweaveError(
                f"{where}: expected a subclass of maskweave.values.base.ValueType whose type is {point.name!r}"
            )
        if found.get(point.name, cls) is not cls:
            raise MaskweaveError(f"{where}: another value type has the same name; rename one of them")
        found[point.name] = cls
    return found


def value_type(name: Any) -> type[ValueType]:
    """Returns the class of a value type.

    Raises:
        MaskweaveError: no type has this name.
    """
    known = value_types()
    if not isinstance(name, str) or name not in known:
        near = difflib.get_close_matches(name[:80], known) if isinstance(name, str) else []
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MaskweaveError(f"there is no value type {shown(name)}; {hint}known: {', '.join(known)}")
    return known[name]
