"""Procedural scenes: a few solids on a floor in front of a wall, with exact values of every modality.

Scene i of seed s is always the same and independent of the others; nothing is stored. The value type of an entry decides its values:

| value type | value |
| --- | --- |
| image | the picture |
| map | z-depth in meters, 0 to 16 |
| direction | surface normals in the camera frame |
| classes | floor, wall, cube, sphere, cylinder, cone |
| binary | Canny edges of the picture |
| text | a caption (`maskweave.synthetic.grammar`) |
| boxes, instances | visible box or mask of each object, with class names such as "red cube", in 4M's order |
| boxes3d | the camera, and the box in space around each object, nearest first; a flat side of a cube has its yaw, other solids have yaw 0 |
| palette | dominant colors |
| metadata | the declared keys, a subset of `METADATA` |
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.synthetic import grammar, raycast
from maskweave.synthetic.raycast import Hits, Rendering, Room, Solid
from maskweave.values import measures
from maskweave.values.base import ValueType
from maskweave.values.binary import Binary
from maskweave.values.boxes import Boxes
from maskweave.values.boxes3d import Boxes3D
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.geometry import Geometry, box_around, corner_first
from maskweave.values.image import Image
from maskweave.values.instances import Instances
from maskweave.values.map import Map
from maskweave.values.metadata import Metadata
from maskweave.values.palette import Palette
from maskweave.values.text import Text

DEFAULT_SIZE = (64, 64)
SMALLEST, LARGEST = 16, 4096
"""Smallest and largest side of a picture in pixels."""
LONGEST_ASPECT = 4
"""Largest ratio of the longer to the shorter side."""
MOST_OBJECTS = 4
VISIBLE = 25
"""Smallest number of visible pixels of an object, for a picture with a shorter side of 64; it scales with the area."""
COLORS = {
    "gray": (0.36, 0.36, 0.38),
    "red": (0.86, 0.10, 0.10),
    "blue": (0.10, 0.22, 0.92),
    "green": (0.08, 0.62, 0.15),
    "brown": (0.54, 0.30, 0.10),
    "purple": (0.60, 0.16, 0.82),
    "cyan": (0.08, 0.80, 0.88),
    "yellow": (0.98, 0.86, 0.08),
}
RADII = {"small": 0.66, "large": 1.02}
"""Nominal radius of each size in meters."""
WIDTHS = (0.27, 0.60)
"""Smallest and largest width of an object, as a fraction of the picture's shorter side."""
TRIES = 40
METADATA = (
    "object_count",
    "light_direction",
    "camera_height",
    "brightness",
    "contrast",
    "colorfulness",
    "saturation",
    "entropy",
)
"""Metadata keys of a scene."""
NAMES = tuple(f"{color} {shape}" for shape in grammar.SHAPES for color in grammar.COLORS)


@dataclass(frozen=True)
class SceneObject:
    """One object: its attributes in captions, and its solid."""

    size: str
    color: str
    shape: str
    solid: Solid
    distance: float
    """Depth of its center, in meters."""

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass
class Scene:
    """One scene: its objects and the camera's view. Expensive fields are computed lazily."""

    room: Room
    objects: list[SceneObject]
    hits: Hits
    samples: list[float] = field(repr=False)
    """Random numbers that choose the relations in the caption."""

    @cached_property
    def view(self) -> Rendering:
        return raycast.shade(self.room, [o.solid for o in self.objects], self.hits)

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """Visible pixels of each object, bool (height, width)."""
        return [self.hits.surface == k + 2 for k in range(len(self.objects))]

    @cached_property
    def boxes(self) -> list[list[float]]:
        return [box_around(mask) for mask in self.masks]

    @cached_property
    def order(self) -> list[int]:
        """Indices of the objects in 4M's order of boxes."""
        return corner_first(list(range(len(self.objects))), lambda k: self.boxes[k])

    @cached_property
    def seen(self) -> list[grammar.Seen]:
        middles = [(box[0] + box[2]) / 2 for box in self.boxes]
        return [
            grammar.Seen(t.size, t.color, t.shape, x, t.distance) for t, x in zip(self.objects, middles, strict=True)
        ]

    @cached_property
    def facts(self) -> dict[str, float]:
        """Values of all keys of `METADATA`."""
        return {
            "object_count": len(self.objects),
            "light_direction": self.room.light_azimuth,
            "camera_height": self.room.camera_height,
            **measures.statistics(self.view.rgb),
        }


