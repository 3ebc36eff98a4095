"""Classifier-free guidance with any number of weighted conditions: u + Σ s (c - u). It wraps logits; schemes know nothing of it.

Papers: classifier-free guidance (https://arxiv.org/abs/2207.12598), several conditions (https://arxiv.org/abs/2206.01714), as 4M has them.
"""

from collections.abc import Iterable
from typing import NamedTuple

from maskweave.generate.schedule import Step


class Pass(NamedTuple):
    """One prediction of the model for every sample."""

    weight: float
    """Of its logits; those of a step's passes add up to 1."""
    sees: frozenset[str]
    """Modalities among its inputs. The one being generated is part of every pass."""


def passes(step: Step, names: Iterable[str]) -> list[Pass]:
    """What a step asks the model for.

    Args:
        names: all modalities that are known, the step's target among them.
    """
    conditions = [frozenset(c.modalities) - {step.target} for c in step.guidance]
    without = frozenset(names) - frozenset().union(*conditions)
    weights = {without: 1 - sum(c.weight for c in step.guidance)}
    for modalities, condition in zip(conditions, step.guidance, strict=True):
        sees = without | (modalities & frozenset(names))
        weights[sees] = weights.get(sees, 0.0) + condition.weight
    return [Pass(weight, sees) for sees, weight in weights.items() if weight]
