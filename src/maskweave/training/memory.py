"""Memory that a training needs on each device, and how the model is spread over the processes so that it fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from maskweave.errors import MaskweaveError
from maskweave.nn.costs import BF16_SHARE, training_costs
from maskweave.nn.layers import count_parameters
from maskweave.training.blocks import blocks_of, checkpoint_activations, is_kept
from maskweave.training.muon import matrices_of_blocks
from maskweave.training.settings import TrainSettings

STATE_BYTES = 16
"""Of a parameter: weight, gradient and AdamW's two means, in float32."""
AVERAGE_BYTES = 4
GATHERED_BYTES = 8
"""Of a parameter that is gathered from all processes: weight and gradient, and the float32 gradient that is sent."""
GATHERED_BLOCKS = 2
"""Blocks that are gathered at a time: one computes, the next one is on its way."""
MUON_SAVES = 4
"""Bytes of `STATE_BYTES` that a number of a matrix does not need under Muon, which has one mean."""
FITS = 0.9
"""Share of a device's memory that an estimate may take. The rest is for libraries, buffers and fragments."""
CHECKPOINTING = ("none", "selective", "full")


@dataclass(frozen=True)
class Needs:
    """What the memory of a training consists of."""

    parameters: int
    outside: int
    """Parameters that are in no block."""
    largest_block: int
    """Its parameters."""
    has_average: bool
    activations: Mapping[str, float]
    """Bytes for a batch, by activation checkpointing."""
    by_muon: int = 0
    """Parameters that Muon updates."""
    stays_gathered: float = 0.0
    """Bytes of blocks' weights that stay gathered until the backward pass, of a model that is divided."""

    def state(self, shards: int) -> float:
        """Returns the bytes of weights, gradients, average and optimizer on a device, of a model that is divided into `shards` (1: not divided)."""
        kept = self.parameters * (STATE_BYTES + AVERAGE_BYTES * self.has_average) - MUON_SAVES * self.by_muon
        if shards == 1:
            return kept
        gathered = GATHERED_BYTES * (self.outside + GATHERED_BLOCKS * self.largest_block)
        return kept / shards + gathered + self.stays_gathered

    def total(self, plan: "ParallelPlan") -> float:
        """Returns all bytes on a device."""
        return self.state(plan.shards) + self.activations[plan.checkpointing]


class ParallelPlan(NamedTuple):
    """How a model is trained on the devices."""

    parallel: str
    """none, ddp, fsdp or hybrid."""
    shards: int
    """Processes among which parameters are divided; 1: each has all of them."""
    checkpointing: str
    """Activation checkpointing: none, selective or full."""


def needs_of(objective: nn.Module, batch: Any, settings: TrainSettings, *arguments: Any) -> Needs:
    """Counts what `objective(batch, *arguments)` needs in training, on the meta device.

    Args:
        batch: may be smaller than `settings.batch_size`; its activations are scaled up.
    """
    scale = settings.batch_size / len(batch) * (BF16_SHARE if settings.precision != "float32" else 1.0)
    activations = {}
    for mode in CHECKPOINTING:
        with checkpoint_activations(objective, mode):
            costs = training_costs(objective, batch, *arguments, keeps=is_kept if mode == "selective" else None)
        activations[mode] = costs.activations * scale
    blocks = [count_parameters(block) for block in blocks_of(objective)]
    for mode in CHECKPOINTING[1:]:  # one block at a time has all of its own again
        activations[mode] += (activations["none"] - activations[mode]) / max(1, len(blocks))
    total, largest = count_parameters(objective), max(blocks, default=0)
    matrices = matrices_of_blocks(objective) if settings.optimizer == "muon" else set()
    by_muon = sum(p.numel() for p in objective.parameters() if id(p) in matrices)
    weight_bytes = 4 if settings.precision == "float32" else 2
    stays = 0 if settings.reshard_after_forward else weight_bytes * (sum(blocks) - GATHERED_BLOCKS * largest)
    return Needs(total, total - sum(blocks), largest, settings.ema > 0, activations, by_muon, max(0, stays))


def choose_plan(
    needs: Needs | None, settings: TrainSettings, memory: float, world: int, per_machine: int
) -> ParallelPlan:
    """Returns the settings' plan. For `auto`, the first one that fits: less activation checkpointing first, then ddp, hybrid, fsdp; the smallest if
    none fits. Muon needs whole matrices, so that only ddp is possible.

    Args:
        needs: None: not known, so that everything is taken to fit.
        memory: bytes of a device.
        world: number of processes.
        per_machine: of them on each machine.

    Raises:
        MaskweaveError: `parallel` is none, but there are several processes.
    """
    kinds = [settings.parallel]
    if world == 1:
        kinds = ["none"]
    elif settings.parallel == "none":
        raise MaskweaveError(
            f"train.parallel is none, but {world} processes train together; set it to auto, ddp, fsdp or hybrid, or start one process"
        )
    elif settings.parallel == "auto":
        kinds = ["ddp"] if settings.optimizer == "muon" else ["ddp", "hybrid", "fsdp"]
    shards = {"none": 1, "ddp": 1, "hybrid": per_machine, "fsdp": world}
    modes = CHECKPOINTING if settings.activation_checkpointing == "auto" else (settings.activation_checkpointing,)
    plans = [_plain(ParallelPlan(kind, shards[kind], mode), world) for mode in modes for kind in kinds]
    if needs is None:
        return plans[0]
    fitting = (plan for plan in plans if needs.total(plan) <= FITS * memory)
    return next(fitting, min(plans, key=needs.total))


def _plain(plan: ParallelPlan, world: int) -> ParallelPlan:
    """On a single machine, hybrid is fsdp; with one process on each machine, ddp."""
    if plan.parallel != "hybrid" or 1 < plan.shards < world:
        return plan
    return plan._replace(parallel="fsdp" if plan.shards == world else "ddp")
