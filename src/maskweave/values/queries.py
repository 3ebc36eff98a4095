"""Instances at points of a picture as text-like tokens, the format of SAM instances in 4M-21 (https://arxiv.org/abs/2406.09406).

Per point `point v0=y v1=x`, then per instance `polygon v0=xmin v1=ymin v2=xmax v3=ymax` and its numbers (the codes of a mask), or `none`.
Coordinates are rounded to whole pixels, from 0 at the left or top edge to the size at the other. Points, and the instances of a point,
keep their order, or are shuffled if an rng is given. What exceeds max_tokens is not written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import MaskweaveError, shown
from maskweave.values.base import Size, ValueType
from maskweave.values.codec import TextWriter
from maskweave.values.geometry import WHOLE, Geometry
from maskweave.values.groups import Group, GroupedCodec, Part, check_parts, part_layout
from maskweave.values.items import (
    COORDINATES,
    MAX_BINS,
    check_bins,
    check_box,
    check_items,
    check_max_items,
    check_numbers,
)

POINT, INSTANCE, NOTHING = "point", "polygon", "none"


@dataclass(frozen=True)
class Queries(ValueType):
    """Points of a picture, each with the instances at this point."""

    type: ClassVar[str] = "queries"
    python: ClassVar[str] = (
        'list of {"point": [x, y], "instances": list of {"box": [xmin, ymin, xmax, ymax], PART: list of numbers}} with all of `parts`'
    )
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    sees_color = True

    size: tuple[int, ...] = ()
    """The picture's [height, width]; coordinates are written in pixels of this size."""
    parts: dict[str, Part] = field(default_factory=dict)
    """Groups of numbers by name, in the order of writing."""
    bins: int = 64
    """Bins of the numbers of parts that have a range."""
    max_items: int = 0
    """Most points that are written; extra points at the end are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        if len(self.size) != 2 or not all(0 < s < MAX_BINS for s in self.size):
            raise MaskweaveError(
                f"queries need value.size, the picture's [height, width], found {shown(list(self.size))}"
            )
        check_bins(self.bins)
        check_max_items(self.max_items)
        check_parts(self.parts, may_have_bones=False)

    def describe_range(self) -> str:
        return "0 to 1"

    def check(self, value: Any, where: str) -> list[dict[str, Any]]:
        layout = part_layout(self.parts)
        outer = f'{{"point": [x, y], "instances": list of {layout}}} with {COORDINATES}'
        queries = []
        for i, item in enumerate(check_items(value, where, ("point", "instances"), outer)):
            point = check_numbers(item["point"], 2, (0, 1), f"item {i} with point {shown(item['point'])}", outer, where)
            at = f"{where}: item {i}: instances"
            instances = [
                {
                    "box": check_box(found["box"], f"item {k} with box", layout, at),
                    **{name: part.check(found[name], f"item {k}: {name}", at) for name, part in self.parts.items()},
                }
                for k, found in enumerate(check_items(item["instances"], at, ("box", *self.parts), layout))
            ]
            queries.append({"point": point, "instances": instances})
        return queries

    def transform(self, value: list[dict[str, Any]], geometry: Geometry) -> list[dict[str, Any]] | None:
        """Drops points outside the crop, and instances whose box is cut, because the codes of a mask are relative to its box. Returns None if
        queries with parts are flipped: these codes cannot be mirrored."""
        if geometry.flip and any(len(found) > 1 for query in value for found in query["instances"]):
            return None
        return [kept for query in value if (kept := _moved(query, geometry)) is not None]

    @property
    def written_words(self) -> tuple[str, ...]:
        return (POINT, INSTANCE, NOTHING)

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "QueriesCodec":
        return QueriesCodec(name, self, max_tokens, text)

    def natural_size(self) -> Size:
        return self.size[0], self.size[1]

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Numbered points, and the boxes of their instances in the same color."""
        from maskweave.values.drawing_objects import Annotation, draw_annotations

        names = [f"{n}" for n in range(1, len(value) + 1)]
        found = [
            Annotation(name, box=instance["box"])
            for name, query in zip(names, value, strict=True)
            for instance in query["instances"]
        ]
        return draw_annotations(found, names, size, over, points=[query["point"] for query in value])


def _moved(query: Mapping[str, Any], geometry: Geometry) -> dict[str, Any] | None:
    """Returns a point with its instances after the crop; None if the point or all of its instances are cut off."""
    point = geometry.move_point(*query["point"])
    moved = [(found, geometry.move_box(found["box"], visible=WHOLE)) for found in query["instances"]]
    instances = [{**found, "box": box} for found, box in moved if box is not None]
    if point is None or (query["instances"] and not instances):
        return None
    return {"point": point, "instances": instances}