class Scenes:
    """The named source `scenes`: samples `{modality: value}`, with `scenes[i]`, `len(scenes)` and iteration.

    Args:
        catalog: entries of the values; those with a `source` are skipped, because they read the values of another entry.
        samples: number of scenes.
        seed: 0 or more; different seeds give different scenes.

    Raises:
        MaskweaveError: an entry needs values that a scene does not have (a vector, an unknown metadata key or class name), sizes differ or
            are not those of pictures, or `samples` or `seed` is out of range.
        IndexError: an index is out of range.
    """

    @check_arguments
    def __init__(self, catalog: Catalog, samples: int, seed: int = 0):
        if samples < 1:
            raise MaskweaveError(f"scenes: the number of samples must be 1 or more, found {samples}")
        if seed < 0:
            raise MaskweaveError(f"scenes: seed must be 0 or more, found {seed}")
        self.count, self.seed = samples, seed
        self.size = _size(catalog)
        self.modalities = [m for m in catalog.values() if not m.source]
        for modality in self.modalities:
            _check(modality, catalog.where)
        self.class_index = {
            m.name: np.array(
                [m.value.classes.index(name) for name in raycast.CLASSES],
                np.uint8 if len(m.value.classes) < 256 else np.int32,
            )
            for m in self.modalities
            if isinstance(m.value, Classes)
        }

    @staticmethod
    def gives(modality: Modality) -> bool:
        """Returns whether scenes have values of the entry's type."""
        return type(modality.value) in VALUES

    @staticmethod
    def text_labels(text: str) -> list[str]:
        """Returns the objects in a caption, for scoring captions."""
        return list(grammar.objects_in(text).elements())

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities of each scene."""
        return tuple(m.name for m in self.modalities)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = self.scene(index)
        return {m.name: self._value(m, scene) for m in self.modalities}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(self.count))

    def key(self, index: int) -> str:
        """Returns the file name of a scene; names sort in the order of the scenes."""
        return f"{self.seed}-{self._checked(index):07d}"

    def scene(self, index: int) -> Scene:
        """Returns the scene of sample `index`, with its geometry."""
        return random_scene(np.random.default_rng((self.seed, self._checked(index))), self.size)

    def _checked(self, index: int) -> int:
        i = operator.index(index)
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} does not exist; expected 0 to {self.count - 1}")
        return i

    def _value(self, modality: Modality, scene: Scene) -> Any:
        make = VALUES[type(modality.value)]
        return make(self, modality, scene)


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Returns a random scene of 1 to 4 visible objects that touch neither each other nor the wall.

    Args:
        rng: the scene only depends on its state and the size.
        size: (height, width) in pixels.
    """
    pairs = rng.permutation(len(NAMES))[:MOST_OBJECTS].tolist()
    numbers = iter(rng.random(32 + MOST_OBJECTS * (8 + 3 * TRIES)).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(numbers)

    samples = [next(numbers) for _ in range(7)]
    count = 1 + int(MOST_OBJECTS * next(numbers))
    target = between(4.2, 6.4)  # where the camera looks, along the floor
    camera_height = between(0.9, 4.0)
    floor, wall = between(0.62, 0.72), between(0.76, 0.90)
    room = Room(
        camera_height=camera_height,
        pitch=math.atan((camera_height - 0.5) / target) + between(-0.03, 0.03),
        wall_distance=between(target + 1.5, 13.0),
        wall_yaw=between(-0.24, 0.24),
        floor_color=(floor + between(0.0, 0.05), floor + between(-0.01, 0.01), floor - between(0.0, 0.05)),
        wall_color=(wall - between(0.0, 0.05), wall + between(-0.01, 0.01), wall + between(0.0, 0.05)),
        light_azimuth=between(-180.0, 180.0),
        light_elevation=between(35.0, 65.0),
    )
    room = raycast.within_depth(room, size)
    objects: list[SceneObject] = []
    placed: list[tuple[float, float, float]] = []
    for pair in pairs[:count]:
        shape, color = grammar.SHAPES[pair // len(grammar.COLORS)], grammar.COLORS[pair % len(grammar.COLORS)]
        name = "small" if next(numbers) < 0.5 else "large"
        gain, stretch, yaw = between(0.92, 1.08), between(0.95, 1.05), between(0.0, math.pi / 2)
        rgb = COLORS[color]
        solid = Solid(shape, RADII[name] * stretch, 0.0, -target, (rgb[0] * gain, rgb[1] * gain, rgb[2] * gain), yaw)
        located = _place(room, solid, [o.solid for o in objects], placed, between, size)
        if located is not None:
            objects.append(SceneObject(name, color, shape, located, _project(room, located)[2]))

    fewest = max(4.0, VISIBLE * (min(size) / 64) ** 2)
    while True:
        hits = raycast.trace(room, [o.solid for o in objects], size)
        visible = np.bincount(hits.surface.ravel(), minlength=len(objects) + 2)[2:]
        if len(objects) == 1 or visible.min() >= fewest:
            return Scene(room, objects, hits, samples)
        objects.pop(int(visible.argmin()))  # one at a time: another object may then become fully visible


def _place(
    room: Room,
    solid: Solid,
    others: list[Solid],
    placed: list[tuple[float, float, float]],
    between: Callable[[float, float], float],
    size: tuple[int, int],
) -> Solid | None:
    """Returns the solid at a free position, inside the picture and not occluded, or None. The first solid of a scene always gets a position.

    `placed` holds (u, v, half width) of each solid in the picture, in focal lengths; that of the new solid is added.
    """
    focal = raycast.focal_length(size)
    half_height, half_width = size[0] / 2 / focal, size[1] / 2 / focal
    least, most = (w * min(size) / focal for w in WIDTHS)
    normal = room.wall_normal
    for _ in range(TRIES):
        z = -between(3.2, 8.0)
        side = between(-1.0, 1.0)
        _, v, depth = _project(room, Solid(solid.shape, solid.radius, 0.0, z, solid.color))
        seen = solid.footprint / depth
        u = side * (half_width - 0.85 * seen)
        x = u * depth
        ok = (
            least <= 2 * seen <= most
            and abs(v) <= half_height - 0.85 * seen
            and x * normal[0] + z * normal[2] + room.wall_distance > solid.footprint + 0.05
            and all(math.hypot(x - o.x, z - o.z) > solid.footprint + o.footprint + 0.1 for o in others)
            and all(math.hypot(u - pu, v - pv) > 0.62 * (seen + ps) for pu, pv, ps in placed)
        )
        if ok:
            break
    else:
        if others:
            return None
        x, z = 0.0, solid.z  # where the camera looks
        u, v, depth = _project(room, solid)
        seen = solid.footprint / depth
    placed.append((u, v, seen))
    return Solid(solid.shape, solid.radius, x, z, solid.color, solid.yaw)


def _project(room: Room, solid: Solid) -> tuple[float, float, float]:
    """Projects the center of the solid: u (right), v (up) in focal lengths from the picture's center, and depth in meters."""
    y = solid.height / 2 - room.camera_height
    sin, cos = math.sin(room.pitch), math.cos(room.pitch)
    depth = -sin * y - cos * solid.z
    return solid.x / depth, (cos * y - sin * solid.z) / depth, depth


def _size(catalog: Catalog) -> tuple[int, int]:
    """Returns the size of the largest picture, which must be that of all other entries too. Smaller pictures, by a whole factor, are means of its pixels."""
    sizes = {m.value.size: m.name for m in catalog.values() if m.value.size and not m.source}
    largest = max(sizes, default=DEFAULT_SIZE)
    for modality in catalog.values():
        small = modality.value.size
        if type(modality.value) is Image and not modality.source and small != largest and len(small) == len(largest):
            factors = {large / s for large, s in zip(largest, small, strict=True)}
            if len(factors) == 1 and factors.pop().is_integer() and sizes.get(small) == modality.name:
                del sizes[small]
    if len(sizes) > 1:
        found = ", ".join(f"{name} {list(size)}" for size, name in sizes.items())
        raise MaskweaveError(
            f"{catalog.where}: a scene has one size, found {found}; give all entries the same value.size; pictures alone may be smaller by a whole factor"
        )
    size = next(iter(sizes), DEFAULT_SIZE)
    if len(size) != 2 or not all(SMALLEST <= s <= LARGEST for s in size) or max(size) > LONGEST_ASPECT * min(size):
        raise MaskweaveError(
            f"{catalog.where}: modality {sizes[size]!r}: scenes are pictures of {SMALLEST} to {LARGEST} pixels a side, "
            f"one side at most {LONGEST_ASPECT} times the other, found value.size {list(size)}"
        )
    return size[0], size[1]


def _picture_of(scenes: Scenes, modality: Modality, scene: Scene) -> np.ndarray:
    """The picture, or the means of its pixels, for an entry of a smaller size."""
    height, width = modality.value.size
    factor = scenes.size[0] // height
    if factor == 1:
        return scene.view.rgb
    blocks = scene.view.rgb.reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def _classes_of(scenes: Scenes, modality: Modality, scene: Scene) -> np.ndarray:
    return scenes.class_index[modality.name][scene.view.classes]


def _facts_of(scenes: Scenes, modality: Modality, scene: Scene) -> dict[str, float]:
    assert isinstance(modality.value, Metadata)
    return {key: scene.facts[key] for key in modality.value.keys}


def _boxes_in_space(scenes: Scenes, modality: Modality, scene: Scene) -> dict[str, Any]:
    """The world's axes are those of the camera's level frame, with y and z reversed and the origin on the floor."""
    height, width = scenes.size
    focal, room = raycast.focal_length(scenes.size), scene.room
    boxes = [
        {
            "class": o.name,
            "center": [o.solid.x, room.camera_height - o.solid.height / 2, -o.solid.z],
            "size": [2 * o.solid.half, o.solid.height, 2 * o.solid.half],
            "yaw": o.solid.yaw if o.shape == "cube" else 0.0,
        }
        for o in scene.objects
    ]
    camera = {"focal": [focal / width, focal / height], "center": [0.5, 0.5], "pitch": room.pitch, "roll": 0.0}
    return modality.value.transform({"camera": camera, "boxes": boxes}, Geometry())


VALUES: dict[type[ValueType], Callable[[Scenes, Modality, Scene], Any]] = {
    Image: _picture_of,
    Map: lambda scenes, modality, scene: scene.view.depth,
    Direction: lambda scenes, modality, scene: scene.view.normals,
    Classes: _classes_of,
    Binary: lambda scenes, modality, scene: measures.canny(scene.view.rgb),
    Text: lambda scenes, modality, scene: grammar.caption(scene.seen, scene.samples),
    Boxes: lambda scenes, modality, scene: [
        {"class": scene.objects[k].name, "box": scene.boxes[k]} for k in scene.order
    ],
    Boxes3D: _boxes_in_space,
    Palette: lambda scenes, modality, scene: measures.palette(scene.view.rgb),
    Metadata: _facts_of,
    Instances: lambda scenes, modality, scene: [
        {"class": scene.objects[k].name, "mask": scene.masks[k]} for k in scene.order
    ],
}
"""The function for each value type of a scene."""


def _check(modality: Modality, where: str) -> None:
    """Raises MaskweaveError if scenes do not have the values that the entry declares."""
    value, where = modality.value, f"{where}: modality {modality.name!r}"
    if type(value) not in VALUES:
        raise MaskweaveError(
            f"{where}: scenes have no values of type {value.type!r}; remove the entry, or read its values from files"
        )
    names = {Classes: raycast.CLASSES, Boxes: NAMES, Boxes3D: NAMES, Instances: NAMES}.get(type(value), ())
    if missing := [name for name in names if name not in value.classes]:
        raise MaskweaveError(
            f"{where}: value.classes lacks {', '.join(missing[:8])}, which scenes contain; add the names"
        )
    if isinstance(value, Metadata) and (unknown := [key for key in value.keys if key not in METADATA]):
        raise MaskweaveError(f"{where}: scenes have no metadata key {unknown[0]!r}; use some of {', '.join(METADATA)}")
    if isinstance(value, Binary) and (modality.derive is None or modality.derive.by != "canny"):
        raise MaskweaveError(
            f"{where}: the only binary maps of scenes are the edges of their pictures; "
            "add 'derive: {from: NAME, by: canny}' with the entry of the pictures if it is for these, or remove the entry"
        )
    if isinstance(value, Image) and value.channels != 3:
        raise MaskweaveError(
            f"{where}: scenes have pictures of 3 channels, found value.channels {value.channels}; set it to 3"
        )
    if isinstance(value, Map):
        covered = value.range is not None and value.limits.min() <= 0 and value.limits.max() >= raycast.MAX_DEPTH
        if value.channels != 1 or value.unit not in ("", "m") or not covered:
            raise MaskweaveError(
                f"{where}: scenes have depth maps of 1 channel, in m, with a range that covers [0, {raycast.MAX_DEPTH:g}]; "
                f"found {value.channels} channels, unit {value.unit!r}, range {value.range}"
            )
