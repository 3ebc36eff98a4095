"""Data parallelism over several processes, as started by torchrun. With a single process, all of this does nothing.

Rank r of w processes takes batches r, r + w, r + 2w, …; gradients are summed; rank 0 writes the files.
"""

import atexit
import contextlib
import functools
import inspect
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskweave.errors import MaskweaveError
from maskweave.ranks import rank, world

PATIENCE = timedelta(days=7)
"""How long small messages may wait, for instance while the first process writes a checkpoint. Lost processes are noticed in other ways."""
_alone = False


@dataclass(frozen=True)
class DistContext:
    """This process's rank, number of processes and device."""

    rank: int
    world: int
    device: torch.device
    control: Any = None
    """Process group for small messages in main memory, so that they never wait for a GPU."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Returns a module to call instead of the objective in training; it averages gradients over the processes.

        Parameters without a gradient in any process get zeros if the objective has a method `unused_parameters`, and None otherwise, which takes
        a search of the graph and a message more in each step. So it is on a CPU, where a resumed run must end equal bit for bit: without the search, DDP
        regroups the gradients after the first step, and with it the order in which those of three or more processes are added. Buffers are equal at the start; after that the objective keeps them equal.
        """
        if self.world == 1:
            return objective
        declares = hasattr(objective, "unused_parameters")
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        no_buffers: dict[str, Any] = {name: False}
        return DistributedDataParallel(
            _Connected(objective) if declares else _Detached(objective),
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=not declares or self.device.type == "cpu",
            gradient_as_bucket_view=True,
            **no_buffers,
        )

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Context in which gradients are not averaged, because more batches follow before the update."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def gather(self, value: Any) -> list[Any]:
        """Returns the `value`s of all processes in rank order. All processes must call it; for small values."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def sum(self, numbers: Tensor) -> Tensor:
        """Returns the sum of `numbers`, in main memory, over all processes. All processes must call it, with equally many."""
        if self.world > 1:
            dist.all_reduce(numbers, group=self.control)
        return numbers

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process. All processes must call it."""
        return bool(self.sum(torch.tensor(int(flag))))


class _Detached(nn.Module):
    """The objective with detached metrics. Otherwise DDP would wait for gradients that never come."""

    def __init__(self, objective: nn.Module):
        super().__init__()
        self.objective = objective

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.objective(*arguments)
        return loss, {name: value.detach() for name, value in metrics.items()}


class _Connected(_Detached):
    """The objective with a loss that every parameter is connected to, so that DDP gets a gradient for each, if only an empty one."""

    def __init__(self, objective: nn.Module):
        super().__init__(objective)
        self.trained = [p for p in objective.parameters() if p.requires_grad]

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().forward(*arguments)
        return _Connect.apply(loss, *self.trained), metrics


class _Connect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (upstream[0], *[None] * ctx.parameters)


def check_device(device: str) -> None:
    """Checks that this machine has the device, auto, cpu or cuda.

    Raises:
        MaskweaveError: `device` is cuda, but CUDA is not available.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MaskweaveError("device is cuda, but torch finds no CUDA device; set device to auto or cpu")


def local_device(device: str = "auto") -> torch.device:
    """Returns the device of this process: of the GPUs of a machine, each launched process has its own.

    Args:
        device: auto (a GPU if there is one), or a device of torch.

    Raises:
        MaskweaveError: `device` is cuda, but CUDA is not available; or there are more processes than GPUs.
    """
    check_device(device)
    if device not in ("auto", "cuda"):
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if world() == 1 or "LOCAL_RANK" not in os.environ:
        return torch.device("cuda", torch.cuda.current_device())
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise MaskweaveError(
            f"process {number} of this machine has no GPU, because there are {gpus}; start {gpus} processes, or set device to cpu"
        )
    return torch.device("cuda", number)


def connect(device: str = "auto") -> DistContext:
    """Joins the process group if torchrun started this process, and selects the device.

    Args:
        device: auto, cpu or cuda.

    Raises:
        MaskweaveError: `device` is cuda, but CUDA is not available.
    """
    chosen = local_device(device)
    cuda = chosen.type == "cuda"
    if cuda:
        torch.cuda.set_device(chosen)
    if world() == 1 or _alone:
        return DistContext(0, 1, chosen)
    control = _join("nccl" if cuda else "gloo")
    return DistContext(dist.get_rank(), dist.get_world_size(), chosen, control)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Context in which a launched process, which has not joined the group yet, trains by itself."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@functools.cache
def _join(backend: str) -> Any:
    """Initializes the process group once per process; later training runs reuse it."""
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=PATIENCE if backend == "gloo" else None)
        atexit.register(leave)
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def leave() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _join.cache_clear()


def processes_of(settings_processes: int) -> int:
    """Returns the number of processes that will train together: those that torchrun started, else `train.processes`."""
    return int(os.environ.get("WORLD_SIZE", settings_processes))


def is_main_process() -> bool:
    """Whether this process writes files. For use outside of training."""
    return rank() == 0
