"""Finite scalar quantization (FSQ), https://arxiv.org/abs/2309.15505.

Each latent channel is bounded and rounded to a few levels; the code is the mixed-radix number of the levels.
No codebook is learned, so none can collapse.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized, straight_through


class FSQ(BaseQuantizer):
    """Round bounded latents to a product of levels. Codes are in [-1, 1].

    Args:
        levels: number of levels of each latent channel; the vocabulary is their product.
    """

    levels: Tensor
    radix: Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.size = math.prod(levels)
        self.code_length = math.sqrt(len(levels) / 3)  # as for a uniform distribution over [-1, 1]
        table = torch.tensor(levels)
        self.register_buffer("levels", table, persistent=False)
        self.register_buffer("radix", table.cumprod(0) // table, persistent=False)  # the first channel counts fastest

    def bound(self, z: Tensor) -> Tensor:
        """Bound the latents to the range that rounds to `levels` integers (section 3.1 and appendix A.1)."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = (self.levels % 2 == 0) * 0.5  # an even number of levels is off center
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            z = self.bound(z_BND.float())
            rounded = z.round()
            ids = ((rounded.detach().long() + self.levels // 2) * self.radix).sum(-1)
            return Quantized(straight_through(z, rounded) / (self.levels // 2), ids, z.new_zeros(()))

    def decode(self, ids: Tensor) -> Tensor:
        half = self.levels // 2
        return (ids[..., None] // self.radix % self.levels - half) / half
