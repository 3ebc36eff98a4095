"""Collects in the first process what launched processes have computed: facts as JSON, tensors as they are. Nothing is pickled.

They go through main memory (gloo), one process after another, so that the first one holds no copy more than it returns.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from maskweave import ranks
from maskweave.training.distributed import connect, pieces

DTYPES = {str(d): d for d in (torch.float64, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)}


class Gathered(NamedTuple):
    """What one process sent."""

    facts: Any
    tensors: dict[str, Tensor]


def gather(device: torch.device | str, facts: Any, tensors: Mapping[str, Tensor]) -> list[Gathered]:
    """Returns the facts and tensors of all launched processes, in rank order; an empty list in all but the first one. All must call it.

    Args:
        device: of this process; the group is joined with it.
        facts: what JSON can hold; numbers come back as they are.
        tensors: of `DTYPES`; they come back on the CPU.
    """
    mine = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if ranks.world() == 1:
        return [Gathered(facts, mine)]
    group = connect(str(device)).control
    if ranks.rank():
        layout = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in mine.items()}
        header = torch.frombuffer(bytearray(json.dumps([facts, layout]).encode()), dtype=torch.uint8)
        _send(torch.tensor([len(header)]), group)
        for tensor in (header, *mine.values()):
            _send(tensor, group)
        return []
    return [Gathered(facts, mine), *(_received(source, group) for source in range(1, ranks.world()))]


def _received(source: int, group: Any) -> Gathered:
    length = torch.zeros(1, dtype=torch.int64)
    _receive(length, source, group)
    header = torch.zeros(int(length), dtype=torch.uint8)
    _receive(header, source, group)
    facts, layout = json.loads(header.numpy().tobytes())
    tensors = {name: torch.empty(shape, dtype=DTYPES[dtype]) for name, (dtype, shape) in layout.items()}
    for tensor in tensors.values():
        _receive(tensor, source, group)
    return Gathered(facts, tensors)


def _send(tensor: Tensor, group: Any) -> None:
    for piece in pieces(tensor):
        dist.send(piece, 0, group=group)


def _receive(tensor: Tensor, source: int, group: Any) -> None:
    for piece in pieces(tensor):
        dist.recv(piece, source, group=group)
