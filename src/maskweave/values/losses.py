"""Tokenizer losses that several value types use. Shapes: B batch, C channels; *size the points."""

from torch import Tensor
from torch.nn import functional as F

SMOOTH = 0.1
"""Smooth L1: errors below this, in units of the range [-1, 1], are squared."""


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(output, target)


def smooth_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, squared below `SMOOTH`."""
    return F.smooth_l1_loss(output, target, beta=SMOOTH)


def negative_cosine(output: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of the angle between vectors, (B, C, *size) each; the target vectors must have length 1."""
    length = output.square().sum(1).clamp_min(1e-12).sqrt()
    return 1 - ((output * target).sum(1) / length).mean()
