"""Metrics of texts by their characters."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from maskweave.values.metrics import Metric, mean

MOST_MEDIAN = 100
"""Most different texts among which the best constant is searched."""


def text_metrics() -> dict[str, Metric]:
    """Returns `exact`, the share of texts that are the truth, and `edit_distance`, the characters to insert, delete or replace for each character of the truth
    (the character error rate)."""
    return {
        "exact": Metric("exact match", "higher", lambda p, t: np.array([float(p == t), 1.0]), mean, commonest),
        "edit_distance": Metric("edit distance", "lower", _edits, mean, partial(median_text, most=MOST_MEDIAN)),
    }


def edit_distance(one: str, other: str) -> int:
    """Returns the fewest insertions, deletions and replacements of characters that make one text of the other (Levenshtein distance)."""
    if len(one) < len(other):
        one, other = other, one
    codes = np.array([ord(c) for c in other], np.int64)
    steps = np.arange(len(other) + 1)
    row = steps.copy()
    for number, character in enumerate(one, 1):
        # Without insertions along the row, which the running minimum adds.
        best = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(character)))
        row = np.minimum.accumulate(np.concatenate([[number], best]) - steps) + steps
    return int(row[-1])


def _edits(prediction: str, truth: str) -> np.ndarray:
    return np.array([edit_distance(prediction, truth), max(len(truth), 1)], np.float64)


def commonest(values: Sequence[str]) -> str:
    """Returns the most frequent text."""
    return Counter(values).most_common(1)[0][0]


def median_text(values: Sequence[str], most: int) -> str:
    """Returns the text with the smallest total edit distance, among the `most` most frequent ones."""
    found = Counter(values).most_common(most)
    return min((text for text, _ in found), key=lambda one: sum(n * edit_distance(one, text) for text, n in found))
