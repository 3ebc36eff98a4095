"""Ridge regression on standardized features, with cross-validated strength. Closed form, in float64.

Dimension letters: S training samples, T samples to predict, F features, K numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
STRENGTHS = tuple(10.0**e for e in np.arange(3, -7.1, -0.5))
"""Strengths that are tried: penalty · |W|² is added to the mean squared error of standardized features."""
MOST_NUMBERS = 48
"""The strength is chosen on at most this many of the numbers, evenly spread."""
LEAST_STD = 1e-6
MOST_PATTERNS = 64
"""Most groups of numbers that are fitted on their own, each known in other samples."""
MOST_WORK = 2e10
"""Most groups × samples × features × the smaller of both, if there is more than one group: about 20 seconds on one core."""
FILL_ROUNDS, FILL_CHANGE = 30, 3e-3
"""Unknown numbers are filled with predictions in at most this many rounds, until none changes by more than this share of its typical size."""


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
        folds, variance = usable_folds(folds), known_variance(y)
        some = some_numbers(y.shape[1])
        errors = _cross_validated(x, y[:, some], folds, strengths)
        known_share = (~y[:, some].isnan()).double().mean(dim=0)  # numbers that few samples know count less
        best = int((errors / variance[some] * known_share).sum(dim=1).argmin())
        error = errors[best] if len(some) == y.shape[1] else _cross_validated(x, y, folds, [strengths[best]])[0]
        weight, bias = x.new_zeros(y.shape[1], x.shape[1]), x.new_zeros(y.shape[1])
        for columns, rows, known in known_together(y, x.shape[1]):
            ((weight[columns], bias[columns]),) = _solve(x[rows], known, [strengths[best]])
        return cls(mean.float(), std.float(), weight * scale_F, bias, strengths[best], error.sqrt())

    def __call__(self, x_TF: Tensor) -> Tensor:
        """Returns (T, K), float64."""
        return ((x_TF - self.mean) / self.std).double() @ self.weight.T + self.bias


def usable_folds(folds: np.ndarray) -> np.ndarray:
    """Returns (S,) the folds, or if they are fewer than two, one for each sample by turns."""
    return folds if len(np.unique(folds)) > 1 else np.arange(len(folds)) % FOLDS


def known_variance(y_SK: Tensor) -> Tensor:
    """Returns (K,) variances; above 0."""
    return (y_SK - y_SK.nanmean(dim=0)).square().nanmean(dim=0).nan_to_num().clamp_min(1e-12)


def some_numbers(count: int) -> np.ndarray:
    """Returns the indices of at most `MOST_NUMBERS` of so many numbers, evenly spread."""
    return np.linspace(0, count - 1, min(count, MOST_NUMBERS)).round().astype(int)


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
        for columns, rows, known in known_together(y_SK[~out], x.shape[1]):
            for i, (weight, bias) in enumerate(_solve(x[rows], known, strengths)):
                error = (x_out @ weight.T + bias - y_out[:, columns]).square()
                errors[i, columns] += torch.where(known_out[:, columns], error, 0).sum(dim=0)
    return errors / counts.clamp_min(1)


def feature_scale(x_SF: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each feature, float64; 1 for features that never change."""
    x_SF = x_SF.double()
    mean, std = x_SF.mean(dim=0), x_SF.std(dim=0, correction=0)
    return mean, torch.where(std > LEAST_STD * mean.abs().clamp_min(1e-3), std, 1.0)


def known_together(y_SK: Tensor, features: int, most: int = MOST_PATTERNS) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields groups of numbers that are known in the same samples: which numbers (K,), which samples (S,), and the numbers there. If that is too many
    groups or too much work, all numbers are one group, NaN where unknown.

    Args:
        most: groups.
    """
    patterns, group_K = y_SK.isnan().unique(dim=1, return_inverse=True)
    samples, count = patterns.shape
    if count > most or (count > 1 and count * samples * features * min(samples, features) > MOST_WORK):
        patterns, group_K = patterns.new_zeros(samples, 1), torch.zeros_like(group_K)
    for group, unknown_S in enumerate(patterns.T):
        columns = group_K == group
        yield columns, ~unknown_S, y_SK[~unknown_S][:, columns]


def _solve(x_SF: Tensor, y_SK: Tensor, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields weight (K, F) and bias (K,) for each strength, one at a time since there may be thousands of numbers; zeros without samples.

    Args:
        y_SK: NaN where unknown. Such numbers are filled with what is predicted there, until that no longer changes: the solution is then that of the known ones.
    """
    if not len(x_SF):
        yield from [(x_SF.new_zeros(y_SK.shape[1], x_SF.shape[1]), x_SF.new_zeros(y_SK.shape[1]))] * len(strengths)
        return
    center_F = x_SF.mean(dim=0)
    u_SR, s_R, vh_RF = torch.linalg.svd(x_SF - center_F, full_matrices=False)
    filled = Filled(y_SK)
    for strength in strengths:
        kept_R = s_R.square() / (s_R.square() + strength * len(x_SF))
        filled.fit(u_SR, kept_R)
        center_K = filled.numbers.mean(dim=0)
        uy_RK = u_SR.T @ (filled.numbers - center_K)
        weight_KF = (vh_RF.T @ ((kept_R / s_R.clamp_min(1e-300))[:, None] * uy_RK)).T
        yield weight_KF, center_K - weight_KF @ center_F


class Filled:
    """Numbers (S, K) whose unknown ones are filled with what a linear model predicts there, at first with the mean."""

    def __init__(self, y_SK: Tensor):
        self.unknown = y_SK.isnan()
        self.numbers = torch.where(self.unknown, y_SK.nanmean(dim=0).nan_to_num(), y_SK)
        self.least = FILL_CHANGE * float(y_SK.square().nanmean().nan_to_num().sqrt())
        self.is_whole = not bool(self.unknown.any())

    def fit(self, basis_SR: Tensor, kept_R: Tensor) -> None:
        """Fills with the predictions of a linear model.

        Args:
            basis_SR: orthonormal directions of the samples that the model tells apart.
            kept_R: the share of each that its predictions keep.
        """
        for _ in range(0 if self.is_whole else FILL_ROUNDS):
            center_K = self.numbers.mean(dim=0)
            predicted = center_K + basis_SR @ (kept_R[:, None] * (basis_SR.T @ (self.numbers - center_K)))
            found = torch.where(self.unknown, predicted, self.numbers)
            change = float((found - self.numbers).abs().max())
            self.numbers = found
            if change <= self.least:
                break
