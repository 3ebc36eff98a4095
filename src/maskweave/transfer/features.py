"""Features of a data set, computed by the launched processes together."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from maskweave.data.error_budget import ErrorBudget
from maskweave.data.source import Source
from maskweave.generate.features import EncodedBatch, FeatureExtractor
from maskweave.ranks import own_part
from maskweave.training.gathering import Gathered, gather

NUMBERS = "numbers"


def gathered_features(
    features: FeatureExtractor,
    source: Source,
    rows_of: Callable[[EncodedBatch], Mapping[str, Tensor]],
    limit: float = 0.01,
    **options: Any,
) -> dict[str, Tensor] | None:
    """Returns tensors of all usable samples, in their order, on the CPU: their indices, `NUMBERS`, and what `rows_of` returns for each batch; empty if no sample
    is usable. None in all launched processes but the first one.

    Args:
        rows_of: returns tensors with a row for each sample of the batch.
        limit: highest allowed share of unusable samples.
        options: as in `FeatureExtractor.stream`.

    Raises:
        MaskweaveError: too many samples are unusable.
    """
    skips, parts = ErrorBudget(limit), list[dict[str, Tensor]]()
    for batch in features.stream(source, part=own_part(), skips=skips, **options):
        parts.append({NUMBERS: torch.tensor(batch.numbers), **rows_of(batch)})
    mine = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
    device = next(features.encoder.parameters()).device
    gathered = gather(device, skips.record(), mine)
    if not gathered:
        return None
    check_skips(skips, gathered)
    return in_order(gathered)


def check_skips(skips: ErrorBudget, gathered: list[Gathered]) -> None:
    """Adds the unusable samples of the other processes, whose facts are their records, and tells and checks them.

    Raises:
        MaskweaveError: too many samples are unusable.
    """
    for other in gathered[1:]:
        skips.add(other.facts)
    if skips.summary():
        print(skips.summary(), file=sys.stderr)
    skips.check(finished=True)


def in_order(gathered: list[Gathered]) -> dict[str, Tensor]:
    """Returns the tensors of all processes with their rows in the order of `NUMBERS`."""
    found = [part.tensors for part in gathered if part.tensors]
    together = {name: torch.cat([tensors[name] for tensors in found]) for name in (found[0] if found else ())}
    order = together[NUMBERS].argsort() if together else torch.zeros(0, dtype=torch.int64)
    return {name: tensor[order] for name, tensor in together.items()}
