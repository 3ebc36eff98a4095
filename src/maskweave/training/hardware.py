"""The hardware: threads, compilation, how fast it multiplies matrices, and its memory."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from maskweave.errors import MaskweaveError
from maskweave.nn.linear_cross_entropy import Head
from maskweave.training.blocks import blocks_of


class Gpu(NamedTuple):
    """Dense peak rates in FLOP/s, without sparsity, and memory in bytes, from the data sheets."""

    bf16: float
    float32: float
    memory: float

    def peak(self, precision: str) -> float:
        return self.bf16 if precision == "bf16" else self.float32


GPUS = {
    "b200": Gpu(2250e12, 75e12, 180e9),
    "h200": Gpu(989e12, 67e12, 141e9),
    "h100-pcie": Gpu(756e12, 51e12, 80e9),
    "h100": Gpu(989e12, 67e12, 80e9),
    "a100": Gpu(312e12, 19.5e12, 80e9),
    "l40s": Gpu(362e12, 91.6e12, 48e9),
    "a10": Gpu(125e12, 31.2e12, 24e9),
    "l4": Gpu(121e12, 30.3e12, 24e9),
    "rtx-4090": Gpu(165e12, 82.6e12, 24e9),
    "rtx-3090": Gpu(71e12, 35.6e12, 24e9),
}
"""By name; a card's own name contains all words of one, the first of which counts."""
MEASURED_SECONDS = 0.1


def gpu_named(name: str) -> Gpu:
    """Returns the entry of a GPU.

    Raises:
        MaskweaveError: it is not in the table.
    """
    if name.lower() not in GPUS:
        raise MaskweaveError(f"unknown GPU {name!r}; known: {', '.join(GPUS)}")
    return GPUS[name.lower()]


def gpu_of(card: str) -> Gpu | None:
    """Returns the entry of the card with this name, such as "NVIDIA H100 80GB HBM3"; None if it is not in the table."""
    words = card.lower().replace("-", " ").split()
    return next((gpu for name, gpu in GPUS.items() if all(word in words for word in name.split("-"))), None)


def peak_flops(device: torch.device, precision: str, shape: tuple[int, int, int]) -> float:
    """Returns the peak rate of matrix products in FLOP/s: of a GPU by table, otherwise as measured now.

    Args:
        shape: rows, inner size and columns of the measured product.
    """
    known = gpu_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return known.peak(precision) if known is not None else _measured(device, precision, shape)


def _measured(device: torch.device, precision: str, shape: tuple[int, int, int]) -> float:
    """The best of several products, because other jobs only slow them down."""
    rows, inner, columns = shape
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.zeros(rows, inner, dtype=dtype, device=device), torch.zeros(inner, columns, dtype=dtype, device=device)
    fastest, until = float("inf"), time.perf_counter() + MEASURED_SECONDS
    for attempt in range(1000):
        began = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began) if attempt else fastest  # the first one also prepares
        if attempt and time.perf_counter() > until:
            break
    return 2 * rows * inner * columns / fastest


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Context in which torch computes with `number` threads; 0: as many as before."""
    before = torch.get_num_threads()
    try:
        if number:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


def compile_blocks(objective: nn.Module, **options: Any) -> None:
    """Compiles the blocks of `objective`, and on a GPU the losses of its heads, with torch.compile, each at its first call.

    The code around them uses lists whose lengths differ between batches, so compiling it would cause constant recompilation.

    Args:
        options: of torch.compile. With static shapes, use `dynamic=False`.
    """
    heads = [m for m in objective.modules() if isinstance(m, Head) and m.weight.device.type == "cuda"]
    for part in (*blocks_of(objective), *heads):
        part.compile(**options)


def memory_of(device: torch.device) -> float:
    """Returns the bytes of a GPU's memory; infinity for a CPU, whose memory the processes of a machine share."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else math.inf
