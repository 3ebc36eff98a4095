"""Each process's share of tensors that are divided among processes, on disk: written as it is, read by any number of processes.

`torch.distributed.checkpoint` describes its files in a pickle, so that reading a checkpoint can run any code. Here the shares are safetensors files
whose headers say which rows they have (`nn.tensor_files`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from maskweave.nn.tensor_files import ROWS, JoinedTensors
from maskweave.nn.weights import save_tensors


class Share(NamedTuple):
    """A process's rows of tensors."""

    tensors: dict[str, Tensor]
    rows: dict[str, tuple[int, int]]
    """Of those that are divided: the first row, and the rows of the whole tensor."""

    def save(self, path: Path) -> None:
        """Writes a file; raises as `save_tensors`."""
        save_tensors(self.tensors, path, {ROWS: json.dumps(self.rows)} if self.rows else None)


def share_of(tensors: Mapping[str, Tensor], is_main: bool, copies: bool) -> Share:
    """Returns this process's share. Tensors that are not divided belong to the first process.

    Args:
        is_main: whether this is the first process.
        copies: copy tensors in main memory too, so that they do not change while they are written.
    """
    own, rows = {}, {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            rows[name] = (first_row(tensor), tensor.shape[0])
            local = tensor.to_local().detach()
        elif is_main:
            local = tensor.detach()
        else:
            continue
        own[name] = local.to("cpu", copy=copies)
    return Share(own, rows)


def first_row(tensor: DTensor) -> int:
    """Returns the first row that this process has of a divided tensor."""
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return offset[0]


@torch.no_grad()
def load_share(tensors: Mapping[str, Tensor], stored: JoinedTensors) -> None:
    """Copies stored tensors of the same names and shapes into whole tensors, or those rows that this process has of divided ones."""
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            stored.copy_rows(name, first_row(tensor), tensor.to_local())
        else:
            stored.copy_rows(name, 0, tensor)


def number_of_share(tensors: Mapping[str, Tensor], is_main: bool) -> tuple[int | None, int]:
    """Returns which file this process writes, None if others write what it has; and how many files there are."""
    divided = next((tensor for tensor in tensors.values() if isinstance(tensor, DTensor)), None)
    if divided is None:
        return (0 if is_main else None), 1
    mesh = divided.device_mesh
    *copies, own = mesh.get_coordinate() or [0]
    return (None if any(copies) else own), mesh.shape[-1]
