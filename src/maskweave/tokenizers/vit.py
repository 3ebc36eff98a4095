"""Vision Transformer encoder and decoder for grids with one to three axes, the ViT VQ-VAE of 4M (https://arxiv.org/abs/2312.06647, appendix B).

One linear layer embeds the patches and one outputs them; between them are pre-norm blocks with fixed sine-cosine positions. Feature maps are maps
with many channels and often a patch size of one point. Class maps are embedded as input and are output as logits.

Dimension letters: B batch, C channels, K classes, N tokens, D latent channels, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import TokenizerSpec
from maskweave.nn.convnext import ConvNeXtBlock
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import MLP, Block, LayerNorm, initialize, sine_cosine
from maskweave.nn.overlap import blend, window_sizes
from maskweave.nn.patches import patchify, unpatchify
from maskweave.values.unknown import with_validity

CODE_SCALE = 3.0
"""Initial standard deviation of the codes in the decoder's input; positions have 0.7. With the smaller Xavier initialization, training is far slower."""


class ViTEncoder(nn.Module):
    """Encodes values (B, C, *size), or class indices (B, *size), to latents (B, N, D). Unknown points are NaN or −1."""

    positions: Tensor

    def __init__(self, modality: Modality, spec: TokenizerSpec):
        super().__init__()
        self.grid = modality.grid
        points = math.prod(modality.patch)
        value = modality.value
        self.classes = nn.Embedding(value.input_channels, spec.class_width) if value.num_classes else None
        self.sees_validity = value.has_unknown
        self.patches = Linear(points * (spec.class_width if value.num_classes else value.input_channels), spec.width)
        self.register_buffer("positions", fixed_positions(modality, spec, spec.width), persistent=False)
        self.blocks = nn.ModuleList(Block(spec.width, spec.heads) for _ in range(spec.depth))
        self.norm = TAILS[spec.tail](spec.width)
        self.latents = Linear(spec.width, spec.quantizer.latent_dim)
        initialize(self)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight)  # on the scale of the other value types' inputs

    def forward(self, x: Tensor) -> Tensor:
        if self.classes is not None:
            x = self.classes(x.remainder(self.classes.num_embeddings))  # −1 is the last
        else:
            x = (with_validity(x) if self.sees_validity else x).movedim(1, -1)
        x = self.patches(patchify(x, self.grid)) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.latents(self.norm(x))


class ViTDecoder(nn.Module):
    """Decodes codes (B, N, D) to values (B, C, *size), to class logits (B, K, *size), or to the logits of binary values (B, 1, *size). If unknown
    points are predicted, the logits of their validity follow, (B, C, *size).

    Args:
        code_length: root mean square length of a code. The first layer is initialized so that codes are larger than positions.
    """

    positions: Tensor

    def __init__(self, modality: Modality, spec: TokenizerSpec, code_length: float = 1.0):
        super().__init__()
        self.grid, self.patch = modality.grid, modality.patch
        channels = modality.value.output_channels + modality.value.channels * modality.value.predicts_unknown
        width = spec.decoder_width or spec.width
        self.latents = Linear(spec.quantizer.latent_dim, width)
        self.register_buffer("positions", fixed_positions(modality, spec, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, spec.decoder_heads or spec.heads) for _ in range(spec.decoder_depth))
        self.norm = TAILS[spec.tail](width)
        self.blends = spec.overlap == "blend" or (spec.overlap == "auto" and modality.value.blends_patches)
        points = math.prod(window_sizes(modality.patch) if self.blends else modality.patch)
        self.patches = Linear(width, points * channels)
        self.image = nn.Sequential(*(ConvNeXtBlock(channels, spec.image_scale) for _ in range(spec.image_blocks)))
        initialize(self)
        nn.init.normal_(self.latents.weight, std=CODE_SCALE / code_length)

    def forward(self, z_BND: Tensor) -> Tensor:
        x = self.latents(z_BND) + self.positions
        for block in self.blocks:
            x = block(x)
        rows = self.patches(self.norm(x))
        if self.blends:
            return self.image(blend(rows, self.grid, self.patch))
        return self.image(unpatchify(rows, self.grid, self.patch).movedim(-1, 1))


class PostMLP(nn.Module):
    """x + MLP(LayerNorm(x)) with tanh between its layers, always in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x_BNW: Tensor) -> Tensor:
        with torch.autocast(x_BNW.device.type, enabled=False):
            x_BNW = x_BNW.float()
            return x_BNW + self.mlp.fc2(torch.tanh(self.mlp.fc1(self.norm(x_BNW))))


TAILS = {"norm": LayerNorm, "mlp": PostMLP, "none": nn.Identity}


def fixed_positions(modality: Modality, spec: TokenizerSpec, width: int) -> Tensor:
    """Sine-cosine positions (N, W) of the entry's grid. If the tokenizer was trained with another grid, its positions are resized bicubically."""
    if spec.trained_grid in (None, modality.grid):
        return sine_cosine(modality.grid, width)
    table = sine_cosine(spec.trained_grid, width).T.unflatten(1, spec.trained_grid)
    return F.interpolate(table[None], modality.grid, mode="bicubic")[0].flatten(1).T.contiguous()
