"""Predicted items, such as boxes and masks, matched with the true ones that they overlap, and scores of the matches.

Panoptic quality: Kirillov et al., https://arxiv.org/abs/1801.00868, section 4.1. Shapes: F found items, T true items, K classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from maskweave.values.average_precision import Items
from maskweave.values.metrics import Metric, f1_of_labels

Overlaps = Callable[[Items, Items], np.ndarray]
"""Returns the (F, T) intersections over union of two lists of items."""
PANOPTIC = 0.5
"""Overlap that a match must exceed for the panoptic quality."""


def matched(found: Items, true: Items, overlaps: Overlaps, least: float) -> list[tuple[str, float]]:
    """Returns the class and overlap of each match: pairs of one class are matched from the largest overlap down to `least`."""
    overlap_FT = overlaps(found, true)
    is_same_FT = np.array(class_names(found))[:, None] == np.array(class_names(true))
    rows, columns = np.nonzero(is_same_FT & (overlap_FT >= least))
    pairs: list[tuple[str, float]] = []
    free_F, free_T = np.ones(len(found), bool), np.ones(len(true), bool)
    for k in np.argsort(-overlap_FT[rows, columns], kind="stable"):
        row, column = int(rows[k]), int(columns[k])
        if free_F[row] and free_T[column]:
            free_F[row] = free_T[column] = False
            pairs.append((found[row]["class"], float(overlap_FT[row, column])))
    return pairs


def class_names(items: Items) -> list[str]:
    """Returns the class of each item."""
    return [item["class"] for item in items]


def matched_counts(found: Items, true: Items, overlaps: Overlaps, least: float) -> np.ndarray:
    """(true positives, false positives, false negatives) of items."""
    right = len(matched(found, true, overlaps, least))
    return np.array([right, len(found) - right, len(true) - right])


def matched_f1(name: str, overlaps: Overlaps, least: float, typical: Callable[[Items], Items]) -> Metric:
    """F1 over the whole set of items that are right if they overlap a true one of their class by `least` or more.

    Args:
        typical: returns items of which some are the best constant, from all training items; at most one for each class.
    """
    statistics = partial(matched_counts, overlaps=overlaps, least=least)
    return Metric(name, "higher", statistics, f1_of_labels, partial(best_items, statistics=statistics, typical=typical))


def best_items(
    values: Sequence[Items], statistics: Callable[..., np.ndarray], typical: Callable[[Items], Items]
) -> list[Any]:
    """Returns those of the typical items that have the highest F1 together."""
    items = _all(values)
    candidates = typical(items)
    found = [by_class(value) for value in values]
    right = np.array(
        [sum(int(statistics([c], by[c["class"]])[0]) for by in found if c["class"] in by) for c in candidates]
    )
    order = np.argsort(-right, kind="stable")
    scores = 2 * np.cumsum(right[order]) / (len(values) * np.arange(1, len(order) + 1) + len(items))
    return [candidates[k] for k in order[: int(np.argmax(scores)) + 1]] if candidates else []


def _all(values: Sequence[Items]) -> list[Mapping[str, Any]]:
    return [item for value in values for item in value]


def by_class(items: Items) -> dict[str, list[Mapping[str, Any]]]:
    """Returns the items of each class that occurs, classes in alphabetical order."""
    return {name: [item for item in items if item["class"] == name] for name in sorted(set(class_names(items)))}


def panoptic_quality(overlaps: Overlaps, classes: Sequence[str], typical: Callable[[Items], Items]) -> Metric:
    """Panoptic quality: the mean over the classes of the summed overlaps of matches / (matches + half of the items without a match).

    Args:
        typical: returns the best constant from all training items; at most one item for each class. As the classes count alone, none harms another.
    """
    least = float(np.nextafter(PANOPTIC, 1))
    statistics = partial(panoptic_sums, overlaps=overlaps, least=least, classes=tuple(classes))
    return Metric("PQ", "higher", statistics, mean_quality, lambda values: list(typical(_all(values))))


def panoptic_sums(found: Items, true: Items, overlaps: Overlaps, least: float, classes: Sequence[str]) -> np.ndarray:
    """(2, K): summed overlaps of the matches of each class, and half the number of its found and true items, matched ones included."""
    sums = np.zeros((2, len(classes)))
    place = {name: k for k, name in enumerate(classes)}
    for name, overlap in matched(found, true, overlaps, least):
        sums[0, place[name]] += overlap
    for name in [*class_names(found), *class_names(true)]:
        sums[1, place[name]] += 0.5
    return sums


def mean_quality(sums: np.ndarray) -> float:
    """Mean over the classes that occur; NaN if none does."""
    occurs = sums[1] > 0
    return float(np.mean(sums[0, occurs] / sums[1, occurs])) if occurs.any() else math.nan
