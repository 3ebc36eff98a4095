"""Validation: the loss of all held-out samples together, as if they were one update."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from maskweave.data.order import SizedBatches
from maskweave.errors import MaskweaveError
from maskweave.training.checkpoints import State
from maskweave.training.loading import load
from maskweave.training.metrics import Meter
from maskweave.training.one_copy import to_device
from maskweave.training.parallel import drop_gathered, is_sharded
from maskweave.training.skipped import MORE_TARGETS
from maskweave.training.spare import Spare
from maskweave.training.stepping import precision
from maskweave.training.updates import count, has_targets, metric_weights, targets_of


class Validation:
    """Computes metrics of the held-out samples, split over the processes.

    Args:
        batches: the same in every pass.
    """

    def __init__(self, state: State, batches: SizedBatches):
        self.state, self.batches = state, batches
        self._spare = Spare(state.objective)
        self._most = math.ceil(len(batches) / state.ranks.world)
        """Largest number of batches with targets that a process has; known when they are counted."""
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
        self._swap()
        state.objective.eval()
        try:
            devices = [state.ranks.device] if state.ranks.device.type == "cuda" else []
            # Not in inference mode, which gathered parameters of a sharded model would stay in.
            with torch.random.fork_rng(devices), torch.no_grad(), precision(state):
                torch.manual_seed(state.settings.seed)
                computed = 0
                for batch in self._load():
                    counts = count(batch, state.objective)
                    if has_targets(counts):
                        self._spare.note(batch)
                        self._add(meter, batch, counts, totals)
                        computed += 1
                self._keep_up(computed, totals)
        finally:
            state.objective.train()
            self._swap()
        if "loss" not in (means := meter.means(state.ranks)):
            raise MaskweaveError(f"no held-out sample has targets, so there is no validation loss: {MORE_TARGETS}")
        return means

    def _swap(self) -> None:
        drop_gathered(self.state.objective)
        if self.state.average is not None:
            self.state.average.swap()

    def _keep_up(self, computed: int, totals: dict[str, float] | None) -> None:
        """Lets a process that has computed fewer batches gather the parameters of a sharded model as often as the others."""
        if not is_sharded(self.state.objective) or (totals is not None and not has_targets(totals)):
            return
        device = self.state.ranks.device
        for _ in range(computed, self._most):
            self._spare.loss(self.state.objective, self.batches, range(len(self.batches)), device)

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
            # Once; a process may have no batch.
            numbers, everyone = zip(*self.state.ranks.gather([sum(map(has_targets, counts)), mine]), strict=True)
            self._most = max(numbers)
            self._totals = {name: float(sum(one.get(name, 0) for one in everyone)) for one in everyone for name in one}
        return self._totals

    def _load(self) -> Iterator[Any]:
        ranks = self.state.ranks
        numbers = range(ranks.rank, len(self.batches), ranks.world)
        return load(self.batches, numbers, self.state.settings.workers, ranks)
