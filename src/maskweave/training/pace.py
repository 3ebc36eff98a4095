"""What a training run does per second: samples, tokens and FLOPs; how long it waits for data; its memory, and how full its budgets are."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import torch
from torch import nn

from maskweave import system
from maskweave.nn.costs import training_costs
from maskweave.training.distributed import DistContext
from maskweave.training.hardware import peak_flops
from maskweave.training.updates import SAMPLES, Update, has_targets

MOST_ROWS = 4096
"""Of the matrix product with which the peak is measured."""


class Pace:
    """Sums over the updates since the last `metrics`.

    FLOPs are counted on the first batch of each start, for objectives that count tokens.
    """

    def __init__(self, objective: nn.Module, ranks: DistContext, precision: str):
        self._objective, self._ranks, self._precision = objective, ranks, precision
        self._budgets: Mapping[str, int] = getattr(objective, "budgets", {})
        self._sums: dict[str, float] = defaultdict(float)
        self._waited = 0.0
        self.is_counted = not (ranks.is_main and hasattr(objective, "count"))
        """Whether `count` has nothing to do any more."""
        self._share_per_sample = 0.0  # of a second at the peak; 0: unknown

    def count(self, update: Update) -> None:
        """Counts the FLOPs of the first batch with targets, if it has one, and gets the peak."""
        for batch, counts in zip(update.batches, update.counts, strict=True):
            if has_targets(counts):
                self.is_counted = True
                try:
                    flops = training_costs(self._objective, batch, counts).flops
                except (NotImplementedError, RuntimeError):  # the meta device does not have all of torch
                    return
                tokens = sum(n for name, n in counts.items() if name.startswith(("inputs/", "targets/")))
                shape = (max(1, min(tokens, MOST_ROWS)), *largest_product(self._objective))
                self._share_per_sample = flops / len(batch) / peak_flops(self._ranks.device, self._precision, shape)
                return

    def add(self, update: Update) -> None:
        for name, number in update.totals.items():
            side = name.partition("/")[0]
            if name == SAMPLES or side in ("inputs", "targets"):
                self._sums[side] += number

    def metrics(self, seconds: float, waited: float) -> dict[str, float]:
        """Returns the metrics of the time since the last call.

        Args:
            seconds: that time, without pauses.
            waited: seconds that this process waited for batches since the training started.
        """
        samples, tokens = self._sums[SAMPLES], self._sums["inputs"] + self._sums["targets"]
        line = {"samples_per_second": samples / seconds}
        if tokens:
            line["tokens_per_second"] = tokens / seconds
        if self._share_per_sample:
            line["share_of_peak"] = samples / seconds / self._ranks.world * self._share_per_sample
        line |= {f"fill/{side}": self._sums[side] / (samples * most) for side, most in self._budgets.items() if samples}
        line["seconds_waiting_for_data"] = waited - self._waited
        line["memory_gib"] = peak_memory(self._ranks.device) / 2**30
        self._sums, self._waited = defaultdict(float), waited
        return line


def largest_product(module: nn.Module) -> tuple[int, int]:
    """Returns the inputs and outputs of the linear layers that have the most weights together."""
    sizes: Counter[tuple[int, int]] = Counter()
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            sizes[layer.in_features, layer.out_features] += layer.weight.numel()
    return sizes.most_common(1)[0][0] if sizes else (256, 256)


def peak_memory(device: torch.device) -> int:
    """Returns the most bytes that this process has used: of the GPU's memory, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return system.peak_memory()
