"""Validation: the loss of all held-out samples together, as if they were one update."""

from collections.abc import Iterator
from typing import Any

import torch

from maskweave.data.order import SizedBatches
from maskweave.errors import MaskweaveError
from maskweave.training.checkpoints import State
from maskweave.training.loading import load
from maskweave.training.metrics import Meter
from maskweave.training.one_copy import to_device
from maskweave.training.skipped import MORE_TARGETS
from maskweave.training.stepping import precision
from maskweave.training.updates import count, has_targets, metric_weights, targets_of


class Validation:
    """Computes metrics of the held-out samples, split over the processes.

    Args:
        batches: the same in every pass.
    """

    def __init__(self, state: State, batches: SizedBatches):
        self.state, self.batches = state, batches
        self._totals: dict[str, float] = {}
        """What the objective counts, over all batches; computed by the first validation."""

    def __call__(self) -> dict[str, float]:
        """Returns the means of all metrics, computed with the averaged weights if `settings.ema` is on.

        Every validation uses the same random numbers, so results are comparable. The random state of training is unchanged.

        Raises:
            MaskweaveError: no batch has targets.
        """
        state, meter = self.state, Meter()
        totals = self._count() if hasattr(state.objective, "count") else None
        if state.average is not None:
            state.average.swap()
        state.objective.eval()
        try:
            devices = [state.ranks.device] if state.ranks.device.type == "cuda" else []
            with torch.random.fork_rng(devices), torch.inference_mode(), precision(state):
                torch.manual_seed(state.settings.seed)
                for batch in self._load():
                    counts = count(batch, state.objective)
                    if has_targets(counts):
                        self._add(meter, batch, counts, totals)
        finally:
            state.objective.train()
            if state.average is not None:
                state.average.swap()
        if "loss" not in (means := meter.means(state.ranks)):
            raise MaskweaveError(f"no held-out sample has targets, so there is no validation loss: {MORE_TARGETS}")
        return means

    def _add(self, meter: Meter, batch: Any, counts: dict[str, int], totals: dict[str, float] | None) -> None:
        weight, batch = targets_of(counts), to_device(batch, self.state.ranks.device)
        if totals is None:
            loss, metrics = self.state.objective(batch)
        else:
            weight /= targets_of(totals)
            share, metrics = self.state.objective(batch, totals)
            loss = share / weight  # so that the weighted mean is the sum of the shares
        meter.add({"loss": loss, **metrics}, {"loss": weight, **metric_weights(metrics, counts)})

    def _count(self) -> dict[str, float]:
        if not self._totals:
            counts = [count(batch, self.state.objective) for batch in self._load()]
            names = list(counts[0]) if counts else []
            mine = {name: sum(one[name] for one in counts) for name in names}
            everyone = self.state.ranks.gather(mine)  # once; a process may have no batch
            self._totals = {name: float(sum(one.get(name, 0) for one in everyone)) for one in everyone for name in one}
        return self._totals

    def _load(self) -> Iterator[Any]:
        ranks = self.state.ranks
        numbers = range(ranks.rank, len(self.batches), ranks.world)
        return load(self.batches, numbers, self.state.settings.workers, ranks)
