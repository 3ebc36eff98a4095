"""The rotation trick, https://arxiv.org/abs/2410.06424: a gradient through vector quantization that knows where a latent lies relative to its code.

The straight-through estimator copies the gradient of a code to its latent. Here, the latent is rotated and scaled onto its code, both treated as
constants in the backward pass, so the gradient is rotated and scaled back: latents on both sides of a code are moved in different directions.

Dimension letters: B batch, N latents, D width.
"""

import torch.nn.functional as F
from torch import Tensor


def rotated(z_BND: Tensor, codes_BND: Tensor) -> Tensor:
    """Returns `codes_BND` in the forward pass. In the backward pass, gradients are those of the rotation and scaling that map `z_BND` to it (section 4.2)."""
    z, codes = z_BND.detach(), codes_BND.detach()
    e, q = F.normalize(z, dim=-1), F.normalize(codes, dim=-1)
    middle = F.normalize(e + q, dim=-1)  # the reflections at `middle` and at `q` together rotate e to q
    scale = codes.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    reflected = z_BND - 2 * (z_BND * middle).sum(-1, keepdim=True) * middle
    return scale * (reflected + 2 * (z_BND * e).sum(-1, keepdim=True) * q)
