"""Ensembles: merges several results for one sample into one, each value by the rule of its type.

4M-21 (https://arxiv.org/abs/2406.09406) averages ten samples for its normals and merges many passes for dense instances.
"""

from collections.abc import Container, Iterable, Sequence
from numbers import Real

import numpy as np

from maskweave import limits
from maskweave.config import whole_number
from maskweave.errors import MaskweaveError, shown
from maskweave.generate.request import twin
from maskweave.generate.result import Generated
from maskweave.modality.entry import Modality

OVERLAP = 0.5
"""Minimum intersection over union at which two instances of one class are duplicates."""


def merge_results(members: Sequence[Generated], overlap: float = OVERLAP) -> Generated:
    """Merges several results of the same request into one, without tokens, and without what was thought of first if it cannot be merged, such as a text."""
    first = members[0]
    merged = Generated(first.catalog, first.inputs, schedule=first.schedule)
    for name in first.probabilities:
        shares = [member.probabilities[name] for member in members if name in member.probabilities]
        if first.catalog[name].kind == "grid" and len(shares) == len(members):
            merged.probabilities[name] = np.asarray(np.mean(np.stack(shares), axis=0), np.float32)
    for name in dict.fromkeys(name for member in members for name in member.values):
        if first.schedule and name in first.schedule.think and not first.catalog[name].value.mergeable:
            continue
        values = [member.values[name] for member in members if name in member.values]
        if len(members) > 1 and _are_equal(members, name):
            merged.equal.add(name)
        predicted = [member.distributions[name] for member in members if name in member.distributions]
        if len(predicted) == len(values):
            merged.distributions[name] = predicted[0].mixture(predicted)
            merged.values[name] = merged.distributions[name].value
        else:
            merged.values[name] = first.catalog[name].value.merge(values, overlap)
            if (spread := first.catalog[name].value.spread(values)) is not None:
                merged.spread[name] = spread
    return merged


def _are_equal(members: Sequence[Generated], name: str) -> bool:
    """Whether all members have the same tokens of a target, or the same numbers, as means of codebook vectors may be of different tokens."""
    target = twin(members[0].catalog, name)
    tokens = [member.tokens[target] for member in members if target in member.tokens]
    if len(tokens) == len(members) and all(np.array_equal(ids, tokens[0]) for ids in tokens):
        return True
    values = [member.values[name] for member in members if isinstance(member.values.get(name), np.ndarray)]
    return len(values) == len(members) and all(np.allclose(v, values[0], rtol=1e-4, equal_nan=True) for v in values)


def told_equal(name: str, count: int, of: int) -> str:
    """Returns the warning that ensembles of a target are of no use.

    Args:
        count: ensembles whose members are all equal, of `of`.
    """
    return f"{name}: in {count} of {of} ensembles, all members are equal, so merging them changes nothing; raise the temperature of its decoding, or remove ensemble"


def member_seeds(seed: int, samples: int) -> list[int]:
    """Returns the seeds of an ensemble's members, such that ensembles with consecutive seeds share no member."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(samples)]


def check_ensemble(
    targets: Iterable[Modality], tokenizers: Container[str], samples: int, overlap: float = OVERLAP
) -> None:
    """Checks before any work that an ensemble can be merged.

    Raises:
        MaskweaveError: no samples, no share as overlap, or a target without tokenizer or whose values cannot be merged.
    """
    if not isinstance(overlap, Real) or not 0 < overlap <= 1:
        raise MaskweaveError(f"overlap is {shown(overlap)}; expected a share above 0, up to 1")
    limits.check_most("samples", whole_number("samples", samples, 1), limits.ENSEMBLE)
    for modality in targets:
        check_mergeable(modality)
        if modality.name not in tokenizers:
            raise MaskweaveError(
                f"{modality.name!r}: this bundle has no tokenizer for it, so there are no values to merge; generate single samples of it"
            )


def check_mergeable(modality: Modality) -> None:
    if not modality.value.mergeable:
        raise MaskweaveError(
            f"{modality.name!r}: values of type {modality.value.type!r} cannot be merged; generate single samples of it"
        )
