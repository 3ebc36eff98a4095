"""Transformer blocks for groups of samples of different lengths, without padding between groups.

The tokens of all groups are concatenated. Norms, linear layers and MLPs work on single tokens and run once on all of them; only attention
runs per group.

Dimension letters: T tokens of all groups, b samples of a group, N tokens of each of them, D width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.nn.cpu import GROUPED_ROWS, attend, row_multiple
from maskweave.nn.layers import Block


class VarlenGroup(NamedTuple):
    """Samples of equal length."""

    samples: int
    length: int
    mask: Tensor | None
    """Attention mask, as `Attention` takes it."""

    @property
    def tokens(self) -> int:
        return self.samples * self.length


class VarlenBlock(Block):
    """A block that also accepts the concatenated tokens of several groups."""

    def forward(self, x: Tensor, mask: Tensor | None = None, groups: Sequence[VarlenGroup] = ()) -> Tensor:
        """Takes one group (b, N, D), or the concatenated tokens (T, D) of `groups`, with any padding at the end."""
        if not groups:
            return super().forward(x, mask)
        x = x + self._attend(self.norm1(x), groups)
        return x + self.mlp(self.norm2(x))

    def compile(self, *args: Any, **options: Any) -> None:
        """As of any module; attention to groups stays outside of the graphs, which would otherwise be recompiled for the groups of every batch."""
        # Disabled only here: it imports torch's compiler, which takes as long as torch.
        VarlenBlock._attend = torch.compiler.disable(VarlenBlock._attend)  # type: ignore[method-assign]
        super().compile(*args, **options)

    def _attend(self, x_TD: Tensor, groups: Sequence[VarlenGroup]) -> Tensor:
        attention = self.attention
        sizes = _sizes(x_TD, groups)
        projected = [layer(x_TD).split(sizes) for layer in (attention.q, attention.k, attention.v)]
        found = []
        for group, *qkv in zip(groups, *projected, strict=False):
            q, k, v = (attention.split(part.unflatten(0, (group.samples, group.length))) for part in qkv)
            seen_bHNd = attend(attention.q_norm(q), attention.k_norm(k), v, group.mask)
            found.append(seen_bHNd.transpose(1, 2).reshape(group.tokens, -1))
        padding = projected[-1][-1]
        return attention.out(torch.cat([*found, padding]))


def run_blocks(blocks: nn.ModuleList, given: Sequence[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
    """Applies all `VarlenBlock`s to the tokens (b, N, D) and mask of each group. A single group takes the plain path."""
    if len(given) == 1:
        ((x_bND, mask),) = given
        for block in blocks:
            x_bND = block(x_bND, mask)
        return [x_bND]
    groups = [VarlenGroup(x_bND.shape[0], x_bND.shape[1], mask) for x_bND, mask in given]
    row_TD = torch.cat([x_bND.flatten(0, 1) for x_bND, _ in given])
    row_TD = F.pad(row_TD, (0, 0, 0, -len(row_TD) % row_multiple(row_TD, GROUPED_ROWS)))
    for block in blocks:
        row_TD = block(row_TD, groups=groups)
    *parts, _ = row_TD.split(_sizes(row_TD, groups))
    return [part.view_as(x_bND) for part, (x_bND, _) in zip(parts, given, strict=True)]


def _sizes(row_TD: Tensor, groups: Sequence[VarlenGroup]) -> list[int]:
    """Number of tokens of each group, and of the padding."""
    tokens = [group.tokens for group in groups]
    return [*tokens, len(row_TD) - sum(tokens)]
