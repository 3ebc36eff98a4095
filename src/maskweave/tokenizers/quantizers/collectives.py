"""Collectives for quantizers in distributed training: each process has a part of the batch, but the codes depend on all of it.

In a single process they do nothing. All processes must call them the same number of times, so they are only for training: in validation, some
processes may have one batch more than others.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from maskweave.tokenizers.quantizers.base import straight_through


def processes() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sum each tensor over all processes, in float32, without gradient, in one message. The shapes must be the same in all processes."""
    if processes() == 1:
        return tensors
    row = torch.cat([t.detach().flatten().float() for t in tensors])
    dist.all_reduce(row)
    parts = row.split([t.numel() for t in tensors])
    return tuple(part.view(t.shape) for part, t in zip(parts, tensors, strict=True))


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean over all processes. The gradient is that of this process's part; data-parallel training averages it over the processes."""
    return x if processes() == 1 else straight_through(x, all_reduce_sum(x)[0] / processes())


def all_gather_rows(x: Tensor) -> Tensor:
    """Concatenate the rows of all processes. Each must have the same number of rows."""
    if processes() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def broadcast(x: Tensor) -> Tensor:
    """Copy the tensor of the first process to all processes, in place."""
    if processes() > 1:
        dist.broadcast(x, src=0)
    return x


def rank_rows(x: Tensor) -> Tensor:
    """Keep every `processes()`-th row, starting at this process's rank, and set the others to 0.

    Summed by `all_reduce_sum`, each row comes from one process, and all processes contribute equally.
    """
    if processes() == 1:
        return x
    mine = torch.arange(len(x), device=x.device) % processes() == dist.get_rank()
    return x * mine[:, None]
