"""Losses of classes, of samples and of points: weighted cross-entropy, focal loss and dice loss. Points of class −1 are skipped.

Focal loss: https://arxiv.org/abs/1708.02002. Dice loss: https://arxiv.org/abs/1606.04797, over the whole batch and the classes in it. Weights by median
frequency: https://arxiv.org/abs/1411.4734.

Dimension letters: B samples, K classes, N known points.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MOST_WEIGHT = 10.0
"""Automatic weights are at most this, and at least its inverse."""


class ClassLoss:
    """Mean of weight · (1 − p)^γ · (−log p) over the known points, where p is the probability of the true class, plus the dice loss.

    Args:
        weights: of each class; empty: 1. The mean is weighted.
        gamma: of the focal loss; 0: cross-entropy.
        dice: weight of the dice loss, which counts each class alike.
    """

    def __init__(self, weights: Sequence[float] = (), gamma: float = 0.0, dice: float = 0.0):
        self.weights, self.gamma, self.dice = torch.tensor(weights), gamma, dice

    def __call__(self, logits: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            logits: (B, K, *size)
            target: (B, *size) class indices, −1 where unknown.

        Returns:
            The loss, and `accuracy`.
        """
        logits_NK, target_N = logits.movedim(1, -1).flatten(0, -2).float(), target.flatten()
        known = target_N >= 0
        logits_NK, target_N = logits_NK[known], target_N[known]
        if not len(target_N):
            return logits.sum() * 0, {"accuracy": logits.new_zeros(())}
        accuracy = (logits_NK.detach().argmax(dim=1) == target_N).float().mean()
        log_p_NK = logits_NK.log_softmax(dim=1)
        log_p_N = log_p_NK.gather(1, target_N[:, None])[:, 0]
        weight_N = self.weights.to(log_p_N)[target_N] if len(self.weights) else torch.ones_like(log_p_N)
        focal_N = (1 - log_p_N.exp()).clamp_min(1e-6) ** self.gamma if self.gamma else 1.0
        loss = -(weight_N * focal_N * log_p_N).sum() / weight_N.sum().clamp_min(1e-9)
        if self.dice:
            loss = loss + self.dice * dice_loss(log_p_NK.exp(), target_N)
        return loss, {"accuracy": accuracy}


def dice_loss(p_NK: Tensor, target_N: Tensor) -> Tensor:
    """Returns 1 − the mean over the classes in the batch of 2 Σ p·t / (Σ p + Σ t)."""
    true_NK = torch.nn.functional.one_hot(target_N, p_NK.shape[1]).to(p_NK)
    both_K, sum_K = (p_NK * true_NK).sum(dim=0), p_NK.sum(dim=0) + true_NK.sum(dim=0)
    return 1 - (2 * both_K / sum_K.clamp_min(1e-9))[true_NK.any(dim=0)].mean()


def median_frequency_weights(counts: Sequence[int]) -> list[float]:
    """Returns median frequency / frequency for each class, within a tenth to ten; 1 for classes that never occur."""
    counts_K = torch.tensor(counts, dtype=torch.float64)
    seen = counts_K > 0
    if not bool(seen.any()):
        return [1.0] * len(counts)
    weights_K = torch.where(seen, counts_K[seen].median() / counts_K.clamp_min(1), 1.0)
    return weights_K.clamp(1 / MOST_WEIGHT, MOST_WEIGHT).tolist()
