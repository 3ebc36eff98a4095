"""Captions of scenes: a small grammar that says only what is true, and its reading back.

    3 objects: a small red cube, a large blue sphere and a small green cone. the red cube is left of the blue sphere.

The list runs from left to right. No two objects of a scene share color and shape, so "the red cube" is one object.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
SHAPES = ("cube", "sphere", "cylinder", "cone")
SIZES = ("small", "large")

SIDE_MARGIN = 0.1
"""Left and right are said when the middles are this far apart, as a fraction of the picture's width."""
DISTANCE_MARGIN = 0.7
"""In front and behind are said when the distances from the camera differ by this, in meters."""
MOST_RELATIONS = 2

_NAMES = re.compile(rf"\b({'|'.join(COLORS)})\s+({'|'.join(SHAPES)})\b")
_LIST_END = re.compile(r"\.|\bthe\b")
_SIDES = re.compile(r"\b(left|right)(?=(?:most|wards?|hand)?\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Seen:
    """One visible object as the caption speaks of it."""

    size: str
    color: str
    shape: str
    x: float
    """Middle of its visible box, 0 (left) to 1 (right)."""
    distance: float
    """From the camera, along its axis, in meters."""

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


def caption(objects: Sequence[Seen], draws: Sequence[float]) -> str:
    """Describe visible objects.

    Args:
        objects: one or more, in any order.
        draws: numbers from 0 to below 1, at least three for each of the two relations, which choose the relations.
    """
    ordered = sorted(objects, key=lambda o: o.x)
    names = [f"a {o.size} {o.name}" for o in ordered]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    sentences = [f"{len(names)} object{'s' * (len(names) > 1)}: {listed}."]
    pairs = [(a, b) for k, a in enumerate(ordered) for b in ordered[k + 1 :] if _relations(a, b)]
    if pairs:
        wanted = min(1 + int(MOST_RELATIONS * draws[0]), len(pairs))
        for which, relation, turn in zip(draws[1::3], draws[2::3], draws[3::3], strict=False):
            a, b = pairs.pop(int(which * len(pairs)))
            if turn < 0.5:
                a, b = b, a
            choices = _relations(a, b)
            sentences.append(f"the {a.name} is {choices[int(relation * len(choices))]} the {b.name}.")
            if len(sentences) > wanted:
                break
    return " ".join(sentences)


def _relations(a: Seen, b: Seen) -> list[str]:
    """What is clearly true of a, seen from b."""
    found = []
    if abs(a.x - b.x) >= SIDE_MARGIN:
        found.append("left of" if a.x < b.x else "right of")
    if abs(a.distance - b.distance) >= DISTANCE_MARGIN:
        found.append("in front of" if a.distance < b.distance else "behind")
    return found


def objects_in(text: str) -> Counter[str]:
    """The "color shape" names in a caption's list, with how often each is named.

    Any text is taken, for a model writes it. The list ends at the first full stop or the first "the".
    """
    listed = _LIST_END.split(text.lower(), maxsplit=1)[0]
    return Counter(f"{color} {shape}" for color, shape in _NAMES.findall(listed))


def mirror(text: str) -> str:
    """Text about a mirrored picture: left and right change places as whole words, as do leftmost, leftward and the like.

    Other meanings of "right" are not told apart. Mirroring twice gives the text back.
    """

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        other = "right" if word.lower() == "left" else "left"
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    return _SIDES.sub(swap, text)
