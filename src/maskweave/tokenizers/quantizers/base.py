"""The interface of every quantizer. Dimension letters: B batch, N latents, D latent width, V codes, H heads."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """Latents turned into codes."""

    z_q: Tensor
    """(B, N, D) the codes, with a straight-through gradient to the latents."""
    ids: Tensor
    """(B, N), or (B, N, H) if each latent has several codes."""
    loss: Tensor
    """Scalar to add to the reconstruction loss: commitment, entropy; 0 if there is none."""


class BaseQuantizer(nn.Module):
    """Rounds latents to `size` codes. Always works in float32."""

    size: int
    code_length: float = 1.0
    """Root mean square length of the codes."""

    @property
    def entries(self) -> int:
        """Codes of all codebooks together, for measuring their use."""
        return self.size

    def entries_of(self, ids: Tensor) -> Tensor:
        """Numbers of the codes, from 0 to `entries` - 1, that ids stand for."""
        return ids

    def forward(self, z_BND: Tensor) -> Quantized:
        raise NotImplementedError

    def decode(self, ids: Tensor) -> Tensor:
        """Returns the codes (B, N, D) of ids (B, N) or (B, N, H)."""
        raise NotImplementedError


def count_ids(ids: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """Returns how often each of `size` ids occurs, (size,) int64. Unlike `torch.bincount`, it does not wait for a GPU.

    Args:
        counted: bool, in the shape of `ids`: which of them count; None: all.
    """
    ones = torch.ones_like(ids, dtype=torch.long) if counted is None else counted.long()
    return torch.zeros(size, dtype=torch.long, device=ids.device).scatter_add_(0, ids.flatten(), ones.flatten())


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """Returns `codes` in the forward pass; the gradient goes to `z` in the backward pass."""
    return z + (codes - z).detach()
