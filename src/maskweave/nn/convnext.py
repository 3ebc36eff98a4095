"""ConvNeXt block, https://arxiv.org/abs/2201.03545, figure 4. Dimension letters: B batch, C channels, H and W rows and columns."""

import torch
from torch import Tensor, nn

from maskweave.nn.layers import MLP, LayerNorm


class ConvNeXtBlock(nn.Module):
    """Depthwise 7×7 convolution, norm and a 4× wide GELU MLP over the channels, added to the input (B, C, H, W).

    Args:
        scaled: multiply what is added by a learned number for each channel.
    """

    def __init__(self, channels: int, scaled: bool = False):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm(channels)
        self.mlp = MLP(channels)
        self.scale = nn.Parameter(torch.ones(channels)) if scaled else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.spatial(x_BCHW).movedim(1, -1)))
        y = y if self.scale is None else y * self.scale
        return x_BCHW + y.movedim(-1, 1)
