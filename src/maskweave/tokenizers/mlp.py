"""MLP encoder and decoder for vectors, as 4M-21 uses for global embeddings (https://arxiv.org/abs/2406.09406, appendix on tokenizers).

A linear layer, residual blocks of LayerNorm and a 4× wide GELU MLP, and a linear layer. A vector becomes a row of latents.

Dimension letters: B batch, C the vector's length, N latents, D latent channels, W width.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import TokenizerSpec
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import MLP, initialize


class ResidualMLP(nn.Module):
    """x + MLP(LayerNorm(x))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)  # with ε 1e-5, as in the published tokenizers
        self.mlp = MLP(width)

    def forward(self, x_BW: Tensor) -> Tensor:
        return x_BW + self.mlp(self.norm(x_BW))


class MLPEncoder(nn.Sequential):
    """Encodes vectors (B, C) to latents (B, N, D). With several codes per latent, N is the length of the grid divided by their number."""

    def __init__(self, modality: Modality, spec: TokenizerSpec):
        latents, dim = modality.tokens // spec.quantizer.heads, spec.quantizer.latent_dim
        inner = [spec.inner_width] if spec.inner_width else []
        super().__init__(
            Linear(modality.value.channels, spec.width),
            *(ResidualMLP(spec.width) for _ in range(spec.depth)),
            *_linear(spec.width, *inner, latents * dim),
            nn.Unflatten(1, (latents, dim)),
        )
        initialize(self)


class MLPDecoder(nn.Sequential):
    """Decodes codes (B, N, D) to vectors (B, C)."""

    def __init__(self, modality: Modality, spec: TokenizerSpec):
        latents, dim = modality.tokens // spec.quantizer.heads, spec.quantizer.latent_dim
        width = spec.decoder_width or spec.width
        inner = [spec.decoder_inner_width] if spec.decoder_inner_width else []
        super().__init__(
            nn.Flatten(1),
            *_linear(latents * dim, *inner, width),
            *(ResidualMLP(width) for _ in range(spec.decoder_depth)),
            Linear(width, modality.value.channels),
        )
        initialize(self)


def _linear(*widths: int) -> Sequence[Linear]:
    """Linear layers from each width to the next."""
    return [Linear(a, b) for a, b in itertools.pairwise(widths)]
