"""Classifier-free guidance with any number of weighted conditions: u + Σ s (c - u). It combines logits, independently of the decoding scheme.

Papers: classifier-free guidance (https://arxiv.org/abs/2207.12598), several conditions (https://arxiv.org/abs/2206.01714), as in 4M.
"""

from collections.abc import Iterable
from typing import NamedTuple

from maskweave.generate.schedule import Step


class Pass(NamedTuple):
    """One prediction of the model for every sample."""

    weight: float
    """Weight of its logits; the weights of a step's passes add up to 1."""
    sees: frozenset[str]
    """Modalities that are its inputs. Every pass also sees the modality being generated."""


def passes(step: Step, names: Iterable[str]) -> list[Pass]:
    """Returns the passes of the model that a step needs.

    Args:
        names: all known modalities, including the step's target.
    """
    conditions = [frozenset(c.modalities) - {step.target} for c in step.guidance]
    without = frozenset(names) - frozenset().union(*conditions)
    weights = {without: 1 - sum(c.weight for c in step.guidance)}
    for modalities, condition in zip(conditions, step.guidance, strict=True):
        sees = without | (modalities & frozenset(names))
        weights[sees] = weights.get(sees, 0.0) + condition.weight
    return [Pass(weight, sees) for sees, weight in weights.items() if weight]
