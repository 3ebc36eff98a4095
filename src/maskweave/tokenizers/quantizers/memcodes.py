"""Memcodes, the attention-like quantizer of NWT (https://arxiv.org/abs/2106.04283, section 3.1), used by 4M-21 for global embeddings.

The latent is split over heads. Each head has codes, and linear maps turn them into keys and values. A latent is a query: it selects one
key and is replaced by its value. Gumbel-softmax makes the selection differentiable, so the codes need no separate loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized


class Memcodes(BaseQuantizer):
    """One code per head and latent.

    Args:
        codes: codes V of each head.
        dim: width D of the latent, a multiple of `heads`.
        heads: H, the number of tokens per latent.
        temperature: temperature of the Gumbel-softmax in training.
    """

    def __init__(self, codes: int, dim: int, heads: int = 1, temperature: float = 1.0):
        super().__init__()
        self.size, self.heads, self.temperature = codes, heads, temperature
        self.width = dim // heads
        self.codes = nn.Parameter(torch.randn(heads, codes, self.width))
        self.to_key = nn.Parameter(torch.randn(heads, self.width, self.width) * self.width**-0.5)
        self.to_value = nn.Parameter(torch.randn(heads, self.width, self.width) * self.width**-0.5)

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            query = z_BND.float().unflatten(-1, (self.heads, self.width)) * self.width**-0.5
            logits = torch.einsum("bnhd,hvd->bnhv", query, self.codes @ self.to_key)
            if not self.training:
                ids = logits.argmax(-1)
                return Quantized(self.decode(ids), ids, logits.new_zeros(()))
            chosen = F.gumbel_softmax(logits, tau=self.temperature, hard=True)
            z_q = torch.einsum("bnhv,hvd->bnhd", chosen, self.codes @ self.to_value)
            return Quantized(z_q.flatten(-2), chosen.argmax(-1), logits.new_zeros(()))

    def decode(self, ids: Tensor) -> Tensor:
        values = self.codes @ self.to_value
        return values[torch.arange(self.heads, device=ids.device), ids].flatten(-2)
