"""SimVQ, https://arxiv.org/abs/2411.02038: a codebook of fixed random vectors that are mapped by one learned matrix.

Every update of the matrix moves all codes, also those that no latent is near, so the codebook does not collapse. There is nothing to initialize
and nothing to replace.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.tokenizers.quantizers.base import BaseQuantizer, Quantized, straight_through
from maskweave.tokenizers.quantizers.rotation import rotated


class SimVQ(BaseQuantizer):
    """Nearest code by distance.

    Args:
        codes: codebook size V.
        dim: width D of latents and codes.
        rotation: use the rotation trick instead of the straight-through estimator.
        commitment: weight of the squared distance between latents and their codes for the latents; 1 for the codes. Per channel, as in the authors' code.
    """

    frozen: Tensor

    def __init__(self, codes: int, dim: int, rotation: bool = False, commitment: float = 0.25):
        super().__init__()
        self.size, self.commitment = codes, commitment
        self.estimate = rotated if rotation else straight_through
        self.register_buffer("frozen", torch.randn(codes, dim) * dim**-0.5)
        self.transform = nn.Parameter(nn.init.orthogonal_(torch.empty(dim, dim)))

    def forward(self, z_BND: Tensor) -> Quantized:
        with torch.autocast(z_BND.device.type, enabled=False):
            z = z_BND.float()
            with torch.no_grad():
                codebook = self.frozen @ self.transform.T
                near = (
                    z.flatten(0, -2) @ codebook.T - codebook.square().sum(-1) / 2
                )  # largest where the distance is smallest
                ids = near.argmax(-1).view(z.shape[:-1])
            codes = self.decode(ids)
            if not self.training:
                return Quantized(codes, ids, z.new_zeros(()))
            loss = F.mse_loss(codes, z.detach()) + self.commitment * F.mse_loss(z, codes.detach())
            return Quantized(self.estimate(z, codes), ids, loss)

    def decode(self, ids: Tensor) -> Tensor:
        return self.frozen[ids] @ self.transform.T
