"""Decoded patches that are blended with their neighbors."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from maskweave.data.token_store import entry_fingerprint
from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Diffusion, Quantizer, TokenizerSpec
from maskweave.nn.overlap import blend, window_sizes
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.series import Series

SPEC = TokenizerSpec(width=32, heads=2, quantizer=Quantizer("fsq", levels=(8, 8)))


@pytest.mark.parametrize(("grid", "patch"), [((5,), (4,)), ((3,), (5,)), ((4,), (1,)), ((2, 3), (4, 2)), ((1,), (6,))])
def test_equal_windows_join_to_a_constant(grid: tuple[int, ...], patch: tuple[int, ...]) -> None:
    sizes = window_sizes(patch)
    rows = torch.ones(2, int(np.prod(grid)), 3, int(np.prod(sizes))) * torch.tensor([1.0, 2, 3])[:, None]
    out = blend(rows.flatten(2), grid, patch)
    size = [g * p for g, p in zip(grid, patch, strict=True)]
    assert out.shape == (2, 3, *size)
    assert torch.allclose(out, torch.tensor([1.0, 2, 3]).view(1, 3, *[1] * len(size)).expand_as(out), atol=1e-6)


def test_a_step_between_tokens_becomes_a_ramp() -> None:
    rows = torch.zeros(1, 2, 8)
    rows[:, 1] = 1
    out = blend(rows, (2,), (4,))[0, 0]
    assert out[:2].tolist() == [0, 0] and out[-2:].tolist() == [1, 1]
    assert (out.diff() >= 0).all() and out.diff().max() < 0.4


def test_windows_lie_in_the_order_of_their_tokens() -> None:
    size, grid, patch = (6, 8), (3, 2), (2, 4)
    wanted = torch.arange(48.0).view(1, 1, *size)
    padded = torch.nn.functional.pad(wanted, (2, 2, 1, 1), mode="replicate")[0, 0]
    rows = torch.stack([padded[2 * i : 2 * i + 4, 4 * j : 4 * j + 8].flatten() for i in range(3) for j in range(2)])
    assert torch.allclose(blend(rows[None], grid, patch), wanted, atol=1e-4)


def seam_jumps(value: Any, overlap: Any) -> float:
    torch.manual_seed(0)
    spec = dataclasses.replace(SPEC, overlap=overlap)
    tokenizer = GridTokenizer(Modality("a", 1, "grid", value, grid=(8,), tokenizer=spec)).eval()
    with torch.inference_mode():
        out = tokenizer.decode_tensor(torch.randint(64, (64, 8)))[:, 0]
    step = out.diff(dim=1).abs().mean(dim=0)
    return float(step[7::8].mean() / step.mean())


def test_series_are_blended_by_default_and_maps_if_asked() -> None:
    series, spectrum = Series((64,), mean=(0,), std=(1,)), Map((64,), range=(0, 1))
    assert seam_jumps(series, "auto") == seam_jumps(series, "blend") < 1.2
    assert seam_jumps(spectrum, "auto") == seam_jumps(spectrum, "none")
    assert seam_jumps(spectrum, "blend") < seam_jumps(spectrum, "none")


def test_the_setting_does_not_change_old_fingerprints() -> None:
    old = Modality("a", 1, "grid", Map((64,), range=(0, 1)), grid=(8,), tokenizer=SPEC)
    assert entry_fingerprint(old) == "397eda56f33ff803"


@pytest.mark.parametrize(
    "entry",
    [
        Modality("a", 1, "grid", Map((8, 8, 8), range=(0, 1)), grid=(2, 2, 2)),
        Modality(
            "a",
            1,
            "grid",
            Image((8, 8)),
            grid=(2, 2),
            tokenizer=TokenizerSpec(diffusion=Diffusion(widths=(32,), attention=0)),
        ),
    ],
)
def test_what_cannot_be_blended(entry: Modality) -> None:
    spec = dataclasses.replace(entry.tokenizer or SPEC, overlap="blend")
    with pytest.raises(MaskweaveError, match="overlap: blend is for the ViT decoder and grids of one or two axes"):
        GridTokenizer(dataclasses.replace(entry, tokenizer=spec))
