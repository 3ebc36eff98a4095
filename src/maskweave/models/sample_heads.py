"""Heads that predict classes or numbers of a sample as a whole, from pooled features and features of the raw inputs.

Dimension letters: B samples, N tokens, D width of the encoder, F features of a sample, K classes or numbers, O outputs per number, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from maskweave.models.encoder import Encoded
from maskweave.models.raw_features import RawFeatures, block_sizes, raw_blocks
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import LayerNorm, initialize

NumberForm = Literal["gaussian", "quantile", "histogram"]
LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Quantiles that a head of form `quantile` predicts."""


class PooledHead(nn.Module):
    """A linear layer on the features of a sample: the mean of its tokens, and optionally attention pooling and features of the raw inputs.

    Args:
        attention: heads of attention pooling beside the mean, with one learned query; 0: none. As in attentive probing (https://arxiv.org/abs/2202.03026),
            without projections, so that few samples suffice. It starts as the mean.
        raw: features of raw inputs, by name.
    """

    undecayed = ("query",)
    """Parameters without weight decay."""
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, width: int, outputs: int, attention: int = 0, raw: Mapping[str, RawFeatures] | None = None):
        super().__init__()
        self.raw = dict(raw or {})
        self.norm = LayerNorm(width)
        self.query = nn.Parameter(torch.zeros(attention, width // attention)) if attention else None
        self.blocks = {"encoder": width * (1 + bool(attention)), **block_sizes(self.raw)}
        """Number of features of the encoder, and of each kind of features of the raw inputs."""
        self.width = sum(self.blocks.values())
        self.out = Linear(self.width, outputs)
        initialize(self)
        # Standardizes the features; fitted before training by `transfer.linear_start`, and the identity without it.
        self.register_buffer("feature_mean", torch.zeros(self.width))
        self.register_buffer("feature_std", torch.ones(self.width))

    def features(self, encoded: Encoded) -> Tensor:
        """Returns (B, F), before standardization, block after block; what the raw inputs do not tell is NaN."""
        parts = [self.norm(encoded.pooled)]
        if self.query is not None:
            parts.append(self._attended(encoded))
        return torch.cat([*parts, *(x.to(parts[0].dtype) for x in raw_blocks(self.raw, encoded.raw))], dim=1)

    def _attended(self, encoded: Encoded) -> Tensor:
        assert self.query is not None
        heads_BNhd = encoded.tokens.unflatten(2, self.query.shape)
        scores_BNh = (heads_BNhd * self.query).sum(dim=-1) * self.query.shape[1] ** -0.5
        if encoded.present is not None:
            scores_BNh = scores_BNh.masked_fill(~encoded.present[..., None], -torch.inf)
        return (scores_BNh.softmax(dim=1)[..., None] * heads_BNhd).sum(dim=1).flatten(1)

    def linear(self, encoded: Encoded) -> Tensor:
        x_BF = self.features(encoded)
        if self.raw:  # what is unknown counts as average
            first = self.blocks["encoder"]
            known, mean = x_BF[:, first:], self.feature_mean[first:].to(x_BF.dtype)
            x_BF = torch.cat([x_BF[:, :first], torch.where(known.isnan(), mean, known)], dim=1)
        with torch.autocast(x_BF.device.type, enabled=False):  # weights of a weak ridge cancel each other
            return self.out((x_BF.float() - self.feature_mean) / self.feature_std)


def average_for_unknown(x_SF: Tensor, among_SF: Tensor | None = None) -> Tensor:
    """Returns features with the mean of each in place of NaN.

    Args:
        among_SF: samples whose means are taken, such as those of the training; by default the samples themselves.
    """
    mean_F = (x_SF if among_SF is None else among_SF).nanmean(dim=0).nan_to_num()
    return torch.where(x_SF.isnan(), mean_F, x_SF)


class ClassHead(PooledHead):
    """Predicts class logits (B, K)."""

    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded)


class NumberHead(PooledHead):
    """Predicts the distributions of K numbers, standardized by those of the training examples: (B, K, O).

    O is, by form: the mean and the logarithm of the standard deviation; the quantiles `LEVELS`; or the logits of the bins.

    Args:
        bins: number of bins of form `histogram`.
    """

    mean: Tensor
    std: Tensor
    bin_edges: Tensor
    bin_centers: Tensor

    def __init__(
        self,
        width: int,
        numbers: int,
        form: NumberForm,
        bins: int = 0,
        attention: int = 0,
        raw: Mapping[str, RawFeatures] | None = None,
    ):
        self.form: NumberForm = form
        self.outputs = {"gaussian": 2, "quantile": len(LEVELS), "histogram": bins}[form]
        super().__init__(width, numbers * self.outputs, attention, raw)
        self.numbers = numbers
        self.register_buffer("mean", torch.zeros(numbers, dtype=torch.float64))
        self.register_buffer("std", torch.ones(numbers, dtype=torch.float64))
        if form == "histogram":
            self.register_buffer("bin_edges", torch.arange(bins + 1, dtype=torch.float64))
            self.register_buffer("bin_centers", torch.arange(bins, dtype=torch.float64) + 0.5)

    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(encoded).unflatten(1, (self.numbers, self.outputs))

    def standardize(self, target: Tensor) -> Tensor:
        """Returns (B, K) numbers on the network's scale, standardized, float32; NaN stays."""
        return ((target.flatten(1) - self.mean) / self.std).float()

    def restore(self, standardized: Tensor) -> Tensor:
        """The reverse of `standardize`, float64."""
        return standardized.double() * self.std + self.mean

    @torch.no_grad()
    def set_scale(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean.copy_(torch.tensor(mean, dtype=torch.float64))
        self.std.copy_(torch.tensor(std, dtype=torch.float64))

    @torch.no_grad()
    def set_bins(self, edges: Sequence[float], centers: Sequence[float]) -> None:
        """Sets the bins of form `histogram`, on the network's scale."""
        self.bin_edges.copy_(torch.tensor(edges, dtype=torch.float64))
        self.bin_centers.copy_(torch.tensor(centers, dtype=torch.float64))
