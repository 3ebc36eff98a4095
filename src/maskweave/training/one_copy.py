"""Batches in one page-locked buffer, so that a batch goes to the GPU in one copy while the training goes on.

A batch of 4M has about 45 tensors, most of them small. Torch pins and copies tensors one by one, and knows containers, not dataclasses.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes; each tensor starts at a multiple of it."""


def in_one_buffer(item: Any, pin: bool = True) -> Any:
    """Returns a copy of a batch whose tensors are views of one buffer.

    Args:
        item: tensors in dataclasses, dicts and lists; anything else is kept as it is, and so are fields with `metadata={"device": "cpu"}`.
        pin: page-lock the buffer, so that copies to a GPU are asynchronous.
    """
    starts, end = [], 0
    for tensor in _tensors(item):
        starts.append(end)
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    if not starts:
        return item
    buffer, left = torch.empty(end, dtype=torch.uint8, pin_memory=pin), iter(starts)

    def copied(tensor: Tensor) -> Tensor:
        return _view(buffer, next(left), tensor).copy_(tensor)

    return _mapped(item, copied)


def to_device(item: Any, device: torch.device) -> Any:
    """Returns `item.to(device)`; in one copy if `in_one_buffer` made it."""
    tensors = _tensors(item)
    if not tensors or tensors[0].device == device:
        return item.to(device)
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    whole = len(storages) == 1 and len(tensors) > 1 and all(tensor.is_contiguous() for tensor in tensors)
    if not whole:
        return item.to(device)
    buffer = torch.empty(0, dtype=torch.uint8).set_(tensors[0].untyped_storage()).to(device, non_blocking=True)
    moved = _mapped(item, lambda tensor: _view(buffer, int(tensor.storage_offset()) * tensor.itemsize, tensor))
    return moved.to(device)  # tensors in containers unknown here


def _view(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _tensors(item: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(item, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def _mapped(item: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(item, Tensor):
        return function(item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        moving = [f.name for f in dataclasses.fields(item) if f.metadata.get("device") != "cpu"]
        return dataclasses.replace(item, **{name: _mapped(getattr(item, name), function) for name in moving})
    if isinstance(item, dict):
        return {key: _mapped(value, function) for key, value in item.items()}
    return [_mapped(value, function) for value in item] if isinstance(item, list) else item
