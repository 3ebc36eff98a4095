"""Weights stored as 8-bit integers with one scale for each row, and read back as float32.

A row is divided by its largest absolute value and rounded to 255 levels, so no weight changes by more than 1/254 of the largest one of its row. This
is symmetric per-channel quantization of weights alone (https://arxiv.org/abs/1806.08342, section 3.1.1); products are computed in float32.
"""

from typing import Any

import torch
from torch import Tensor

SCALE = ".int8_scale"
"""Ending of the name of the tensor with a tensor's scales."""
LEVELS = 127


def quantize_rows(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Returns a tensor (R, …) of two or more axes as int8, and its scales (R,), float32."""
    rows = tensor.float().flatten(1)
    scale = (rows.abs().amax(dim=1) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    return {name: (rows / scale[:, None]).round().to(torch.int8).reshape(tensor.shape), f"{name}{SCALE}": scale}


class DequantizedTensors:
    """The tensors of an open file, those with scales as float32; with the methods of the file that loading uses."""

    def __init__(self, stored: Any):
        self._stored, names = stored, set(stored.keys())
        self._scaled = {name for name in names if f"{name}{SCALE}" in names}
        self._names = sorted(names - {f"{name}{SCALE}" for name in self._scaled})

    def keys(self) -> list[str]:
        return self._names

    def get_slice(self, name: str) -> Any:
        return self._stored.get_slice(name)

    def get_tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._stored.get_tensor(name)
        if name not in self._scaled or tensor.dtype != torch.int8 or tensor.ndim < 2:
            return tensor
        scale = self._stored.get_tensor(f"{name}{SCALE}")
        return tensor.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))
