"""What is found at points of a picture as text-like tokens, as 4M-21 writes SAM's instances (https://arxiv.org/abs/2406.09406).

Per point `point v0=y v1=x`, then per instance `polygon v0=xmin v1=ymin v2=xmax v3=ymax` and its numbers (the codes of a mask), or `none`.
Coordinates are whole pixels, from 0 at the left or top edge to the size at the other: the nearest is written. Points
and a point's instances stand in the order given, or in a random one where an rng is given; what max_tokens leaves no room for is not written.
"""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from maskweave.modality.entry import Modality
from maskweave.tokenizers.groups import Group, Grouped
from maskweave.tokenizers.text import TextTokenizer

POINT, INSTANCE, NOTHING = "point", "polygon", "none"


class Queries(Grouped):
    """List of {"point": [x, y], "instances": list of {"box": [xmin, ymin, xmax, ymax], PART: list of numbers}}, coordinates 0 to 1."""

    item = "point"

    def __init__(self, modality: Modality, text: TextTokenizer):
        super().__init__(modality, text, (POINT, INSTANCE, NOTHING))
        self.height, self.width = self.spec.size
        for prefix, pixels in zip(
            ("v0", "v1", "v2", "v3"), (max(self.spec.size),) * 2 + (self.width, self.height), strict=True
        ):
            self.require(prefix, pixels + 1, "value.size")
        self.numbers_of_instance = 4 + sum(part.count for part in self.parts.values())
        self.capacity(len(self.words[POINT]) + 2 + len(self.words[INSTANCE]) + self.numbers_of_instance)

    def units(self, value: Any, rng: np.random.Generator | None) -> Iterator[list[int]]:
        queries = self.items_of(value)
        written = [self._query(query, n) for n, query in enumerate(queries)]
        order = range(len(written)) if rng is None else rng.permutation(len(written))
        for i in order[: self.spec.max_items or None]:
            point, instances = written[i]
            if rng is not None:
                instances = [instances[k] for k in rng.permutation(len(instances))]
            yield [*point, *instances[0]]
            yield from instances[1:]

    def _query(self, query: Any, n: int) -> tuple[list[int], list[list[int]]]:
        """Ids of a point, and of each of its instances or of the word that says there is none."""
        if (
            not isinstance(query, Mapping)
            or "point" not in query
            or not isinstance(query.get("instances"), (list, tuple))
        ):
            raise self.bad(f"point {n}: {reprlib.repr(query)}", "a mapping with 'point' and a list of 'instances'")
        x, y = self.numbers(query["point"], 2, 0, 1, f"point {n}")
        point = [*self.words[POINT], *self.special([("v0", _pixel(y, self.height)), ("v1", _pixel(x, self.width))])]
        return point, [self._instance(instance, n) for instance in query["instances"]] or [self.words[NOTHING]]

    def _instance(self, instance: Any, n: int) -> list[int]:
        box = self.box(instance, n)
        pixels = [_pixel(c, size) for c, size in zip(box, (self.width, self.height) * 2, strict=True)]
        ids = [*self.words[INSTANCE], *self.special(zip(("v0", "v1", "v2", "v3"), pixels, strict=True))]
        for name in self.parts:
            ids += self.write_part(instance, name, n)
        return ids

    def read(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        queries: list[dict[str, Any]] = []
        for run in _runs(self.groups(ids, problems), problems):
            (_, numbers), *found = run
            point = self._coordinates(numbers, ("v0", "v1"), (self.height, self.width))
            instances = [self._read_instance(numbers) for word, numbers in found if word == INSTANCE]
            sound = [instance for instance in instances if instance is not None]
            nothing = any(word == NOTHING and not numbers for word, numbers in found)
            if len(sound) < len(instances) or nothing == bool(instances) or len(found) != max(1, len(instances)):
                problems.append(
                    f"point {len(queries)}: {len(sound)} of {len(instances)} instances are sound"
                    + ", beside 'none'" * nothing
                )
            if point is None:
                problems.append(f"a point without its place, v0=y v1=x within {self.height}×{self.width}; left out")
            elif sound or (nothing and not instances):
                queries.append({"point": point[::-1], "instances": sound})
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
        """Pixels as shares of the picture's size, None unless each has its prefix and lies within."""
        if tuple(prefix for prefix, _ in numbers) != prefixes or any(
            n > s for (_, n), s in zip(numbers, sizes, strict=True)
        ):
            return None
        return [n / size for (_, n), size in zip(numbers, sizes, strict=True)]


def _pixel(share: float, size: int) -> int:
    return int(share * size + 0.5)


def _runs(groups: list[Group], problems: list[str]) -> list[list[Group]]:
    """Groups by the point they belong to, which comes first."""
    starts = [i for i, group in enumerate(groups) if group.word == POINT]
    if lost := (starts[0] if starts else len(groups)):
        problems.append(f"{lost} groups before the first point: {' '.join(g.word for g in groups[: min(lost, 8)])}")
    return [groups[a:b] for a, b in pairwise([*starts, len(groups)])]