class QueriesCodec(GroupedCodec):
    """Encodes points in the order given, or shuffled if an rng is given."""

    item = "point"

    def __init__(self, name: str, value: Queries, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text, (POINT, INSTANCE, NOTHING))
        self.height, self.width = value.size
        for prefix, pixels in zip(
            ("v0", "v1", "v2", "v3"), (max(value.size),) * 2 + (self.width, self.height), strict=True
        ):
            self.require(prefix, pixels + 1, "value.size")
        self.numbers_of_instance = 4 + sum(part.count for part in self.parts.values())
        self.capacity(len(self.words[POINT]) + 2 + len(self.words[INSTANCE]) + self.numbers_of_instance)

    def units(self, value: list[dict[str, Any]], rng: np.random.Generator | None) -> Iterator[list[int]]:
        written = [self._query(query) for query in value]
        order = range(len(written)) if rng is None else rng.permutation(len(written))
        for i in order[: self.spec.max_items or None]:
            point, instances = written[i]
            if rng is not None:
                instances = [instances[k] for k in rng.permutation(len(instances))]
            yield [*point, *instances[0]]
            yield from instances[1:]

    def _query(self, query: Mapping[str, Any]) -> tuple[list[int], list[list[int]]]:
        """Returns the ids of a point, and of each of its instances (or of the word for none)."""
        x, y = query["point"]
        point = [*self.words[POINT], *self.special([("v0", _pixel(y, self.height)), ("v1", _pixel(x, self.width))])]
        return point, [self._instance(instance) for instance in query["instances"]] or [self.words[NOTHING]]

    def _instance(self, instance: Mapping[str, Any]) -> list[int]:
        pixels = [_pixel(c, size) for c, size in zip(instance["box"], (self.width, self.height) * 2, strict=True)]
        ids = [*self.words[INSTANCE], *self.special(zip(("v0", "v1", "v2", "v3"), pixels, strict=True))]
        for name in self.parts:
            ids += self.write_part(instance, name)
        return ids

    def parse(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        queries: list[dict[str, Any]] = []
        for run in _runs(self.groups(ids, problems), problems):
            (_, numbers), *found = run
            point = self._coordinates(numbers, ("v0", "v1"), (self.height, self.width))
            instances = [self._read_instance(numbers) for word, numbers in found if word == INSTANCE]
            valid = [instance for instance in instances if instance is not None]
            nothing = any(word == NOTHING and not numbers for word, numbers in found)
            if len(valid) < len(instances) or nothing == bool(instances) or len(found) != max(1, len(instances)):
                problems.append(
                    f"point {len(queries)}: {len(valid)} of {len(instances)} instances are valid"
                    + ", together with 'none'" * nothing
                )
            if point is None:
                problems.append(f"a point without coordinates v0=y v1=x within {self.height}×{self.width}; skipped")
            elif valid or (nothing and not instances):
                queries.append({"point": point[::-1], "instances": valid})
        return queries

    def _read_instance(self, numbers: Sequence[tuple[str, int]]) -> dict[str, Any] | None:
        box = self._coordinates(numbers[:4], ("v0", "v1", "v2", "v3"), (self.width, self.height) * 2)
        if box is None or len(numbers) != self.numbers_of_instance or box[0] > box[2] or box[1] > box[3]:
            return None
        instance: dict[str, Any] = {"box": box}
        at = 4
        for name, part in self.parts.items():
            instance[name] = part.read(numbers[at : at + part.count])
            at += part.count
        return None if None in instance.values() else instance

    def _coordinates(
        self, numbers: Sequence[tuple[str, int]], prefixes: tuple[str, ...], sizes: tuple[int, ...]
    ) -> list[float] | None:
        """Returns pixels as shares of the picture's size; None unless each has its prefix and is within the picture."""
        if tuple(prefix for prefix, _ in numbers) != prefixes or any(
            n > s for (_, n), s in zip(numbers, sizes, strict=True)
        ):
            return None
        return [n / size for (_, n), size in zip(numbers, sizes, strict=True)]


def _pixel(share: float, size: int) -> int:
    return int(share * size + 0.5)


def _runs(groups: list[Group], problems: list[str]) -> list[list[Group]]:
    """Returns the groups by point; the point itself comes first."""
    starts = [i for i, group in enumerate(groups) if group.word == POINT]
    if lost := (starts[0] if starts else len(groups)):
        problems.append(f"{lost} groups before the first point: {' '.join(g.word for g in groups[: min(lost, 8)])}")
    return [groups[a:b] for a, b in pairwise([*starts, len(groups)])]
