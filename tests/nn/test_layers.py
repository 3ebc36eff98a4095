"""Attention, MLPs, positions and initialization against plain references."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskweave.nn import layers
from maskweave.nn.layers import (
    _ONEDNN,
    MLP,
    Attention,
    Biases,
    Block,
    LayerNorm,
    Linear,
    PackedLinear,
    count_parameters,
    initialize,
    pack_linear_layers,
    sine_cosine,
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


@pytest.mark.parametrize("bias", [True, False])
def test_linear_predicts_what_torch_does(bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(48, 30, bias=bias), torch.randn(4, 5, 48)
    with torch.no_grad():
        for part in (x, x[:0], x[0], x[0, 0], x.transpose(0, 1)):
            expected = F.linear(part, layer.weight, layer.bias)
            torch.testing.assert_close(layer(part), expected, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.double()(x.double()).dtype == torch.float64
    layer.float()(x).sum().backward()  # where there are gradients, torch's own
    torch.testing.assert_close(layer.weight.grad, x.sum((0, 1)).expand(30, -1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("of_x", [True, False])
@pytest.mark.parametrize("shape", [(6,), (0, 6), (4, 6), (2, 3, 6), (2, 0, 3, 6)])
def test_linear_layers_and_their_gradients_are_those_of_torch(shape, of_x, bias) -> None:
    torch.manual_seed(0)
    layer, plain, up = Linear(6, 5, bias=bias), nn.Linear(6, 5, bias=bias), torch.randn(*shape[:-1], 5)
    plain.load_state_dict(layer.state_dict())
    for x in (torch.randn(shape), torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])):
        for upstream in (up, up[..., :1].expand(up.shape), torch.ones(()).expand(up.shape)):
            found = []
            for one in (layer, plain):
                given = x.clone().requires_grad_(of_x)
                one.zero_grad()
                y = one(given)
                y.backward(upstream)
                assert one.weight.grad.is_contiguous()
                found.append([y, given.grad, *(p.grad for p in one.parameters())])
            for ours, theirs in zip(*found, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    layer.weight.requires_grad_(False)
    layer(torch.randn(shape).requires_grad_()).sum().backward()


@pytest.mark.skipif(not _ONEDNN, reason="this build of torch is without oneDNN")
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_alike_alone_and_among_others(packed) -> None:
    torch.manual_seed(0)
    layer, x = Linear(384, 500), torch.randn(20, 384)
    layer = PackedLinear(layer, torch.float32) if packed else layer
    with torch.no_grad():
        together = layer(x)
        assert all(torch.equal(layer(x[:n]), together[:n]) for n in (2, 3, 8, 17))


@pytest.mark.skipif(not _ONEDNN, reason="this build of torch is without oneDNN")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_packed_layers_are_the_layers_they_replace(dtype, tolerance) -> None:
    torch.manual_seed(0)
    block, x = Block(16, 2, biases=Biases(qkv=False)), torch.randn(3, 5, 16)
    packed = copy.deepcopy(block)
    assert pack_linear_layers(packed, dtype)
    assert not any(isinstance(layer, nn.Linear) for layer in packed.modules())
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), block(x), rtol=tolerance, atol=tolerance)
        assert packed.mlp.fc1(x).dtype == dtype
        assert packed.mlp.fc1(x[:0]).shape == (0, 5, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_onednn_layers_stay_as_they_are(dtype, monkeypatch) -> None:
    monkeypatch.setattr(layers, "_ONEDNN", False)
    block = Block(16, 2)
    assert not pack_linear_layers(block, dtype)
    assert isinstance(block.mlp.fc1, nn.Linear)
