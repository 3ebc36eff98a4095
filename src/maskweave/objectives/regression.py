"""Losses of predicted numbers: Gaussian, quantiles and bins. Unknown numbers, NaN, are skipped.

Gaussian: β-NLL with β = 0.5 (https://arxiv.org/abs/2203.09168), the negative log-likelihood weighted by the predicted standard deviation, which the gradient
does not see; the plain likelihood learns the mean poorly where it is uncertain. Quantiles: pinball loss. Bins: cross-entropy, spread over neighboring bins.

Dimension letters: B samples, K numbers, O outputs per number, n known numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.models.sample_heads import LEVELS, NumberHead

BETA = 0.5
LEAST_LOG_STD, MOST_LOG_STD = -7.0, 4.0
SMOOTHING = 1.0
"""Standard deviation of the spread over neighboring bins, in bins."""


class NumberLoss:
    """Loss of the outputs of a `NumberHead`; the metric `error` is the mean absolute error in standard deviations of the training examples."""

    def __init__(self, head: NumberHead):
        self.head = head

    def __call__(self, output_BKO: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        wanted = self.head.standardize(target)
        known = ~wanted.isnan()
        if not bool(known.any()):
            return output_BKO.sum() * 0, {"error": output_BKO.new_zeros(())}
        output_nO, wanted_n = output_BKO.float()[known], wanted[known]
        match self.head.form:
            case "gaussian":
                loss = beta_nll(output_nO, wanted_n)
            case "quantile":
                loss = pinball(output_nO, wanted_n)
            case "histogram":
                loss = self._of_bins(output_nO, target.flatten(1)[known])
        error = (standardized_mean(self.head, output_nO) - wanted_n).abs().mean()
        return loss, {"error": error.detach()}

    def _of_bins(self, logits_nO: Tensor, target_n: Tensor) -> Tensor:
        bins = bin_of(self.head, target_n)
        distance = torch.arange(logits_nO.shape[1], device=bins.device) - bins[:, None]
        spread = torch.exp(-0.5 * (distance / SMOOTHING) ** 2)
        return F.cross_entropy(logits_nO, spread / spread.sum(dim=1, keepdim=True))


def bin_of(head: NumberHead, target_n: Tensor) -> Tensor:
    """Returns the bin of each number on the network's scale; those outside are in the nearest one."""
    return (torch.searchsorted(head.bin_edges, target_n.double().contiguous(), right=True) - 1).clamp(
        0, len(head.bin_centers) - 1
    )


def beta_nll(output_n2: Tensor, wanted_n: Tensor) -> Tensor:
    """β-NLL of means and logarithms of standard deviations."""
    mean, log_std = output_n2[:, 0], output_n2[:, 1].clamp(LEAST_LOG_STD, MOST_LOG_STD)
    weight = (2 * BETA * log_std).exp().detach()
    return (weight * (log_std + 0.5 * ((wanted_n - mean) * (-log_std).exp()).square())).mean()


def pinball(output_nQ: Tensor, wanted_n: Tensor) -> Tensor:
    """Mean pinball loss of the quantiles `LEVELS`."""
    levels = output_nQ.new_tensor(LEVELS)
    error = wanted_n[:, None] - output_nQ
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean()


def standardized_mean(head: NumberHead, output: Tensor) -> Tensor:
    """Returns the predicted numbers (…), standardized: the mean, or the mean of the quantiles, of outputs (…, O)."""
    match head.form:
        case "gaussian":
            return output[..., 0]
        case "quantile":
            return output.mean(dim=-1)
        case "histogram":
            centers = ((head.bin_centers - head.mean) / head.std).float()
            return output.float().softmax(dim=-1) @ centers
