"""People with their poses as text-like tokens, in the format of 4M-21 (https://arxiv.org/abs/2406.09406).

Per person `human`, four `v0=` for the box, then each known part: its name and its numbers. Parts are in the entry's order, or shuffled if
an rng is given. `none` means that there are no people. People keep their order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from maskweave.values.base import Size, ValueType
from maskweave.values.codec import Bins, TextWriter
from maskweave.values.geometry import Geometry
from maskweave.values.groups import GroupedCodec, Part, check_parts, part_layout
from maskweave.values.items import check_bins, check_box, check_items, check_max_items

PERSON, NOBODY = "human", "none"


@dataclass(frozen=True)
class Poses(ValueType):
    """People, each with a box and the known parts."""

    type: ClassVar[str] = "poses"
    python: ClassVar[str] = (
        'list of people {"box": [xmin, ymin, xmax, ymax], PART: list of numbers}, with the known ones of `parts`'
    )
    kinds: ClassVar[tuple[str, ...]] = ("sequence",)
    sees_color = True
    report_facts = ("parts.*.bones",)

    parts: dict[str, Part] = field(default_factory=dict)
    """Groups of numbers by name, in the order of writing (shuffled in training)."""
    bins: int = 64
    """Bins of each number."""
    max_items: int = 0
    """Most people that are written; extra people at the end are dropped. 0: as many as fit."""

    def check_settings(self, kind: str) -> None:
        check_bins(self.bins)
        check_max_items(self.max_items)
        check_parts(self.parts, may_have_bones=True)

    def describe_range(self) -> str:
        return "0 to 1"

    def check(self, value: Any, where: str) -> list[dict[str, Any]]:
        layout = part_layout(self.parts)
        people = []
        for i, item in enumerate(check_items(value, where, ("box",), layout)):
            parts = {
                name: part.check(item[name], f"item {i}: {name}", where)
                for name, part in self.parts.items()
                if name in item
            }
            people.append({"box": check_box(item["box"], f"item {i} with box", layout, where), **parts})
        return people

    def transform(self, value: list[dict[str, Any]], geometry: Geometry) -> list[dict[str, Any]] | None:
        """Clips boxes and drops those of which too little is left. Parts are relative to the camera and stay unchanged. Returns None if people
        with parts are flipped: parts cannot be mirrored."""
        if geometry.flip and any(len(person) > 1 for person in value):
            return None
        return [{**person, "box": box} for person in value if (box := geometry.move_box(person["box"])) is not None]

    @property
    def written_words(self) -> tuple[str, ...]:
        return (PERSON, NOBODY, *self.parts)

    def codec(self, name: str, max_tokens: int, text: TextWriter) -> "PosesCodec":
        return PosesCodec(name, self, max_tokens, text)

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws numbered boxes, and the `bones` of parts that have them."""
        from maskweave.values.drawing_objects import Annotation, draw_annotations

        annotations = [
            Annotation(f"person {n}", box=person["box"], bones=self._bones(person)) for n, person in enumerate(value, 1)
        ]
        return draw_annotations(annotations, [annotation.name for annotation in annotations], size, over)

    def _bones(self, person: dict[str, Any]) -> np.ndarray:
        """Returns both ends of each bone whose joints are known, (n, 2, 2) as x, y."""
        parts = [
            np.asarray(person[name], dtype=np.float64).reshape(-1, 2)[list(part.bones)]
            for name, part in self.parts.items()
            if part.bones and name in person
        ]
        return np.concatenate(parts) if parts else np.empty((0, 2, 2))


class PosesCodec(GroupedCodec):
    """Encodes people in the order given."""

    item = "person"

    def __init__(self, name: str, value: Poses, max_tokens: int, text: TextWriter):
        super().__init__(name, value, max_tokens, text, [PERSON, NOBODY, *value.parts])
        self.require("v0", value.bins, "value.bins")
        self.bins = Bins(0, 1, value.bins)
        widths = [len(self.words[part_name]) + part.count for part_name, part in self.parts.items()]
        self.most = self.capacity(len(self.words[PERSON]) + 4 + sum(widths))

    def units(self, value: list[dict[str, Any]], rng: np.random.Generator | None) -> Iterator[list[int]]:
        if not value:
            yield self.words[NOBODY]
        for n, person in enumerate(value):
            ids = [*self.words[PERSON], *self.special(("v0", self.bins.encode(x)) for x in person["box"])]
            known = [name for name in self.parts if name in person]
            for name in known if rng is None else rng.permutation(known):
                ids += [*self.words[name], *self.write_part(person, name)]
            if n < self.most:
                yield ids

    def parse(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        people: list[dict[str, Any]] = []
        person: dict[str, Any] | None = None
        groups = self.groups(ids, problems)
        if not groups:
            problems.append(f"neither {PERSON!r} nor {NOBODY!r}")
        for word, numbers in groups:
            if word == NOBODY:
                if len(groups) > 1 or numbers:
                    problems.append(f"{NOBODY!r} together with people or numbers")
            elif word == PERSON:
                bins = [n for prefix, n in numbers if prefix == "v0" and n < self.bins.count]
                person = None
                if len(bins) != 4 or len(numbers) != 4 or bins[0] > bins[2] or bins[1] > bins[3]:
                    problems.append(f"a person without a valid box, found {_show(numbers)}; skipped")
                else:
                    person = {"box": [self.bins.centers[b] for b in bins]}
                    people.append(person)
            elif person is None:
                problems.append(f"{word!r} before the first valid person")
            elif word in person:
                problems.append(f"person {len(people) - 1} has {word!r} twice; the first is kept")
            elif (read := self.parts[word].read(numbers)) is None:
                problems.append(
                    f"{word!r} of person {len(people) - 1}: found {_show(numbers)}, expected {self.parts[word].count} numbers"
                )
            else:
                person[word] = read
        return people


def _show(numbers: list[tuple[str, int]]) -> str:
    return " ".join(f"{prefix}={n}" for prefix, n in numbers[:6]) + " …" * (len(numbers) > 6) or "nothing"
