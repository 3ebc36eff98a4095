"""Residual quantization, https://arxiv.org/abs/2107.03312 (section III-C): each level quantizes what the levels before it left over.

A latent has one token: its id is the number whose digits are the codes of all levels, the first level's code the highest digit. The vocabulary has
codes ** depth ids. Token stores and models need not know about levels, but depth is limited by the size of the vocabulary.

Dimension letters: B batch, N latents, D width, R levels.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized, straight_through
from maskweave.tokenizers.quantizers.vq import VQ


class Residual(BaseQuantizer):
    """Ids of several levels as one number.

    Args:
        codes: codes of each level.
        depth: number of levels R.
    """

    def __init__(self, codes: int, depth: int):
        super().__init__()
        self.codes, self.depth, self.size = codes, depth, codes**depth

    @property
    def entries(self) -> int:
        return self.codes * self.depth

    def entries_of(self, ids: Tensor) -> Tensor:
        return self.split(ids) + self.codes * torch.arange(self.depth, device=ids.device)

    def joined(self, ids_BNR: Tensor) -> Tensor:
        """Returns the ids (B, N) of the levels' codes."""
        ids = ids_BNR[..., 0]
        for level in range(1, self.depth):
            ids = ids * self.codes + ids_BNR[..., level]
        return ids

    def split(self, ids_BN: Tensor) -> Tensor:
        """Returns the levels' codes (B, N, R) of ids."""
        return torch.stack([ids_BN // self.codes**r % self.codes for r in reversed(range(self.depth))], dim=-1)


class ResidualVQ(Residual):
    """Vector quantizers in a row. Latents are on the unit sphere; codes are the means of their residuals and have any length.

    Args:
        codes: codebook size of each level.
        dim: width D of latents and codes.
        depth: number of levels R.
    """

    def __init__(self, codes: int, dim: int, depth: int):
        super().__init__(codes, depth)
        self.levels = nn.ModuleList(VQ(codes, dim, cosine=False) for _ in range(depth))

    @property
    def quantizers(self) -> list[VQ]:
        """The levels, coarsest first."""
        return [level for level in self.levels if isinstance(level, VQ)]

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            z = F.normalize(z_BND.float(), dim=-1)
            residual, loss, ids = z, z.new_zeros(()), []
            for level in self.quantizers:
                quantized: Quantized = level(residual)
                ids.append(quantized.ids)
                residual = residual - quantized.z_q.detach()
                loss = loss + quantized.loss
            codes = (z - residual).detach()
            return Quantized(
                straight_through(z, codes) if self.training else codes, self.joined(torch.stack(ids, -1)), loss
            )

    def decode(self, ids: Tensor) -> Tensor:
        codes = self.split(ids)
        return torch.stack([level.decode(codes[..., r]) for r, level in enumerate(self.quantizers)]).sum(0)


class ResidualFSQ(Residual):
    """Finite scalar quantizers in a row, https://arxiv.org/abs/2309.15505 with the symmetric levels of https://arxiv.org/abs/2411.19842 (section 3.2).

    Level r divides each interval of level r - 1 into as many parts again, so all levels together are one finer grid. No codebook is learned.

    Args:
        levels: number of levels of each latent channel.
        depth: number of quantizers R.
    """

    channels: Tensor
    radix: Tensor

    def __init__(self, levels: Sequence[int], depth: int):
        super().__init__(math.prod(levels), depth)
        self.code_length = math.sqrt(len(levels) / 3)  # as for a uniform distribution over [-1, 1]
        table = torch.tensor(levels)
        self.register_buffer("channels", table, persistent=False)
        self.register_buffer("radix", table.cumprod(0) // table, persistent=False)  # the first channel counts fastest

    def bound(self, z: Tensor) -> Tensor:
        """Bound the latents softly to the range in which codes have neighbors on both sides."""
        limit = 1 + 1 / (self.channels - 1)
        return torch.tanh(z / limit) * limit

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            z = self.bound(z_BND.float())
            residual, ids = z.detach(), []
            for r in range(self.depth):
                digits = ((residual * self.scale(r)).clamp(-1, 1) + 1) / 2 * (self.channels - 1)
                digits = (digits + 0.5).floor().long()
                ids.append((digits * self.radix).sum(-1))
                residual = residual - self.value(digits, r)
            joined = self.joined(torch.stack(ids, -1))
            return Quantized(straight_through(z, self.decode(joined)), joined, z.new_zeros(()))

    def decode(self, ids: Tensor) -> Tensor:
        digits_BNRD = self.split(ids)[..., None] // self.radix % self.channels
        return torch.stack([self.value(digits_BNRD[..., r, :], r) for r in range(self.depth)]).sum(0)

    def scale(self, r: int) -> Tensor:
        """Factor of each channel's residuals at level r."""
        return self.channels.float() ** r

    def value(self, digits: Tensor, r: int) -> Tensor:
        """Code of the digits (…, D) of level r."""
        return (digits * 2 / (self.channels - 1) - 1) / self.scale(r)
