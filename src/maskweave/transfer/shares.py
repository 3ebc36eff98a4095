"""Whether the classes of the training examples are those of the held-out ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskweave.data.reading import read
from maskweave.data.weights import scaled_together
from maskweave.transfer.data import Examples, Parts
from maskweave.values.metrics import Weights

LOOKED_AT = 500
"""Examples of each part whose labels are compared, evenly spread."""
DIFFERENCE = 0.05
"""Smallest difference of shares that is told."""
STANDARD_ERRORS = 4.0
"""Smallest difference in standard errors: random parts differ by less."""
SHOWN = 3


def differing_shares(train: Sequence[int], held_out: Sequence[int], classes: Sequence[str]) -> str:
    """Returns one line about the classes whose shares differ strongly between the parts; empty if there are none.

    Args:
        train, held_out: labels, as indices into `classes`.
    """
    if not len(train) or not len(held_out):
        return ""
    counts = [np.bincount(np.asarray(labels), minlength=len(classes)) for labels in (train, held_out)]
    shares_of = [count / count.sum() for count in counts]
    pooled = sum(counts) / (len(train) + len(held_out))
    error = np.sqrt(pooled * (1 - pooled) * (1 / len(train) + 1 / len(held_out)))
    difference = np.abs(shares_of[0] - shares_of[1])
    differing = np.flatnonzero((difference > DIFFERENCE) & (difference > STANDARD_ERRORS * error))
    if not len(differing):
        return ""
    largest = differing[np.argsort(-difference[differing], kind="stable")][:SHOWN].tolist()
    named = ", ".join(f"{classes[c]} {shares_of[0][c]:.0%} and {shares_of[1][c]:.0%}" for c in largest)
    return (
        f"the shares of {len(differing)} of {len(classes)} classes differ strongly between training and held-out examples: {named}; "
        "set data.split, or give both parts the same classes"
    )


def describe_shares(parts: Parts) -> str:
    """Like `differing_shares`, of the labels of some examples; empty if the target is not a label."""
    if parts.train.target.kind != "label":
        return ""
    train, held_out = (answers(examples, LOOKED_AT) for examples in parts)
    return differing_shares(train, held_out, parts.train.target.classes)


def answers(examples: Examples, count: int) -> list[Any]:
    """Returns the targets of at most `count` usable examples, evenly spread."""
    return weighted_answers(examples, count)[0]


def weighted_answers(examples: Examples, count: int) -> tuple[list[Any], Weights]:
    """Returns the targets of at most `count` usable examples, evenly spread, and the weights of their numbers, if they have any."""
    indices = np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int).tolist()
    if examples.target.modality is None:
        return [examples.answer(i, {}) for i in indices], None
    good = [(i, item.sample) for i, item in zip(indices, read(examples, indices), strict=True) if not item.error]
    weights = scaled_together(examples.raw_weights([sample for _, sample in good]), examples.weighted)
    return [examples.answer(i, sample) for i, sample in good], weights
