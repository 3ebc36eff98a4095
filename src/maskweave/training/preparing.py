"""What a training step consists of, built from an objective, its batches and the settings, for a training and for measuring its speed."""

import contextlib
import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from maskweave.data.order import Batches
from maskweave.nn.cpu import has_bf16_instructions, keep_freed_memory, this_processor
from maskweave.training.checkpoints import State
from maskweave.training.distributed import DistContext
from maskweave.training.loading import with_static_shapes
from maskweave.training.memory import Needs, ParallelPlan, choose_plan, needs_of
from maskweave.training.optimizer import Average, build_optimizer
from maskweave.training.parallel import devices_of, shard
from maskweave.training.settings import TrainSettings
from maskweave.training.skipped import WITHOUT_TARGETS
from maskweave.training.updates import count, has_targets


class Prepared(NamedTuple):
    """A training before its first step."""

    state: State
    """With settings in which `precision` and `static_shapes` are decided."""
    batches: Batches
    plan: ParallelPlan
    news: list[str]
    """What was decided, for the user."""


def prepare(objective: nn.Module, batches: Batches, settings: TrainSettings, ranks: DistContext) -> Prepared:
    """Puts `objective`, in training mode, on the device, or divides it among the processes, and builds its optimizer and average. All processes must call it."""
    if ranks.device.type == "cpu":
        keep_freed_memory()
    news = []
    if settings.precision == "auto":
        settings = with_precision(settings, ranks.device)
        news.append(f"precision is {settings.precision} on this device")
    can_be_static = hasattr(batches, "static")
    if settings.static_shapes and not can_be_static:
        news.append("static_shapes changes nothing here: only batches of a 4M model can be padded")
    wanted = (
        settings.compile or ranks.device.type == "cuda" if settings.static_shapes is None else settings.static_shapes
    )
    settings = replace(settings, static_shapes=wanted and can_be_static)
    if settings.static_shapes:
        batches = with_static_shapes(batches)
    memory, per_machine = devices_of(ranks, settings.parallel)
    is_open = settings.activation_checkpointing == "auto" or (ranks.world > 1 and settings.parallel == "auto")
    depends = is_open and memory < math.inf
    objective.train()
    needs = _needs(objective, batches, settings) if depends else None
    plan = choose_plan(needs, settings, memory, ranks.world, per_machine)
    if depends:
        unknown = ", because its memory could not be estimated" if needs is None else ""
        news.append(f"parallel is {plan.parallel}, activation_checkpointing is {plan.checkpointing}{unknown}")
    trained = objective.to(ranks.device) if plan.shards == 1 else shard(objective, ranks, plan.shards, settings)
    optimizer, names = build_optimizer(trained, settings)
    average = Average(trained, settings.ema) if settings.ema else None
    return Prepared(State(trained, optimizer, names, average, settings, ranks), batches, plan, news)


def _needs(objective: nn.Module, batches: Batches, settings: TrainSettings) -> Needs | None:
    """Counts the memory with the first batch that has targets; the same in all processes. None: it cannot be counted."""
    first = map(batches.__getitem__, range(WITHOUT_TARGETS))
    batch = next((one for one in first if has_targets(count(one, objective))), None)
    if batch is None:
        return None
    counts = [count(batch, objective)] if hasattr(objective, "count") else []
    with contextlib.suppress(NotImplementedError, RuntimeError):  # the meta device does not have all of torch
        return needs_of(objective, batch, settings, *counts)
    return None


def with_precision(settings: TrainSettings, device: torch.device) -> TrainSettings:
    """Returns the settings with the precision that `auto` means on this device."""
    if settings.precision != "auto":
        return settings
    fast = device.type == "cuda" or (device.type == "cpu" and has_bf16_instructions(this_processor()))
    return replace(settings, precision="bf16" if fast else "float32")
