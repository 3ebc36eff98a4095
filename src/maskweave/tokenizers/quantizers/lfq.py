"""Lookup-free quantization (LFQ), https://arxiv.org/abs/2310.05737, section 3.1.

Each latent channel gives one bit, its sign. An entropy loss makes each latent's assignment certain and the use of the codes even.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized, straight_through
from maskweave.tokenizers.quantizers.collectives import all_reduce_mean

GROUP_BITS = 10


class LFQ(BaseQuantizer):
    """Signs of the latents; codes are -1 and 1. The first channel is the highest bit.

    The entropy of the mean assignment is exact up to 2^10 codes. With more codes, the bits are split into groups and the entropies of the
    groups are added. This is an upper bound that is cheap to compute.

    Args:
        codes: codebook size V, a power of two; the latent has log2(V) channels.
        entropy: weight of the entropy loss.
        commitment: weight of the squared distance between latents and their codes, per channel, as in published code.
        sharpness: inverse temperature of the soft assignment to codes.
    """

    bits: Tensor

    def __init__(self, codes: int, entropy: float = 0.1, commitment: float = 0.25, sharpness: float = 1.0):
        super().__init__()
        self.size, self.entropy, self.commitment, self.sharpness = codes, entropy, commitment, sharpness
        self.code_length = math.sqrt(math.log2(codes))
        self.register_buffer("bits", 2 ** torch.arange(int(math.log2(codes)) - 1, -1, -1), persistent=False)

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            z = z_BND.float()
            positive = z > 0
            codes = positive.float() * 2 - 1
            ids = (positive * self.bits).sum(-1)
            if not self.training:
                return Quantized(codes, ids, z.new_zeros(()))
            loss = self.entropy * self.entropy_loss(z) + self.commitment * F.mse_loss(z, codes)
            return Quantized(straight_through(z, codes), ids, loss)

    def decode(self, ids: Tensor) -> Tensor:
        return ((ids[..., None] & self.bits) > 0).float() * 2 - 1

    def entropy_loss(self, z_BND: Tensor) -> Tensor:
        """Mean entropy of the latents' soft assignments minus the entropy of the mean assignment, in nats.

        With ±1 codes, the softmax over squared distances factorizes into one logistic function per bit, so the first
        term needs no table of codes. The mean assignment is over all processes that train together.
        """
        logits = 4 * self.sharpness * z_BND.flatten(0, -2)  # (n, bits)
        log_on, log_off = F.logsigmoid(logits), F.logsigmoid(-logits)
        single = -(log_on.exp() * log_on + log_off.exp() * log_off).sum(-1).mean()
        overall = logits.new_zeros(())
        for on, off in zip(log_on.split(GROUP_BITS, -1), log_off.split(GROUP_BITS, -1), strict=True):
            probability = on.new_ones(len(on), 1)
            for k in range(on.shape[-1]):  # (n, 1), (n, 2), … (n, 2^bits): each bit doubles the table
                bit = torch.stack([off[:, k], on[:, k]], -1).exp()
                probability = (probability[:, :, None] * bit[:, None]).flatten(1)
            mean = all_reduce_mean(probability.mean(0))
            overall = overall - (mean * mean.clamp_min(1e-9).log()).sum()
        return single - overall
