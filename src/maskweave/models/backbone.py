"""The encoder of a 4M model (https://arxiv.org/abs/2312.06647, section 3.1) as a plain Vision Transformer on images.

Dimension letters: B images, C channels, H rows and W columns of pixels, N patches, D width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.fourm import FourMConfig
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import Block, LayerNorm, sine_cosine
from maskweave.nn.patches import patchify, unpatchify


class Backbone(nn.Module):
    """Computes one vector per patch of an image.

    Args:
        modality: entry of the images, of kind `patches` with two axes; its mean and standard deviation define how pixels are scaled.
        config: configuration of the 4M model that the encoder comes from.
    """

    positions: Tensor
    decoder_parts: tuple[str, ...] = ()
    undecayed = ("registers",)
    """Parameters without weight decay."""

    def __init__(self, modality: Modality, config: FourMConfig):
        super().__init__()
        self.modality = modality
        self.config = config = config.resolved()
        D = config.width
        self.patches = Linear(modality.row_width, D, bias=False)
        self.embedding = nn.Parameter(torch.zeros(D))
        self.register_buffer("positions", sine_cosine(modality.grid, D), persistent=False)
        self.registers = nn.Parameter(torch.zeros(1, config.registers, D)) if config.registers else None
        self.encoder = nn.ModuleList(
            Block(D, config.heads, config.mlp_ratio, config.biases, config.gated, config.qk_norm)
            for _ in range(config.encoder_depth)
        )
        self.encoder_norm = LayerNorm(D, config.norm_bias)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Returns tokens (B, N, D) after the last norm, row by row, without register tokens.

        Args:
            pixels_BCHW: scaled by the entry's mean and deviation (`ValueType.to_network` does it). Height and
                width may differ from the entry's; positions are then resized.

        Raises:
            MaskweaveError: wrong number of channels, or height or width is not a multiple of the patch size.
        """
        C, patch = self.modality.value.channels, self.modality.patch
        if (
            pixels_BCHW.ndim != 4
            or pixels_BCHW.shape[1] != C
            or any(s % p for s, p in zip(pixels_BCHW.shape[2:], patch, strict=True))
        ):
            raise MaskweaveError(
                f"images of shape {tuple(pixels_BCHW.shape)}; expected (B, {C}, H, W) with H and W multiples of {patch}: resize or crop them"
            )
        grid = tuple(s // p for s, p in zip(pixels_BCHW.shape[2:], patch, strict=True))
        x_BND = self.patches(patchify(pixels_BCHW.movedim(1, -1), grid)) + self.positions_of(grid) + self.embedding
        registers = 0
        if self.registers is not None:
            registers = self.registers.shape[1]
            x_BND = torch.cat([self.registers.expand(len(x_BND), -1, -1), x_BND], dim=1)
        for block in self.encoder:
            x_BND = block(x_BND)
        return self.encoder_norm(x_BND)[:, registers:]

    def positions_of(self, grid: tuple[int, ...]) -> Tensor:
        """(N, D) position embeddings, resized bicubically from the grid that the model was trained on."""
        if grid == self.modality.grid:
            return self.positions
        table = self.positions.T.unflatten(1, self.modality.grid)[None]
        return F.interpolate(table, grid, mode="bicubic", align_corners=False)[0].flatten(1).T

    def readable(self, catalog: Catalog) -> list[str]:
        """Returns the image modality."""
        return [self.modality.name]

    def encode_inputs(self, inputs: Inputs, catalog: Catalog) -> Tensor:
        """Returns (B, N, D), the output at each patch."""
        pixels = unpatchify(inputs.content[self.modality.name], self.modality.grid, self.modality.patch)
        return self(pixels.movedim(-1, 1))

    def input_parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        """Returns the parameters that embed the images."""
        return list(self.patches.parameters()) if self.modality.name in names else []
