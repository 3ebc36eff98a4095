"""Shared checks of values that are lists of items: items, classes, boxes, numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.values.base import refuse

BOX_SLACK = 1e-3
"""Coordinates at most this far outside 0 to 1 are rounding errors and are clipped."""
LARGEST = 1e15
MAX_BINS = 2**16
MAX_ITEMS = 10_000
"""Items of one value. The busiest pictures of public data sets have some hundreds."""
COORDINATES = "coordinates 0 to 1 from the top left"

FIRST = "first"
"""Label of a list of items: the class of the first item."""


def first_class(value: Sequence[dict[str, Any]]) -> str:
    """Returns the class of the first item.

    Raises:
        BadSample: the list is empty.
    """
    if not value:
        raise BadSample("the list is empty, so there is no first class")
    return value[0]["class"]


def is_number(value: Any) -> bool:
    """Whether a value, from JSON for instance, is a finite number of reasonable size."""
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return plain and bool(-LARGEST < value < LARGEST)


def check_items(value: Any, where: str, names: tuple[str, ...], layout: str) -> Sequence[dict[str, Any]]:
    """Check for a list of mappings that have at least these keys."""
    if not isinstance(value, (list, tuple)):
        raise refuse(where, shown(value), f"a list, each {layout}")
    if len(value) > MAX_ITEMS:
        raise refuse(where, f"{len(value):,} items", f"at most {MAX_ITEMS:,}")
    for i, item in enumerate(value):
        if not isinstance(item, dict) or any(name not in item for name in names):
            raise refuse(where, f"item {i}: {shown(item)}", layout)
    return value


def check_class(item: dict[str, Any], i: int, classes: Sequence[str], where: str) -> str:
    """Returns the item's class, which must be one of the entry's."""
    name = item["class"]
    if not isinstance(name, str) or name not in classes:
        some = f"{', '.join(classes[:8])}{', …' * (len(classes) > 8)}"
        raise refuse(where, f"item {i} of class {shown(name)}", f"one of the entry's {len(classes)}: {some}")
    return name


def check_box(box: Any, what: str, layout: str, where: str) -> list[float]:
    """Returns the coordinates xmin, ymin, xmax, ymax, clipped to 0 to 1."""
    c = check_numbers(box, 4, (0, 1), f"{what} {shown(box)}", layout, where)
    if c[0] > c[2] or c[1] > c[3]:
        raise refuse(where, f"{what} {shown(box)}", layout, "give the smaller coordinate first")
    return c


def check_numbers(
    value: Any, count: int, limits: tuple[float, float] | None, what: str, layout: str, where: str
) -> list[float]:
    """Returns a list of `count` numbers; numbers outside the limits by no more than `BOX_SLACK` are clipped."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or len(value) != count or not all(map(is_number, value)):
        raise refuse(where, what, layout)
    if limits is None:
        return [float(x) for x in value]
    low, high = limits
    if min(value) < low - BOX_SLACK or max(value) > high + BOX_SLACK:
        raise refuse(where, what, layout, "if these are pixels, divide them by the picture's width and height")
    return [min(max(float(x), low), high) for x in value]


def check_bins(bins: int) -> None:
    """Raise MaskweaveError if an entry's number of bins is invalid."""
    if not 2 <= bins <= MAX_BINS:
        raise MaskweaveError(f"value.bins must be 2 to {MAX_BINS:,}, found {bins}")


def check_max_items(max_items: int) -> None:
    if max_items < 0:
        raise MaskweaveError(f"value.max_items must be 0 (as many as fit) or more, found {max_items}")


def overlapping_once(pool: Sequence[Any], overlaps: np.ndarray, least: float) -> list[Any]:
    """Merge the items of several predictions: the first of each group of overlapping items is kept, the largest group first.

    Args:
        pool: items of all predictions.
        overlaps: (n, n) intersection over union of each pair.
        least: two items of one class with at least this overlap are the same item.
    """
    names = np.array([item["class"] for item in pool])
    same = (overlaps >= least) & (names[:, None] == names)
    free, kept = np.ones(len(pool), bool), []
    for i in np.argsort(-same.sum(axis=1), kind="stable"):
        if free[i]:
            kept.append(pool[i])
            free &= ~same[i]
    return kept
