"""Windows, patches, padded widths, 8-bit rows, and logistic regression, against numbers computed by hand or the plain formula."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskweave.nn.alignment import missing_width, padded_inputs, padded_outputs
from maskweave.nn.convnext import ConvNeXtBlock
from maskweave.nn.cpu import Linear
from maskweave.nn.int8 import DequantizedTensors, quantize_rows
from maskweave.nn.logistic import fit_logistic
from maskweave.nn.overlap import blend, window_sizes
from maskweave.nn.patches import patchify, unpatchify


def test_windows_reach_half_a_patch_beyond_their_own() -> None:
    assert window_sizes((4, 5, 1, 2)) == (8, 9, 1, 4)


def test_windows_are_added_with_raised_cosines() -> None:
    """Two tokens of four points: windows of eight, of which four lie on both."""
    rows = torch.randn(1, 2, 2 * 8, generator=torch.Generator().manual_seed(0))
    weight = [math.sin(math.pi * (i + 0.5) / 8) ** 2 for i in range(8)]
    expected = torch.zeros(2, 8)
    for channel in range(2):
        for point in range(8):
            parts = [(rows[0, t, 8 * channel + at], weight[at]) for t in range(2) if 0 <= (at := point + 2 - 4 * t) < 8]
            expected[channel, point] = sum(x * w for x, w in parts) / sum(w for _, w in parts)
    assert torch.allclose(blend(rows, (2,), (4,))[0], expected, atol=1e-6)


@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy])
def test_patches_are_rows_of_points_with_their_channels(of: Any) -> None:
    array = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    rows = patchify(of(array), (2, 3))
    assert tuple(rows.shape) == (2, 6, 12)
    assert rows[1, 4].tolist() == array[1, 2:4, 2:4].reshape(-1).tolist()
    assert (np.asarray(unpatchify(rows, (2, 3), (2, 2))) == array).all()
    solid = np.arange(2 * 4 * 2 * 6).reshape(1, 2, 4, 2, 6)
    assert patchify(of(solid), (1, 2, 2))[0, 3].tolist() == solid[0, :, 2:, 1].reshape(-1).tolist()
    assert (np.asarray(unpatchify(patchify(of(solid), (1, 2, 2)), (1, 2, 2), (2, 2, 1))) == solid).all()


class OnGpu:
    """A tensor of which only the place and the size are asked."""

    def __init__(self, numbers: int, device: str = "cuda"):
        self.device, self.numbers = torch.device(device), numbers

    def numel(self) -> int:
        return self.numbers


@pytest.mark.parametrize(
    ("outputs", "rows", "device", "by"),
    [(30, 2048, "cuda", 34), (30, 2047, "cuda", 0), (32, 2048, "cuda", 0), (36, 2048, "cuda", 28), (30, 2048, "cpu", 0), (63, 4096, "cuda", 1), (65, 2048, "cuda", 63)],
)  # fmt: skip
def test_odd_widths_of_many_rows_are_padded_to_a_multiple_of_64(outputs: int, rows: int, device: str, by: int) -> None:
    assert missing_width(OnGpu(rows * 16, device), Linear(16, outputs)) == by  # type: ignore[arg-type]
    assert missing_width(OnGpu(rows * 16, device), nn.Linear(16, outputs)) == 0, "not one with LoRA"  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [True, False])
def test_padding_changes_no_result(bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(5, 3, bias=bias), torch.randn(4, 5)
    padded = padded_outputs(x, layer, 2)
    assert torch.allclose(padded[:, :3], F.linear(x, layer.weight, layer.bias)) and (padded[:, 3:] == 0).all()
    assert torch.allclose(padded_inputs(F.pad(x, (0, 2), value=9), layer, 2), F.linear(x, layer.weight, layer.bias))


def test_a_convnext_block_is_a_convolution_a_norm_and_an_mlp() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 10)
    for scaled in (False, True):
        block = ConvNeXtBlock(6, scaled)
        if block.scale is not None:
            assert (block.scale == 1).all()
            nn.init.normal_(block.scale)
        inner = F.conv2d(x, block.spatial.weight, block.spatial.bias, padding=3, groups=6).permute(0, 2, 3, 1)
        inner = block.mlp(block.norm(inner)) * (1 if block.scale is None else block.scale)
        assert torch.allclose(block(x), x + inner.permute(0, 3, 1, 2), atol=1e-6)
        assert block.spatial.weight.shape == (6, 1, 7, 7)


class Stored:
    """An open file of tensors."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        self.tensors = tensors

    def keys(self) -> list[str]:
        return [*self.tensors]

    def get_tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    get_slice = get_tensor


def test_rows_in_8_bits_are_read_as_numbers() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(4, 3, 2), "b": torch.zeros(2, 2), "c.int8_scale": torch.ones(3), "d": torch.ones(4)}
    quantized = {
        **quantize_rows("a", weights["a"]),
        **quantize_rows("b", weights["b"]),
        "c.int8_scale": torch.ones(3),
        "d": torch.ones(4),
    }
    quantized |= {"whole": torch.ones(3, dtype=torch.int8), "whole.int8_scale": torch.tensor([2.0])}
    found = DequantizedTensors(Stored(quantized))
    assert found.keys() == ["a", "b", "c.int8_scale", "d", "whole"]
    assert quantized["a"].dtype == torch.int8 and quantized["a"].abs().amax() == 127
    bound = weights["a"].abs().flatten(1).amax(1) / 254
    assert ((found.get_tensor("a") - weights["a"]).abs().flatten(1).amax(1) <= bound * 1.001).all()
    assert (found.get_tensor("b") == 0).all() and (found.get_tensor("d") == 1).all()
    assert found.get_tensor("whole").dtype == torch.int8, "a row of numbers has no scales"
    assert found.get_slice("d") is quantized["d"]


@pytest.mark.parametrize("several", [False, True])
def test_logistic_regression_ends_where_the_gradient_is_zero(several: bool) -> None:
    torch.manual_seed(0)
    x, decay = torch.randn(60, 4, dtype=torch.float64), 0.1
    labels = torch.randint(3, (60,))
    target = F.one_hot(labels, 3).double()
    if several:
        labels = target = torch.randint(2, (60, 3)).double()
    weight, bias = fit_logistic(x, labels, torch.zeros(3, 4).double(), torch.zeros(3).double(), decay)
    logits = x @ weight.T + bias
    share = logits.sigmoid() if several else logits.softmax(1)
    assert torch.allclose((share - target).T @ x / 60 + decay * weight, torch.zeros(3, 4).double(), atol=1e-5)
    assert torch.allclose((share - target).mean(0), torch.zeros(3).double(), atol=1e-5)
