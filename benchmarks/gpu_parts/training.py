"""Training steps: speed by size and variant, and one process of FSDP."""

import math
import os
import socket
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from gpu_parts.bench import Bench, batches, objective
from maskweave.masking.batch import TokenBatch
from maskweave.modality.catalogs import load_catalog
from maskweave.nn.costs import training_costs
from maskweave.training.blocks import checkpoint_activations
from maskweave.training.checkpoints import State
from maskweave.training.distributed import DistContext
from maskweave.training.hardware import compile_blocks, memory_of, peak_flops
from maskweave.training.one_copy import in_one_buffer
from maskweave.training.optimizer import build_optimizer
from maskweave.training.parallel import shard
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import Stepper
from maskweave.training.updates import Update, count

SAMPLES = {"nano": 4, "Ti": 256, "B": 128, "L": 64, "XL": 16}
"""Samples of a step; twice as many on a GPU with at least `ROOMY` bytes."""
ROOMY = 130e9
TOKENS = 256
VARIANTS: dict[str, dict[str, Any]] = {
    "compiled": {"compile": True, "profiled": True},
    "compiled, but for losses": {"compile": True, "losses": False},
    "plain": {},
    "compiled, Muon": {"compile": True, "optimizer": "muon"},
    "compiled, checkpointed": {"compile": True, "checkpointed": "full"},
    "compiled, FSDP of one process": {"compile": True, "sharded": True},
    "compiled, CUDA graphs": {"compile": True, "mode": "reduce-overhead"},
}
OF_SIZE = {
    "Ti": sorted(VARIANTS, key=lambda name: name not in ("compiled", "plain", "compiled, CUDA graphs")), "B": list(VARIANTS)[:6], "L": list(VARIANTS)[:6],
    "XL": ["compiled", "compiled, checkpointed", "plain", "compiled, FSDP of one process", "compiled, Muon"],
}  # fmt: skip
NEEDED = 20.0
"""Seconds that a variant takes at least, with compilation."""


def train(bench: Bench) -> None:
    """Section train-SIZE."""
    size = bench.section.partition("-")[2]
    names = OF_SIZE[size]
    if bench.quick:
        size, names = "nano", names if bench.section == "train-B" else names[:1]
    catalog = load_catalog("4m-7" if bench.quick else "4m-21")
    samples = SAMPLES[size] * (2 if ROOMY <= memory_of(bench.device) < math.inf else 1)
    drawn = batches(catalog, samples, 32 if bench.quick else TOKENS, 2 if bench.quick else 4)
    with torch.device("meta"):
        pattern = objective(catalog, torch.device("meta"), size)
    flops = training_costs(pattern, drawn[0], count(drawn[0], pattern)).flops
    parameters = sum(p.numel() for p in pattern.parameters())
    bench.row("model", size=size, parameters=parameters, samples=samples, tflop_of_a_step=flops / 1e12)
    peak = peak_flops(bench.device, "bf16", (4096, pattern.model.config.width, 4 * pattern.model.config.width))
    for name in names:
        bench.case(name, partial(variant, bench, name, size, drawn, flops / peak, **VARIANTS[name]), NEEDED)


def variant(
    bench: Bench,
    name: str,
    size: str,
    drawn: list[TokenBatch],
    least: float,
    compile: bool = False,
    losses: bool = True,
    checkpointed: str = "",
    sharded: bool = False,
    optimizer: Any = "adamw",
    mode: str | None = None,
    profiled: bool = False,
) -> None:
    """Trains a new model and records its speed.

    Args:
        least: seconds of a step at the peak.
        profiled: also record which kernels take the time.
    """
    catalog = load_catalog("4m-7" if bench.quick else "4m-21")
    settings = TrainSettings(precision="bf16", optimizer=optimizer, learning_rate=1e-4)
    with ExitStack() as stack:
        model: Any = objective(catalog, bench.device, size)
        ranks = DistContext(0, 1, bench.device)
        if sharded:
            ranks = stack.enter_context(one_process(bench.device))
            model = shard(model, ranks, 1, settings)
        if checkpointed:
            stack.enter_context(checkpoint_activations(model, checkpointed))
        if compile and not (bench.quick and bench.device.type == "cpu"):
            torch._dynamo.reset()
            compile_blocks(model, dynamic=False, **({"mode": mode} if mode else {}))
            for head in () if losses else model.model.heads.values():
                head.compiler = None
        step = stepper(model, settings, ranks, drawn)
        updates = [update(model, batch, bench.device) for batch in drawn]
        began = time.perf_counter()
        step(updates[0])
        bench.wait()
        first = time.perf_counter() - began
        number = [0]

        def one() -> None:
            number[0] += 1
            if mode:
                torch.compiler.cudagraph_mark_step_begin()
            step(updates[number[0] % len(updates)])

        taken = bench.seconds(one, most=4.0)
        step.check()
        tokens = sum(n for u in updates for key, n in u.totals.items() if key != "samples") / len(updates)
        bench.row(
            name, ms=taken * 1e3, tokens_per_second=tokens / taken, samples_per_second=len(drawn[0]) / taken, share_of_peak=least / taken,
            first_step_s=first, peak_gib=bench.peak_gib(), loss=step.state.meter.means(ranks)["loss"],
        )  # fmt: skip
        if profiled:
            bench.profile(one)


def stepper(model: Any, settings: TrainSettings, ranks: DistContext, drawn: list[TokenBatch]) -> Stepper:
    optimizer, names = build_optimizer(model, settings)
    return Stepper(State(model, optimizer, names, None, settings, ranks), drawn)


def update(model: Any, batch: TokenBatch, device: torch.device) -> Update:
    counts = count(batch, model)
    on_host = in_one_buffer(batch, pin=device.type == "cuda")
    return Update([on_host], [counts], {name: float(n) for name, n in counts.items()})


class one_process:
    """Context with a process group of one process."""

    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> DistContext:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        device_id = torch.device("cuda", torch.cuda.current_device()) if self.device.type == "cuda" else None
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=0, world_size=1, device_id=device_id)
        return DistContext(0, 1, self.device, dist.new_group(backend="gloo"))

    def __exit__(self, *_: object) -> None:
        dist.destroy_process_group()
