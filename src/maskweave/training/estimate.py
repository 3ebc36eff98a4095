"""What a recipe's training will cost, before anything is built: parameters, FLOPs, memory and time on a named GPU."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from maskweave.data.columns import Column
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.nn.costs import training_costs
from maskweave.nn.layers import count_parameters
from maskweave.training.hardware import gpu_named
from maskweave.training.memory import FITS, Needs, ParallelPlan, choose_plan, needs_of
from maskweave.training.recipe import Recipe
from maskweave.training.updates import count

SAMPLES = 8
"""Samples of the batch that is counted."""
SHARE = 0.4
"""Share of a GPU's peak that times are estimated with."""
PER_MACHINE = 8
"""GPUs of a machine, on which `hybrid` depends."""
RECOMPUTED = 4 / 3
"""FLOPs with `activation_checkpointing: full`, relative to those without: a backward pass has twice as many as a forward pass, which is computed twice.
A little too much, because what is outside of blocks is computed once."""


@dataclass(frozen=True)
class Estimate:
    """Costs of a training in which every sample has all modalities, as long as they can be."""

    parameters: int
    flops: float
    """Of a sample, forward and backward."""
    tokens: float
    """Input and target tokens of a sample."""
    needs: Needs
    """Memory, with activations for the recipe's batch."""

    @property
    def activations(self) -> float:
        """Bytes for the recipe's batch, without activation checkpointing."""
        return self.needs.activations["none"]


def estimate(recipe: Recipe, catalog: Catalog) -> Estimate:
    """Counts the costs on the meta device, without memory for the weights."""
    family, settings = recipe.family, recipe.model
    with torch.device("meta"):
        model = family.build_model(catalog, settings)
    objective = family.build_objective(model, settings, catalog).train()
    data: Any = FullSamples(catalog, SAMPLES)
    batch = family.build_batches(settings, data, SAMPLES, recipe.seed, held_out=False)[0]
    costs = training_costs(objective, batch)
    counts = count(batch, objective)
    tokens = sum(n for name, n in counts.items() if name.startswith(("inputs/", "targets/")))
    return Estimate(
        count_parameters(model), costs.flops / SAMPLES, tokens / SAMPLES, needs_of(objective, batch, recipe.train)
    )


def describe_estimate(recipe: Recipe, catalog: Catalog, gpu: str, gpus: int) -> list[str]:
    """Returns the estimate in lines of text.

    Args:
        gpu: name of a GPU.
        gpus: number of GPUs, on machines of 8 if there are more; each has a process with the recipe's batch_size.

    Raises:
        MaskweaveError: the GPU is unknown, or the number of GPUs does not fill machines of 8.
    """
    if gpus > PER_MACHINE and gpus % PER_MACHINE:
        raise MaskweaveError(
            f"--gpus is {gpus}; expected at most {PER_MACHINE}, or a multiple of {PER_MACHINE}, because machines of {PER_MACHINE} GPUs are assumed"
        )
    card, train = gpu_named(gpu), recipe.train
    try:
        costs = estimate(recipe, catalog)
    except Exception as error:  # a family of another package may do anything
        return [f"costs: not estimated, because the model cannot be built without data: {error}"]
    samples = train.batch_size * train.accumulate * gpus
    precision = "float32" if train.precision == "float32" else "bf16"
    plan = choose_plan(costs.needs, train, card.memory, gpus, min(gpus, PER_MACHINE))
    again = plan.checkpointing == "full"
    # samples per second and GPU
    rate = SHARE * card.peak(precision) / (costs.flops * (RECOMPUTED if again else 1.0))
    hours = samples * train.steps / (rate * gpus) / 3600
    lines = [
        f"model: {costs.parameters / 1e6:,.1f} M parameters; {_flops(costs.flops)} a sample of {costs.tokens:,.0f} tokens; "
        f"{_flops(costs.flops * samples)} a step of {samples:,} samples ({train.batch_size} × accumulate {train.accumulate} × {gpus} GPUs)",
        _memory_line(costs.needs, plan, recipe, precision, card.memory),
        f"{gpus} × {gpu} at {SHARE:.0%} of {card.peak(precision) / 1e12:,.0f} TFLOP/s: {rate * costs.tokens:,.0f} tokens/s and {rate:,.1f} samples/s "
        f"a GPU; {hours:,.3g} hours, {hours * gpus:,.4g} GPU hours{', with forward passes computed twice' if again else ''}",
    ]
    if costs.needs.total(plan) > FITS * card.memory:
        lines.append(_what_to_do(costs.needs, plan, recipe, gpu, card.memory))
    return lines


def _memory_line(needs: Needs, plan: ParallelPlan, recipe: Recipe, precision: str, memory: float) -> str:
    train, divided = recipe.train, f" divided among {plan.shards} GPUs" if plan.shards > 1 else ""
    optimizer = "Muon with AdamW" if train.optimizer == "muon" else "AdamW"
    return (
        f"memory of a GPU with parallel {plan.parallel} and activation_checkpointing {plan.checkpointing}: {needs.state(plan.shards) / 1e9:,.1f} GB for "
        f"weights, gradients{', average' if train.ema else ''} and {optimizer}{divided}, and about {needs.activations[plan.checkpointing] / 1e9:,.1f} GB for "
        f"activations of {train.batch_size} samples in {precision}, of {memory / 1e9:,.0f} GB"
    )


def _what_to_do(needs: Needs, plan: ParallelPlan, recipe: Recipe, gpu: str, memory: float) -> str:
    """A sentence for a training that does not fit."""
    advice, train = [], recipe.train
    if train.optimizer == "muon":
        advice.append(
            "set train.optimizer to adamw and use several GPUs, among which train.parallel auto divides the model"
        )
    elif train.parallel in ("none", "ddp"):
        advice.append("set train.parallel to auto on several GPUs")
    elif plan.parallel == "none":
        advice.append(f"use several GPUs, among which train.parallel {train.parallel} divides the model")
    if needs.state(plan.shards) > FITS * memory:
        start = f"this does not fit on {gpu} at any batch size"
        advice += [] if plan.shards == 1 else ["use more GPUs"]
        advice.append("use GPUs with more memory, or a smaller model")
    else:
        start = f"this does not fit on {gpu}"
        if plan.checkpointing != "full":
            advice.append("set train.activation_checkpointing to auto")
        advice.append("lower train.batch_size and raise train.accumulate, which changes no loss")
    return f"{start}: {'; or '.join(advice)}"


class FullSamples:
    """Token data of samples that have everything, with the interface of `TokenData`."""

    def __init__(self, catalog: Catalog, samples: int):
        self.catalog, self.counts, self.weights, self.windows = catalog, (samples,), (1.0,), (None,)

    def __len__(self) -> int:
        return self.counts[0]

    def columns(self, indices: np.ndarray) -> dict[str, Column]:
        return {name: _full(m, len(indices)) for name, m in self.catalog.items()}


def _full(m: Modality, samples: int) -> Column:
    present = np.ones(samples, bool)
    length = np.full(samples, m.tokens) if m.kind in ("sequence", "vectors") else None
    if m.has_tokens:
        return Column(present, ids=np.zeros((samples, m.tokens), np.uint16), length=length)
    dtype = np.uint8 if m.kind == "patches" else np.float16
    return Column(present, rows=np.zeros((samples, m.tokens, m.row_width), dtype), length=length)


def _flops(number: float) -> str:
    for unit, size in (("P", 1e15), ("T", 1e12)):
        if number >= size:
            return f"{number / size:,.2f} {unit}FLOP"
    return f"{number / 1e9:,.2f} GFLOP"
