"""Several processes, one training: data parallelism as torchrun starts it. Nothing here happens in a single process.

Rank r of world w takes batches r, r + w, r + 2w …; gradients are averaged; rank 0 writes the files.
"""

import atexit
import functools
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskweave.errors import MaskweaveError


@dataclass(frozen=True)
class DistContext:
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device
    control: Any = None
    """Group for small messages through main memory, so that none of them waits for a GPU."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, objective: nn.Module) -> nn.Module:
        """What to call in training in place of the objective: gradients come out averaged over the processes."""
        if self.world == 1:
            return objective
        ids = [self.device.index] if self.device.type == "cuda" else None
        # A batch need not hold every modality, so not every parameter takes part in every step.
        return DistributedDataParallel(_Detached(objective), device_ids=ids, find_unused_parameters=True)

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """While open, gradients stay in this process: more batches follow before the update."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def gather(self, value: Any) -> list[Any]:
        """The small `value`s of all processes by rank. All must call it."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says yes. All must call it."""
        if self.world == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.control)
        return bool(votes)


class _Detached(nn.Module):
    """The objective with metrics that lead no gradient, else DDP waits for gradients that never come."""

    def __init__(self, objective: nn.Module):
        super().__init__()
        self.objective = objective

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.objective(batch)
        return loss, {name: value.detach() for name, value in metrics.items()}


def connect(device: str = "auto") -> DistContext:
    """Join the other processes if torchrun started this one, and choose this process's device.

    Args:
        device: auto, cpu or cuda.

    Raises:
        MaskweaveError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MaskweaveError("device is cuda, but torch finds no CUDA device here; use device: auto or cpu")
    cuda = device != "cpu" and torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return DistContext(0, 1, torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu"))
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
    control = _join("nccl" if cuda else "gloo")
    return DistContext(dist.get_rank(), dist.get_world_size(), chosen, control)


@functools.cache
def _join(backend: str) -> Any:
    """Once for each process: trainings that follow one another share the group."""
    if not dist.is_initialized():
        dist.init_process_group(backend)
        atexit.register(leave)
    return dist.new_group(backend="gloo")


def leave() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _join.cache_clear()


def is_main_process() -> bool:
    """Whether this process is the one that writes files; for what is done before and after training."""
    return int(os.environ.get("RANK", "0")) == 0
