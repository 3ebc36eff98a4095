"""Ridge regression on standardized features, with cross-validated strength. Closed form, in float64.

Dimension letters: S training samples, T samples to predict, F features, K numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
STRENGTHS = tuple(10.0**e for e in np.arange(-7, 3.1, 0.5))
"""Strengths that are tried: penalty · |W|² is added to the mean squared error of standardized features."""
LEAST_STD = 1e-6
MOST_PATTERNS = 64
"""Most groups of numbers that are fitted on their own, each known in other samples."""
MOST_WORK = 2e10
"""Most groups × samples × features × the smaller of both, if there is more than one group: about 20 seconds on one core."""


@dataclass(frozen=True)
class Ridge:
    """Linear prediction of standardized features."""

    mean: Tensor
    std: Tensor
    """(F,) of the features."""
    weight: Tensor
    """(K, F)"""
    bias: Tensor
    """(K,)"""
    strength: float
    error: Tensor
    """(K,) root mean squared error in cross-validation."""

    @classmethod
    def fit(
        cls,
        x_SF: Tensor,
        y_SK: Tensor,
        folds: np.ndarray,
        strengths: Sequence[float] = STRENGTHS,
        scale: Tensor | None = None,
    ) -> "Ridge":
        """Fit all samples with the strength of the smallest squared error in cross-validation, relative to each number's variance.

        Args:
            y_SK: NaN where unknown.
            folds: (S,) fold of each sample; samples of one group should share a fold. With fewer than two folds in use, every sample gets its own fold by turns.
            scale: (F,) factors of the standardized features; a smaller one is a stronger penalty. See `blocks.block_scales`.
        """
        mean, std = feature_scale(x_SF)
        scale_F = torch.ones(x_SF.shape[1], dtype=torch.float64) if scale is None else scale.double()
        x = ((x_SF.double() - mean) / std).cpu() * scale_F
        y = y_SK.double().cpu()
        if len(np.unique(folds)) < 2:
            folds = np.arange(len(x)) % FOLDS
        variance = torch.where(y.isnan(), 0, y - y.nanmean(dim=0)).square().mean(dim=0).clamp_min(1e-12)
        errors = _cross_validated(x, y, folds, strengths)
        best = int((errors / variance).mean(dim=1).argmin())
        weight, bias = x.new_zeros(y.shape[1], x.shape[1]), x.new_zeros(y.shape[1])
        for columns, rows, known in _groups(y, x.shape[1]):
            ((weight[columns], bias[columns]),) = _solve(x[rows], known, [strengths[best]])
        return cls(mean.float(), std.float(), weight * scale_F, bias, strengths[best], errors[best].sqrt())

    def __call__(self, x_TF: Tensor) -> Tensor:
        """Returns (T, K), float64."""
        return ((x_TF - self.mean) / self.std).double() @ self.weight.T + self.bias


def _cross_validated(x_SF: Tensor, y_SK: Tensor, folds: np.ndarray, strengths: Sequence[float]) -> Tensor:
    """Returns the mean squared error of each number with each strength, (strengths, K)."""
    errors = torch.zeros(len(strengths), y_SK.shape[1], dtype=torch.float64)
    counts = torch.zeros(y_SK.shape[1], dtype=torch.float64)
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        x, x_out = x_SF[~out], x_SF[out]
        y_out = y_SK[out]
        known_out = ~y_out.isnan()
        counts += known_out.sum(dim=0)
        for columns, rows, known in _groups(y_SK[~out], x.shape[1]):
            for i, (weight, bias) in enumerate(_solve(x[rows], known, strengths)):
                error = (x_out @ weight.T + bias - y_out[:, columns]).square()
                errors[i, columns] += torch.where(known_out[:, columns], error, 0).sum(dim=0)
    return errors / counts.clamp_min(1)


def feature_scale(x_SF: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each feature, float64; 1 for features that never change."""
    x_SF = x_SF.double()
    mean, std = x_SF.mean(dim=0), x_SF.std(dim=0, correction=0)
    return mean, torch.where(std > LEAST_STD * mean.abs().clamp_min(1e-3), std, 1.0)


def _groups(y_SK: Tensor, features: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields groups of numbers that are known in the same samples: which numbers (K,), which samples (S,), and the numbers there. If that is too many
    groups or too much work, all numbers are one group, in which unknown ones count as average."""
    patterns, group_K = y_SK.isnan().unique(dim=1, return_inverse=True)
    samples, count = patterns.shape
    if count > MOST_PATTERNS or (count > 1 and count * samples * features * min(samples, features) > MOST_WORK):
        y_SK = torch.where(y_SK.isnan(), y_SK.nanmean(dim=0).nan_to_num(), y_SK)
        patterns, group_K = patterns.new_zeros(samples, 1), torch.zeros_like(group_K)
    for group, unknown_S in enumerate(patterns.T):
        columns = group_K == group
        yield columns, ~unknown_S, y_SK[~unknown_S][:, columns]


def _solve(x_SF: Tensor, y_SK: Tensor, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields weight (K, F) and bias (K,) for each strength, one at a time since there may be thousands of numbers; zeros without samples."""
    if not len(x_SF):
        yield from [(x_SF.new_zeros(y_SK.shape[1], x_SF.shape[1]), x_SF.new_zeros(y_SK.shape[1]))] * len(strengths)
        return
    center_F, center_K = x_SF.mean(dim=0), y_SK.mean(dim=0)
    u_SR, s_R, vh_RF = torch.linalg.svd(x_SF - center_F, full_matrices=False)
    uy_RK = u_SR.T @ (y_SK - center_K)
    for strength in strengths:
        shrunk_R = s_R / (s_R.square() + strength * len(x_SF))
        weight_KF = (vh_RF.T @ (shrunk_R[:, None] * uy_RK)).T
        yield weight_KF, center_K - weight_KF @ center_F
