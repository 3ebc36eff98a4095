"""Losses of tokenizers that value types share. B batch, C channels, K classes; *size the points."""

from torch import Tensor
from torch.nn import functional as F

SMOOTH = 0.1
"""Smooth L1: errors below this, where the range is [-1, 1], count as squares."""


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(output, target)


def smooth_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, squared below `SMOOTH`."""
    return F.smooth_l1_loss(output, target, beta=SMOOTH)


def negative_cosine(output: Tensor, target: Tensor) -> Tensor:
    """1 - cos of the angle between vectors, (B, C, *size) each; those of the target have length 1."""
    length = output.square().sum(1).clamp_min(1e-12).sqrt()
    return 1 - ((output * target).sum(1) / length).mean()
