"""MLPs on a GPU whose hidden width is not a multiple of 8, such as 2730 of size L and 5461 of size XL.

The fast kernels for matrices in 16 bits need rows whose bytes are a multiple of 16. The weights are padded with zeros for each product, together
with their conversion to 16 bits, so that files and parameters keep their shapes. Measured with the padding alone (docs/results.md).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.nn.cpu import Linear

MULTIPLE = 64
"""The hidden width is padded to a multiple of it."""
ROWS = 2048
"""Fewest rows for which this is worth a copy of the weights."""


def missing_width(x: Tensor, layer: nn.Linear) -> int:
    """Returns by how much the outputs of a layer should be padded for input `x`; 0: not at all."""
    if x.device.type != "cuda" or not isinstance(layer, Linear):  # not one with LoRA
        return 0
    if layer.out_features % 8 == 0 or x.numel() < ROWS * layer.in_features:
        return 0
    return -layer.out_features % MULTIPLE


def padded_outputs(x: Tensor, layer: nn.Linear, by: int) -> Tensor:
    """Returns the layer's output with `by` more zeros in each row."""
    bias = None if layer.bias is None else F.pad(layer.bias, (0, by))
    return F.linear(x, F.pad(layer.weight, (0, 0, 0, by)), bias)


def padded_inputs(x: Tensor, layer: nn.Linear, by: int) -> Tensor:
    """Returns the layer's output for input whose last `by` columns do not count."""
    return F.linear(x, F.pad(layer.weight, (0, by)), layer.bias)
