"""What quantizers share where several processes train together: each sees its part of the batch, and the codes are to follow all of it.

In a single process nothing happens. All processes must call these side by side, so they are for training alone: in validation one may have a batch
more than another.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from maskweave.tokenizers.quantizers.base import straight_through


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The sums over all processes, in float32 and without gradient, in one message. Their shapes are the same everywhere."""
    if processes() == 1:
        return tensors
    row = torch.cat([t.detach().flatten().float() for t in tensors])
    dist.all_reduce(row)
    parts = row.split([t.numel() for t in tensors])
    return tuple(part.view(t.shape) for part, t in zip(parts, tensors, strict=True))


def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean over all processes. The gradient is that of the own part: averaging it over the processes does the rest."""
    return x if processes() == 1 else straight_through(x, all_reduce_sum(x)[0] / processes())


def all_gather_rows(x: Tensor) -> Tensor:
    """The rows of all processes, as many of each, one after another."""
    if processes() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def broadcast(x: Tensor) -> Tensor:
    """What the first process has."""
    if processes() > 1:
        dist.broadcast(x, src=0)
    return x


def rank_rows(x: Tensor) -> Tensor:
    """The rows that are this process's turn, 0 in place of the others: summed by `all_reduce_sum`, each row is of one process, and all give as many."""
    if processes() == 1:
        return x
    mine = torch.arange(len(x), device=x.device) % processes() == dist.get_rank()
    return x * mine[:, None]
