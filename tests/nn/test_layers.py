"""Attention, MLPs, positions and initialization against plain references."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskweave.nn import layers
from maskweave.nn.alignment import MULTIPLE, missing_width
from maskweave.nn.convnext import ConvNeXtBlock
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import (
    MLP,
    Attention,
    Biases,
    Block,
    LayerNorm,
    count_parameters,
    initialize,
    sine_cosine,
    without_memory,
)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_what_the_formula_says(qk_norm, masked) -> None:
    torch.manual_seed(0)
    B, N, M, D, H = 2, 3, 5, 8, 2
    layer = Attention(D, H, qk_norm=qk_norm)
    if qk_norm:
        nn.init.normal_(layer.q_norm.weight)
    x, context = torch.randn(B, N, D), torch.randn(B, M, D)
    mask = torch.rand(B, 1, N, M) < 0.5
    mask[..., 0] = True
    expected = torch.zeros(B, N, D)
    q, k, v = layer.q(x), layer.k(context), layer.v(context)
    for h in range(H):
        part = slice(h * D // H, (h + 1) * D // H)
        scores = layer.q_norm(q[..., part]) @ layer.k_norm(k[..., part]).transpose(1, 2) / math.sqrt(D // H)
        if masked:
            scores = scores.masked_fill(~mask[:, 0], -torch.inf)
        expected[..., part] = scores.softmax(-1) @ v[..., part]
    torch.testing.assert_close(layer(x, context, mask if masked else None), layer.out(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x), layer(x, x))


def test_mlps() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 12)
    plain, gated = MLP(12), MLP(12, gated=True, bias=False, out=5)
    torch.testing.assert_close(plain(x), plain.fc2(F.gelu(plain.fc1(x))))
    torch.testing.assert_close(gated(x), gated.fc2(F.silu(gated.fc1(x)) * gated.fc3(x)))
    assert gated.fc1.out_features == int(2 / 3 * 4 * 12)
    assert gated(x).shape == (4, 5)
    assert not any(name.endswith("bias") for name, _ in gated.named_parameters())


@pytest.mark.parametrize(("gated", "bias"), [(True, False), (False, True)])
def test_a_padded_mlp_is_the_same(gated: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mlp, x = MLP(32, 4.1, bias, gated), torch.randn(5, 3, 32)
    found = []
    for by in (0, -mlp.fc1.out_features % MULTIPLE):
        monkeypatch.setattr(layers, "missing_width", lambda *_, by=by: by)
        y = mlp(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(mlp.parameters()))])
    assert by > 0
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-4, atol=1e-5)


def test_only_odd_widths_on_a_gpu_are_padded() -> None:
    on_gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"), numel=lambda: 2048 * 32)
    few = SimpleNamespace(device=on_gpu.device, numel=lambda: 2047 * 32)
    odd, even = Linear(32, 2730), Linear(32, 2752)
    assert missing_width(on_gpu, odd) == 22 and 2730 + 22 == 2752
    assert missing_width(on_gpu, even) == missing_width(few, odd) == missing_width(torch.zeros(4096, 32), odd) == 0


def test_a_block_adds_to_its_input() -> None:
    torch.manual_seed(0)
    block, x = Block(8, 2), torch.randn(2, 3, 8)
    y = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))
    assert not [
        name
        for name, _ in Block(
            8, 2, biases=Biases(False, False, False, False), qk_norm=True, gated=True
        ).named_parameters()
        if "bias" in name
    ]


def test_layer_norm_has_the_published_epsilon() -> None:
    assert LayerNorm(4).eps == 1e-6
    assert LayerNorm(4, bias=False).bias is None


def test_positions_of_one_axis() -> None:
    table = sine_cosine((7,), 8)
    for position in range(7):
        for i in range(4):
            angle = position * 10000 ** (-i / 4)
            assert table[position, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_positions_of_two_axes_are_a_quarter_each() -> None:
    table = sine_cosine((3, 5), 16).reshape(3, 5, 16)
    for row in range(3):
        for column in range(5):
            for i in range(4):
                omega = 10000 ** (-i / 4)
                four = [f(axis * omega) for axis in (row, column) for f in (math.sin, math.cos)]
                assert table[row, column, i::4].tolist() == pytest.approx(four, abs=1e-6)


@pytest.mark.parametrize(("shape", "width"), [((5,), 7), ((2, 3), 18), ((2, 3, 4), 32), ((2, 2, 2), 12)])
def test_positions_are_distinct_and_fill_any_width(shape, width) -> None:
    table = sine_cosine(shape, width)
    assert table.shape == (math.prod(shape), width)
    assert table.dtype == torch.float32
    assert len(table.unique(dim=0)) == len(table)
    share = width // len(shape) // 2 * 2
    assert (table[:, share * len(shape) :] == 0).all()


def test_initialization_is_that_of_mae() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(400, 200), nn.Conv2d(3, 64, 4), nn.Embedding(500, 64), LayerNorm(8))
    with torch.no_grad():
        for parameter in module[:3].parameters():
            parameter.fill_(7)
    initialize(module)
    for weight, fan in ((module[0].weight, 600), (module[1].weight, 64 + 48)):
        bound = math.sqrt(6 / fan)
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert (module[0].bias == 0).all()
    assert (module[1].bias == 0).all()
    assert module[2].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert (module[3].weight == 1).all()
    assert count_parameters(module) == 400 * 200 + 200 + 64 * 48 + 64 + 500 * 64 + 16


def test_a_convnext_block_adds_what_it_computes() -> None:
    """By hand, with a kernel that looks one column to the left, on a picture that is not square."""
    torch.manual_seed(0)
    block = ConvNeXtBlock(3, scaled=True)
    torch.nn.init.zeros_(block.spatial.weight)
    torch.nn.init.zeros_(block.spatial.bias)  # type: ignore[arg-type]
    block.spatial.weight.data[:, 0, 3, 2] = 1.0
    block.scale.data = torch.tensor([0.5, 2.0, -1.0])  # type: ignore[union-attr]
    x_BCHW = torch.randn(2, 3, 4, 6)
    left = torch.zeros_like(x_BCHW)
    left[..., 1:] = x_BCHW[..., :-1]
    added = torch.stack(
        [
            block.mlp(block.norm(left[b, :, i, j])) * torch.tensor([0.5, 2.0, -1.0])
            for b in range(2)
            for i in range(4)
            for j in range(6)
        ]
    )
    expected = x_BCHW + added.reshape(2, 4, 6, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x_BCHW), expected, rtol=1e-5, atol=1e-5)
    plain = ConvNeXtBlock(3)
    assert plain.scale is None and not torch.equal(plain(x_BCHW), x_BCHW)


def test_modules_without_memory_have_their_computed_buffers() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(Linear(400, 200), nn.Conv2d(3, 8, 2), LayerNorm(8), nn.Embedding(5, 8))
            self.register_buffer("positions", sine_cosine((3, 4), 8))
            initialize(self)

    before = torch.get_rng_state()
    with without_memory():
        part = Part()
    assert {p.device.type for p in part.parameters()} == {"meta"}
    assert torch.equal(part.positions, sine_cosine((3, 4), 8))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before), "no random number is drawn"
    assert torch.empty(1).device.type == "cpu"
