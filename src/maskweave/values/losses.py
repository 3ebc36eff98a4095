"""Tokenizer losses that several value types use, with weights in the target's shape if they are given.

Weights above 0 are 1 on average over the training values (`weights.py`), so that a loss is a plain mean and does not depend on how samples are split into batches.

Shapes: B batch, C channels; *size the points.
"""

from torch import Tensor
from torch.nn import functional as F

SMOOTH = 0.1
"""Smooth L1: errors below this, in units of the range [-1, 1], are squared."""


def mse(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error."""
    if weight is None:
        return F.mse_loss(output, target)
    return (weight * F.mse_loss(output, target, reduction="none")).mean()


def smooth_l1(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error, squared below `SMOOTH`."""
    if weight is None:
        return F.smooth_l1_loss(output, target, beta=SMOOTH)
    return (weight * F.smooth_l1_loss(output, target, beta=SMOOTH, reduction="none")).mean()


def negative_cosine(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - cosine of the angle between vectors, (B, C, *size) each; the target vectors must have length 1. Vectors weigh the mean of their weights."""
    length = output.square().sum(1).clamp_min(1e-12).sqrt()
    cosine = (output * target).sum(1) / length
    return 1 - cosine.mean() if weight is None else (weight.mean(1) * (1 - cosine)).mean()
