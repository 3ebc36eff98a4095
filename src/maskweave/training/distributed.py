"""The processes of a training and how they talk. With a single process, all of this does nothing.

`maskweave.ranks` reads what the launcher says in the environment, without torch. `training.launch` lets the stages of a command wait for each
other. This file has the process group of a training: rank r of w processes takes batches r, r + w, r + 2w, …; rank 0 speaks and writes the files
that all share. How the model is spread over the processes is in `training.parallel`.

Messages between processes are tensors or JSON. Torch's own functions for objects unpickle what they receive.
"""

import atexit
import contextlib
import functools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.ranks import world

PATIENCE = timedelta(days=7)
"""How long small messages may wait, for instance while the first process writes a checkpoint. Lost processes are noticed in other ways."""
MOST_BYTES = 2**28
"""Most bytes in one message."""
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

    def gather(self, value: Any) -> list[Any]:
        """Returns the `value`s of all processes, which JSON can hold, in rank order. All processes must call it; for small values."""
        if self.world == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value), "utf-8"), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(content)]), group=self.control)
        longest = int(max(sizes))
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.world)]
        dist.all_gather(parts, F.pad(content, (0, longest - len(content))), group=self.control)
        return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def sum(self, numbers: Tensor) -> Tensor:
        """Returns the sum of `numbers`, in main memory, over all processes. All processes must call it, with equally many."""
        if self.world > 1:
            dist.all_reduce(numbers, group=self.control)
        return numbers

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process. All processes must call it."""
        return bool(self.sum(torch.tensor(int(flag))))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Gives tensors the values that they have in the first process. All processes must call it, with tensors of the same shapes."""
        for tensor in tensors if self.world > 1 else ():
            content = tensor.detach().cpu().contiguous()
            for piece in pieces(content):
                dist.broadcast(piece, 0, group=self.control)
            tensor.detach().copy_(content)


def pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """Returns the bytes of a contiguous tensor as messages."""
    return tensor.reshape(-1).view(torch.uint8).split(MOST_BYTES) if tensor.numel() else ()


def check_device(device: str, processes: int = 1) -> None:
    """Checks that this machine has the device, auto, cpu, cuda or mps, for so many processes that are started here.

    Raises:
        MaskweaveError: `device` is cuda or mps, but torch finds none; or there are more processes than GPUs.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MaskweaveError("device is cuda, but torch finds no CUDA device; set device to auto or cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise MaskweaveError("device is mps, but torch finds no GPU of a Mac; set device to auto or cpu")
    if device in ("auto", "cuda") and torch.cuda.is_available() and processes > (gpus := torch.cuda.device_count()):
        raise MaskweaveError(
            f"train.processes is {processes}, but this machine has {gpus} GPU{'s' if gpus > 1 else ''}; set processes to {gpus} or auto, or train.device to cpu"
        )


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
