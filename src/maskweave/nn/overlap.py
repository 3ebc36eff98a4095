"""Join patches that overlap their neighbors, so that the seams between them are smooth.

Each token gives a window that reaches half a patch beyond its own on both sides along each axis. Windows are added with raised-cosine weights that
sum to 1 at each point, as in the overlap-add of audio coding. Used for grids of one or two axes.

Dimension letters: B batch, N tokens, C channels, W points of a window.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def window_sizes(patch: Sequence[int]) -> tuple[int, ...]:
    """Returns the points of a window along each axis: twice those of its patch, one less if they are odd."""
    return tuple(p + 2 * (p // 2) for p in patch)


def blend(rows_BNx: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Joins windows (B, N, C · W), channel by channel, to values (B, C, *size)."""
    sizes = window_sizes(patch)
    grid2, patch2, window2 = ((1,) * (2 - len(patch)) + tuple(axis) for axis in (grid, patch, sizes))
    margins = tuple((w - p) // 2 for w, p in zip(window2, patch2, strict=True))
    size = tuple(g * p for g, p in zip(grid2, patch2, strict=True))

    def join(windows: Tensor) -> Tensor:  # (B, C · W, N)
        return F.fold(windows, size, window2, stride=patch2, padding=margins)

    weight = torch.ones(1, device=rows_BNx.device)
    for w in window2:
        bump = torch.sin(math.pi * (torch.arange(w, device=rows_BNx.device) + 0.5) / w) ** 2
        weight = (weight[:, None] * bump).flatten()
    weight = weight.to(rows_BNx.dtype)
    total = join(
        weight[None, :, None].expand(1, -1, rows_BNx.shape[1])
    )  # below 1 at the ends, where one window is alone
    windows = rows_BNx.unflatten(-1, (-1, len(weight))) * weight
    joined = join(windows.flatten(2).transpose(1, 2)) / total
    return joined.flatten(2, 3) if len(patch) == 1 else joined
