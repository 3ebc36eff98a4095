"""Heads that predict a class, a dense map or boxes from an encoder's features.

Dimension letters: B samples, N tokens, D width of the encoder, d width of the head, K classes, C output channels, Q queries, h and w rows and
columns of the feature map, H and W of the output.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.models.encoder import Encoded
from maskweave.models.fourm import DecoderBlock, FourMConfig
from maskweave.nn.convnext import ConvNeXtBlock
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import MLP, LayerNorm, initialize, sine_cosine


class ClassHead(nn.Module):
    """Predicts class logits (B, K) from the mean of the tokens."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.norm = LayerNorm(width)
        self.out = Linear(width, num_classes)
        initialize(self)

    def forward(self, encoded: Encoded) -> Tensor:
        return self.out(self.norm(encoded.pooled))


class DenseHead(nn.Module):
    """Predicts a map (B, C, H, W) with ConvNeXt blocks on the upsampled features, as in MultiMAE (https://arxiv.org/abs/2204.01678) and 4M.

    Args:
        names: inputs whose feature maps are concatenated; their grids must be the same.
        channels: of the output.
        size: H and W of the output; the output of the blocks is resized to it.
        head_width: channels of the blocks.
        depth: number of blocks.
        upsample: each token becomes upsample × upsample positions.
    """

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        channels: int,
        size: tuple[int, int],
        head_width: int,
        depth: int,
        upsample: int,
    ):
        super().__init__()
        self.names, self.size = list(names), size
        self.project = Linear(len(names) * width, head_width * upsample**2)
        self.unfold = nn.PixelShuffle(upsample)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(head_width) for _ in range(depth)))
        self.out = nn.Conv2d(head_width, channels, 1)
        initialize(self)

    def forward(self, encoded: Encoded) -> Tensor:
        maps = torch.cat([encoded.feature_map(name) for name in self.names], dim=1)
        x_BdHW = self.unfold(self.project(maps.movedim(1, -1)).movedim(-1, 1))
        x_BCHW = self.out(self.blocks(x_BdHW))
        return F.interpolate(x_BCHW.float(), self.size, mode="bilinear", align_corners=False)


class BoxHead(nn.Module):
    """Predicts a set of boxes from learned queries that attend to the tokens, as in DETR (https://arxiv.org/abs/2005.12872).

    Args:
        queries: largest number of boxes per sample.
        depth: number of decoder blocks.
    """

    undecayed = ("queries",)
    """Parameters without weight decay."""

    def __init__(self, width: int, num_classes: int, queries: int, head_width: int, depth: int, heads: int):
        super().__init__()
        if head_width % (2 * heads):
            raise MaskweaveError(f"head.width {head_width} must be an even multiple of head.heads {heads}")
        config = FourMConfig(
            width=head_width, heads=heads, qkv_bias=True, proj_bias=True, mlp_bias=True, norm_bias=True
        )
        self.project = Linear(width, head_width)
        self.queries = nn.Parameter(torch.zeros(queries, head_width))
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(depth))
        self.norm = LayerNorm(head_width)
        self.classes = Linear(head_width, num_classes + 1)
        self.boxes = MLP(head_width, 1.0, out=4)
        initialize(self)
        nn.init.normal_(self.queries, std=1.0)

    def forward(self, encoded: Encoded) -> Tensor:
        """Returns (depth, B, Q, K + 1 + 4), after each block: class logits, the last one for no object, then center, width and height from 0 to 1."""
        context = self.project(encoded.tokens)
        for name, grid in encoded.grids.items():
            positions = sine_cosine(grid, context.shape[-1]).to(context)
            context = context + F.pad(
                positions, (0, 0, encoded.slices[name].start, context.shape[1] - encoded.slices[name].stop)
            )
        mask = None if encoded.present is None else encoded.present[:, None, None]
        x_BQd = self.queries.expand(len(context), -1, -1)
        outputs = []
        for block in self.blocks:
            x_BQd = block(x_BQd, context, None, mask)
            y_BQd = self.norm(x_BQd)
            outputs.append(torch.cat([self.classes(y_BQd).float(), self.boxes(y_BQd).float().sigmoid()], dim=-1))
        return torch.stack(outputs)
