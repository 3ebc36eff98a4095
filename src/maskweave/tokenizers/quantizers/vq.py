"""Vector quantization with cosine codes, https://arxiv.org/abs/1711.00937 and https://arxiv.org/abs/2110.04627 (section 3.2).

Latents and codes are on the unit sphere. The codes are initialized with the k-means centers of the first training batch. They then follow the mean
of their latents (exponential moving average, appendix A.1 of the first paper), and unused codes are replaced by latents of the batch. All state is
in buffers and all randomness comes from torch's generator, so a run resumes exactly. Processes that train together share one codebook.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized, count_ids, straight_through
from maskweave.tokenizers.quantizers.collectives import all_gather_rows, all_reduce_sum, broadcast, processes, rank_rows
from maskweave.tokenizers.quantizers.rotation import rotated

KMEANS_ROUNDS = 10
KMEANS_LATENTS = 16  # latents per code are enough to find the centers


class VQ(BaseQuantizer):
    """Nearest code by cosine.

    Args:
        codes: codebook size V.
        dim: width D of latents and codes.
        decay: decay of the moving averages per batch.
        dead: a code is replaced if its use, relative to the average code, is below this share.
        commitment: weight of the squared distance between latents and their codes, summed over the D channels.
        rotation: use the rotation trick instead of the straight-through estimator.
        cosine: normalize latents and codes. Otherwise the nearest code by distance is taken, and codes are the means of their latents.
    """

    codebook: Tensor
    sums: Tensor
    usage: Tensor
    initialized: Tensor

    def __init__(
        self,
        codes: int,
        dim: int,
        decay: float = 0.98,
        dead: float = 0.05,
        commitment: float = 0.25,
        rotation: bool = False,
        cosine: bool = True,
    ):
        super().__init__()
        self.estimate, self.cosine = rotated if rotation else straight_through, cosine
        self.size, self.decay, self.dead, self.commitment = codes, decay, dead, commitment
        start = F.normalize(torch.randn(codes, dim), dim=-1)
        self.register_buffer("codebook", start)
        self.register_buffer(
            "sums", start.clone()
        )  # moving sum of each code's latents, divided by the average number of latents per code
        self.register_buffer("usage", torch.ones(codes))  # 1: used as often as the average code
        self.register_buffer("initialized", torch.tensor(False))
        self._started = False  # avoids a device sync in every step

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            z = F.normalize(z_BND.float(), dim=-1) if self.cosine else z_BND.float()
            flat = z.detach().flatten(0, -2)
            if self.training and not self._started:
                if not self.initialized:
                    self._start(flat)
                self._started = True
            ids = self._nearest(flat, self.codebook)
            codes = self.codebook[ids].view_as(z)
            if not self.training:
                return Quantized(codes, ids.view(z.shape[:-1]), z.new_zeros(()))
            loss = self.commitment * (z - codes).square().sum(-1).mean()
            self._follow(flat, ids)
            return Quantized(self.estimate(z, codes), ids.view(z.shape[:-1]), loss)

    def decode(self, ids: Tensor) -> Tensor:
        return self.codebook[ids]

    def _nearest(self, flat: Tensor, codebook: Tensor) -> Tensor:
        if self.cosine:
            return (flat @ codebook.T).argmax(-1)
        return (flat @ codebook.T - codebook.square().sum(-1) / 2).argmax(-1)

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        """k-means, on the sphere for cosine codes. A center without latents does not move. With fewer latents than codes, some codes start equal and are soon replaced."""
        flat = all_gather_rows(flat)
        pool = flat[torch.randperm(len(flat), device=flat.device)[: KMEANS_LATENTS * self.size]]
        centers = pool[torch.arange(self.size, device=flat.device) % len(pool)]
        for _ in range(KMEANS_ROUNDS):
            ids = self._nearest(pool, centers)
            sums = torch.zeros_like(centers).index_add_(0, ids, pool)
            if self.cosine:
                centers = torch.where(sums.norm(dim=-1, keepdim=True) > 1e-6, F.normalize(sums, dim=-1), centers)
            else:
                counts = count_ids(ids, self.size)[:, None]
                centers = torch.where(counts > 0, sums / counts.clamp_min(1), centers)
        centers = broadcast(centers)
        self.codebook.copy_(centers)
        self.sums.copy_(centers)
        self.usage.fill_(1.0)
        self.initialized.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, ids: Tensor) -> None:
        """Move the codes towards their latents, and replace the dead ones."""
        counts = count_ids(ids, self.size)
        sums = torch.zeros_like(self.sums).index_add_(0, ids, flat)
        # Sampled in every step: counting the dead codes first would need a device sync.
        fresh = flat[torch.randint(len(flat), (self.size,), device=flat.device)]
        counts, sums, fresh = all_reduce_sum(counts, sums, rank_rows(fresh))
        average = len(flat) * processes() / self.size
        self.usage.lerp_(counts / average, 1 - self.decay)
        self.sums.lerp_(sums / average, 1 - self.decay)
        dead = self.usage < self.dead
        self.sums.copy_(torch.where(dead[:, None], fresh, self.sums))
        self.usage.masked_fill_(dead, 1.0)
        self.codebook.copy_(F.normalize(self.sums, dim=-1) if self.cosine else self.sums / self.usage[:, None])
