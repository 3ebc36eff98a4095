"""Captions of scenes: writes them with a small grammar, which only states true facts, and parses them.

    3 objects: a small red cube, a large blue sphere and a small green cone. the red cube is left of the blue sphere.

The list is ordered from left to right. No two objects of a scene have the same color and shape, so "the red cube" is unique.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
SHAPES = ("cube", "sphere", "cylinder", "cone")
SIZES = ("small", "large")

SIDE_MARGIN = 0.1
"""Smallest distance between two centers for "left" and "right", as a fraction of the picture's width."""
DISTANCE_MARGIN = 0.7
"""Smallest difference of the distances from the camera for "in front of" and "behind", in meters."""
MOST_RELATIONS = 2

_NAMES = re.compile(rf"\b({'|'.join(COLORS)})\s+({'|'.join(SHAPES)})\b")
_LIST_END = re.compile(r"\.|\bthe\b")


@dataclass(frozen=True)
class Seen:
    """One visible object, as a caption describes it."""

    size: str
    color: str
    shape: str
    x: float
    """Center of its visible box, 0 (left) to 1 (right)."""
    distance: float
    """Distance from the camera along its axis, in meters."""

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


def caption(objects: Sequence[Seen], samples: Sequence[float]) -> str:
    """Describe visible objects.

    Args:
        objects: one or more, in any order.
        samples: random numbers in [0, 1) that choose the relations: one for their number, and at least three for each relation.
    """
    ordered = sorted(objects, key=lambda o: o.x)
    names = [f"a {o.size} {o.name}" for o in ordered]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    sentences = [f"{len(names)} object{'s' * (len(names) > 1)}: {listed}."]
    pairs = [(a, b) for k, a in enumerate(ordered) for b in ordered[k + 1 :] if _relations(a, b)]
    if pairs:
        wanted = min(1 + int(MOST_RELATIONS * samples[0]), len(pairs))
        for which, relation, turn in zip(samples[1::3], samples[2::3], samples[3::3], strict=False):
            a, b = pairs.pop(int(which * len(pairs)))
            if turn < 0.5:
                a, b = b, a
            choices = _relations(a, b)
            sentences.append(f"the {a.name} is {choices[int(relation * len(choices))]} the {b.name}.")
            if len(sentences) > wanted:
                break
    return " ".join(sentences)


def _relations(a: Seen, b: Seen) -> list[str]:
    """Returns the relations of a to b that clearly hold."""
    found = []
    if abs(a.x - b.x) >= SIDE_MARGIN:
        found.append("left of" if a.x < b.x else "right of")
    if abs(a.distance - b.distance) >= DISTANCE_MARGIN:
        found.append("in front of" if a.distance < b.distance else "behind")
    return found


def objects_in(text: str) -> Counter[str]:
    """Returns the "color shape" names in a caption's list, and how often each occurs.

    Any text is accepted, because models generate it. The list ends at the first period or the first "the".
    """
    listed = _LIST_END.split(text.lower(), maxsplit=1)[0]
    return Counter(f"{color} {shape}" for color, shape in _NAMES.findall(listed))
