"""The batches of one update of the weights on all processes, and what they count together.

A loss is normalized over the whole update, however its samples are split over batches and processes. So the sums over which it averages must be
known before the forward pass. They are counted on the host. Several processes agree on them, and on whether to stop, once for `AHEAD` updates.

An objective says what it averages over with two methods; without them, an update's loss is the mean over its samples of the batches' losses.
`count(batch) -> dict[str, int]` returns numbers under the same names in the same order for every batch: `targets/NAME`, what is predicted, and, if it
has any, `inputs/NAME` and others; a metric is averaged by the count of its name, or of the targets of the same NAME. The objective is then called with a batch and the update's sums of these numbers, and returns the batch's share
of the update's loss: 0 for a batch without targets. `unused_parameters(totals) -> list[nn.Parameter]` returns those that an update with such
sums does not use. They get no gradient, and are not updated.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from maskweave.training.distributed import DistContext

AHEAD = 8
"""Updates that several processes prepare before they agree on their counts. Each process holds at most twice as many in memory."""
SAMPLES = "samples"


@dataclass(frozen=True)
class Update:
    """The batches of an update that this process computes."""

    batches: list[Any]
    counts: list[dict[str, int]]
    """For each batch, its number of `samples` and what the objective counts."""
    totals: dict[str, float]
    """The sums of the counts over all batches of all processes."""

    @property
    def has_targets(self) -> bool:
        """Whether anything can be learned from the update. The same on all processes."""
        return has_targets(self.totals)

    @property
    def names(self) -> list[str]:
        """Modalities of this process's batches."""
        return sorted({name for batch in self.batches for name in batch.names})


def count(batch: Any, objective: nn.Module) -> dict[str, int]:
    """Returns the number of `samples` of a batch, and what the objective counts, if it does."""
    own = getattr(objective, "count", None)
    return {SAMPLES: len(batch), **(own(batch) if own is not None else {})}


def targets_of(counts: Mapping[str, float]) -> float:
    """Returns the number of targets of all names. Objectives that do not count learn from every sample."""
    targets = [n for name, n in counts.items() if name.startswith("targets/")]
    return sum(targets) if targets else counts[SAMPLES]


def has_targets(counts: Mapping[str, float]) -> bool:
    """Whether anything can be learned from a batch or an update."""
    return targets_of(counts) > 0


def metric_weights(metrics: Iterable[str], counts: Mapping[str, int]) -> dict[str, float]:
    """Returns what each metric of a batch is the mean over: the count of its own name or the targets of its modality, else the samples."""
    return {m: counts.get(m, counts.get(f"targets/{m.partition('/')[2]}", counts[SAMPLES])) for m in metrics}


class Updates:
    """Iterator over the updates of a training run. Ends early, on all processes at once, after a stop was asked for on any of them.

    Args:
        batches: this process's batches, `accumulate` for each update.
        stop: whether this process was asked to stop.
    """

    def __init__(
        self,
        batches: Iterator[Any],
        objective: nn.Module,
        ranks: DistContext,
        accumulate: int,
        updates: int,
        stop: Callable[[], bool],
    ):
        self.stopped = False
        """Whether a stop was agreed on."""
        self.waited = 0.0
        """Seconds that this process has waited for batches."""
        self._batches, self._ranks, self._accumulate, self._left, self._stop = batches, ranks, accumulate, updates, stop
        self._objective = objective
        self._ahead = AHEAD if ranks.world > 1 else 1
        self._counted: list[tuple[list[Any], list[dict[str, int]]]] = []
        self._agreed: deque[Update] = deque()

    def __iter__(self) -> Iterator[Update]:
        return self

    def __next__(self) -> Update:
        if not self._agreed:
            self._fetch(self._ahead - len(self._counted))
            self._agree()
        if self.stopped or not self._agreed:
            raise StopIteration
        if self._ahead > 1:  # one for each that is used, so that loading and training overlap
            self._fetch(1)
        return self._agreed.popleft()

    def _fetch(self, updates: int) -> None:
        began = time.monotonic()
        for _ in range(min(updates, self._left)):
            batches = [next(self._batches) for _ in range(self._accumulate)]
            counts = [count(batch, self._objective) for batch in batches]
            self._counted.append((batches, counts))
            self._left -= 1
        self.waited += time.monotonic() - began

    def _agree(self) -> None:
        if not self._counted:
            return
        names = list(self._counted[0][1][0])
        sums = [[sum(one[name] for one in counts) for name in names] for _, counts in self._counted]
        numbers = torch.tensor([*(n for row in sums for n in row), int(self._stop())], dtype=torch.float64)
        *totals, stops = self._ranks.sum(numbers).tolist()
        self.stopped = bool(stops)
        for i, (batches, counts) in enumerate(self._counted):
            row = totals[i * len(names) : (i + 1) * len(names)]
            self._agreed.append(Update(batches, counts, dict(zip(names, row, strict=True))))
        self._counted = []
