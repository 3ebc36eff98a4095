"""A batch that a process computes for nothing, so that it calls a sharded module as often as the others: each call gathers parameters from all."""

from typing import Any

import torch
from torch import Tensor, nn

from maskweave.data.order import Batches
from maskweave.training.updates import count, has_targets


class Spare:
    """Keeps a batch with targets.

    Args:
        objective: counts the targets of a batch.
    """

    def __init__(self, objective: nn.Module):
        self._objective = objective
        self._batch: Any = None

    def note(self, batch: Any) -> None:
        """Takes a batch with targets and a finite loss: not even zero times another loss has a finite gradient."""
        self._batch = batch

    def loss(self, module: nn.Module, batches: Batches, numbers: range, device: torch.device) -> Tensor:
        """Returns the loss of the batch, computed by `module`.

        Args:
            batches, numbers: where to look for a batch with targets if none was noted; one of these has some.
        """
        batch = self._batch
        if batch is None:
            batch = next(b for b in map(batches.__getitem__, numbers) if has_targets(count(b, self._objective)))
        totals = [count(batch, self._objective)] if hasattr(self._objective, "count") else []
        loss, _ = module(batch.to(device), *totals)
        return loss
