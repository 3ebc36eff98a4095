"""Blocks for groups of different lengths: compiled ones are compiled once, whatever the groups of a batch."""

import copy

import pytest
import torch
from torch import nn

from maskweave.models.varlen import VarlenBlock, run_blocks


@torch.no_grad()
def test_new_groups_do_not_compile_blocks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VarlenBlock, "_attend", VarlenBlock._attend)  # compiling replaces it
    torch.manual_seed(0)
    graphs: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(len(inputs))
        return module.forward

    blocks = nn.ModuleList([VarlenBlock(8, 2)])
    plain = copy.deepcopy(blocks)
    blocks[0].compile(backend=backend, dynamic=True)
    compiled = []
    for groups in (((2, 3), (1, 5)), ((1, 5), (3, 2)), ((2, 4), (1, 3)), ((1, 2), (1, 9)), ((1, 5), (2, 3))):
        batch = [(torch.randn(b, n, 8), None) for b, n in groups]
        for found, right in zip(run_blocks(blocks, batch), run_blocks(plain, batch), strict=True):
            torch.testing.assert_close(found, right)
        compiled.append(len(graphs))
    assert compiled[0] > 0 and compiled[1] == compiled[-1], "the second batch may fix what varies"
