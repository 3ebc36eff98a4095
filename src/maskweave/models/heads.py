"""Heads that predict a dense map or a set of boxes from an encoder's features.

Dimension letters: B samples, N tokens, D width of the encoder, d width of the head, K classes, C output channels, Q queries, h and w rows and
columns of the feature map, H and W of the output, P numbers of a box.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.models.encoder import Encoded
from maskweave.models.fourm import DecoderBlock, FourMConfig
from maskweave.nn.convnext import ConvNeXtBlock
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import MLP, LayerNorm, initialize, sine_cosine


class DenseHead(nn.Module):
    """Predicts a map (B, C, H, W) with ConvNeXt blocks on the upsampled features, as in MultiMAE (https://arxiv.org/abs/2204.01678) and 4M.

    With `skipped`, it also sees these inputs themselves at full resolution, as in U-Net (https://arxiv.org/abs/1505.04597): a linear layer on each point, and
    convolutions on the point's surroundings together with the features.

    Args:
        names: inputs whose feature maps are concatenated; their grids must be the same.
        channels: of the output.
        size: H and W of the output; the output of the blocks is resized to it.
        head_width: channels of the blocks.
        depth: number of blocks.
        upsample: each token becomes upsample × upsample positions.
        skipped: channels of each input of the output's size that is read at full resolution, by name.
        skip_width: channels of the convolutions at full resolution.
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
        skipped: Mapping[str, int] | None = None,
        skip_width: int = 32,
    ):
        super().__init__()
        self.names, self.size = list(names), size
        self.project = Linear(len(names) * width, head_width * upsample**2)
        self.unfold = nn.PixelShuffle(upsample)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(head_width) for _ in range(depth)))
        self.out = nn.Conv2d(head_width, channels, 1)
        self.skipped = dict(skipped or {})
        self.skip = FullResolution(self.skipped, head_width, channels, skip_width) if self.skipped else None
        initialize(self)

    def forward(self, encoded: Encoded) -> Tensor:
        maps = torch.cat([encoded.feature_map(name) for name in self.names], dim=1)
        x_BdHW = self.blocks(self.unfold(self.project(maps.movedim(1, -1)).movedim(-1, 1)))
        x_BCHW = F.interpolate(self.out(x_BdHW).float(), self.size, mode="bilinear", align_corners=False)
        return x_BCHW if self.skip is None else x_BCHW + self.skip(encoded.raw, x_BdHW)


class FullResolution(nn.Module):
    """Predicts a map (B, C, H, W) from raw inputs of its size, with the features of the encoder as context.

    Args:
        inputs: channels of each input, by name.
        context: channels of the features.
    """

    raw_mean: Tensor
    raw_std: Tensor

    def __init__(self, inputs: Mapping[str, int], context: int, channels: int, width: int):
        super().__init__()
        self.inputs = list(inputs)
        raw = sum(inputs.values())
        self.linear = nn.Conv2d(2 * raw, channels, 1)
        self.stem = nn.Conv2d(2 * raw, width, 3, padding=1)
        self.context = nn.Conv2d(context, width, 1)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(2)))
        self.out = nn.Conv2d(width, channels, 1)
        # Standardize the inputs; fitted before training by `transfer.linear_start`, and the identity without it.
        self.register_buffer("raw_mean", torch.zeros(raw))
        self.register_buffer("raw_std", torch.ones(raw))

    def standardized(self, x_BCHW: Tensor) -> Tensor:
        """Returns (B, 2 C, H, W): all inputs standardized, 0 at unknown points, and which of them are known."""
        known = ~x_BCHW.isnan()
        x_BCHW = (x_BCHW - self.raw_mean[:, None, None]) / self.raw_std[:, None, None]
        return torch.cat([x_BCHW.masked_fill(~known, 0), known.to(x_BCHW.dtype)], dim=1)

    def forward(self, raw: Mapping[str, Tensor], context_BdHW: Tensor) -> Tensor:
        x_BCHW = self.standardized(torch.cat([raw[name] for name in self.inputs], dim=1))
        size = x_BCHW.shape[-2:]
        context = F.interpolate(self.context(context_BdHW), size, mode="bilinear", align_corners=False)
        y = self.blocks(F.gelu(self.stem(x_BCHW) + context))
        return (self.linear(x_BCHW) + self.out(y)).float()


class BoxHead(nn.Module):
    """Predicts a set of boxes from learned queries that attend to the tokens, as in DETR (https://arxiv.org/abs/2005.12872).

    Queries may also be the tokens of the first 2-D grid themselves, as in Efficient DETR (https://arxiv.org/abs/2104.01318): they know what is seen at their
    place, and their boxes start there, so that they learn from far fewer examples. Other inputs on the same grid are added to them.

    Args:
        queries: largest number of boxes per sample; 0: one for each token of the first 2-D grid.
        depth: number of decoder blocks.
        numbers: P; they are from 0 to 1, but for the last `free` ones, which are any. The first two are the center in the picture.
    """

    undecayed = ("queries",)
    """Parameters without weight decay."""

    def __init__(
        self,
        width: int,
        num_classes: int,
        queries: int,
        head_width: int,
        depth: int,
        heads: int,
        numbers: int = 4,
        free: int = 0,
    ):
        super().__init__()
        if head_width % (2 * heads):
            raise MaskweaveError(f"head.width {head_width} must be an even multiple of head.heads {heads}")
        config = FourMConfig(
            width=head_width, heads=heads, qkv_bias=True, proj_bias=True, mlp_bias=True, norm_bias=True
        )
        self.project = Linear(width, head_width)
        self.queries = nn.Parameter(torch.zeros(queries, head_width)) if queries else None
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(depth))
        self.norm = LayerNorm(head_width)
        self.classes = Linear(head_width, num_classes + 1)
        self.boxes = MLP(head_width, 1.0, out=numbers)
        self.bounded = numbers - free
        initialize(self)
        if self.queries is not None:
            nn.init.normal_(self.queries, std=1.0)

    def forward(self, encoded: Encoded) -> Tensor:
        """Returns (depth, B, Q, K + 1 + P), after each block: class logits, the last one for no object, then the numbers of the box."""
        context = self.project(encoded.tokens)
        for name, grid in encoded.grids.items():
            positions = sine_cosine(grid, context.shape[-1]).to(context)
            context = context + F.pad(
                positions, (0, 0, encoded.slices[name].start, context.shape[1] - encoded.slices[name].stop)
            )
        mask = None if encoded.present is None else encoded.present[:, None, None]
        if self.queries is None:
            grid = next(grid for grid in encoded.grids.values() if len(grid) == 2)
            same = [encoded.slices[name] for name, other in encoded.grids.items() if other == grid]
            x_BQd = torch.stack([context[:, tokens] for tokens in same]).mean(dim=0)
            start_QP = F.pad(middles(grid, context.device).logit(), (0, self.bounded - 2))
        else:
            x_BQd, start_QP = self.queries.expand(len(context), -1, -1), context.new_zeros(1, self.bounded)
        outputs = []
        for block in self.blocks:
            x_BQd = block(x_BQd, context, None, mask)
            y_BQd = self.norm(x_BQd)
            numbers = self.boxes(y_BQd).float()
            bounded, free = (numbers[..., : self.bounded] + start_QP).sigmoid(), numbers[..., self.bounded :]
            outputs.append(torch.cat([self.classes(y_BQd).float(), bounded, free], dim=-1))
        return torch.stack(outputs)


def middles(grid: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns the middles (Q, 2) of a grid's tokens, x and y from 0 to 1, row by row."""
    height, width = grid
    y, x = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)
