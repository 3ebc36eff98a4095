"""What every quantizer offers. Dimension letters: B batch, N latents, D latent width, V codes, H heads."""

from typing import NamedTuple

from torch import Tensor, nn


class Quantized(NamedTuple):
    """Latents turned into codes."""

    z_q: Tensor
    """(B, N, D) the codes; the gradient passes straight through to the latents."""
    ids: Tensor
    """(B, N), or (B, N, H) where each latent has several codes."""
    loss: Tensor
    """Scalar to add to the reconstruction loss: commitment, entropy; 0 where there is none."""


class BaseQuantizer(nn.Module):
    """Rounds latents to `size` codes. Works in float32 whatever the precision around it."""

    size: int
    code_length: float = 1.0
    """Root mean square length of the codes."""

    def forward(self, z_BND: Tensor) -> Quantized:
        raise NotImplementedError

    def decode(self, ids: Tensor) -> Tensor:
        """The codes (B, N, D) of ids (B, N) or (B, N, H)."""
        raise NotImplementedError


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """`codes` forwards, the gradient of `z` backwards."""
    return z + (codes - z).detach()
