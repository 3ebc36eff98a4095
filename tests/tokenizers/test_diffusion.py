import dataclasses
import math
import sys

import numpy as np
import pytest
import torch

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Diffusion, Quantizer, TokenizerSpec
from maskweave.tokenizers.diffusion import DiffusionDecoder, make_scheduler, shifted_cosine
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.classes import Classes
from maskweave.values.map import Map

TINY = Diffusion(widths=(32, 32), layers=1, attention=1, patch=2, steps=3, training_steps=100)
SPEC = TokenizerSpec(width=16, heads=2, diffusion=TINY, quantizer=Quantizer("vq", codes=16, dim=4))
VALUE = Map((8, 12), 2, range=(-2, 2))


def entry(value=VALUE, **changes):
    spec = dataclasses.replace(SPEC, diffusion=dataclasses.replace(TINY, **changes))
    return Modality("probe", 1, "grid", value, grid=(2, 3), tokenizer=spec)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return GridTokenizer(entry()).eval()


def test_a_row_is_decoded_by_its_tokens_and_seed_alone(tokenizer, monkeypatch):
    tokens = torch.arange(12).reshape(2, 2, 3)
    whole = tokenizer.decode(tokens, seeds=[5, 6])
    assert whole.shape == (2, 8, 12, 2)
    np.testing.assert_array_equal(whole, tokenizer.decode(tokens, seeds=[5, 6]))
    np.testing.assert_allclose(tokenizer.decode(tokens[1:], seeds=[6])[0], whole[1], atol=1e-5)
    monkeypatch.setattr("maskweave.tokenizers.grid.BATCH", 1)
    np.testing.assert_allclose(tokenizer.decode(tokens, seeds=[5, 6]), whole, atol=1e-5)
    assert np.abs(tokenizer.decode(tokens, seeds=[5, 7])[1] - whole[1]).max() > 0.1
    assert np.abs(tokenizer.decode(tokens.flip(0), seeds=[5, 6]) - whole).max() > 1e-3  # the codes count
    twice = tokenizer.decode(torch.stack([tokens[0], tokens[0]]))
    np.testing.assert_allclose(twice[0], twice[1], atol=1e-5)


def test_seeds_are_as_many_as_rows(tokenizer):
    with pytest.raises(MaskweaveError, match="probe: 1 rows of tokens need as many seeds, found 2"):
        tokenizer.decode(torch.zeros(1, 2, 3, dtype=torch.long), seeds=[1, 2])
    assert tokenizer.decode(torch.zeros(0, 2, 3, dtype=torch.long)).shape == (0, 8, 12, 2)


@pytest.mark.parametrize(
    "prediction, schedule",
    [("sample", "linear"), ("epsilon", "linear"), ("v_prediction", "cosine"), ("v_prediction", "shifted_cosine"), ("sample", "shifted_cosine")],
)  # fmt: skip
def test_a_perfect_network_gives_the_value(tokenizer, monkeypatch, prediction, schedule):
    decoder = GridTokenizer(entry(prediction=prediction, schedule=schedule, shift=2.0, steps=7)).decoder
    x, scheduler = torch.rand(1, 2, 8, 12) * 2 - 1, make_scheduler(decoder.settings)

    def perfect(noisy, t, z):
        alpha = scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1).double()
        noise = (noisy - alpha.sqrt() * x) / (1 - alpha).sqrt()
        return {"sample": x, "epsilon": noise, "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * x}[
            prediction
        ].float()

    monkeypatch.setattr(decoder, "forward", perfect)
    decoded = decoder.decode(torch.zeros(1, 6, 4), torch.randn(1, 2, 8, 12))
    torch.testing.assert_close(decoded, x, atol=2e-3, rtol=0)
    output, target = decoder.train().training_pass(x, torch.zeros(1, 6, 4))
    torch.testing.assert_close(output, target, atol=2e-3, rtol=2e-3)


def test_evaluation_takes_no_chance(tokenizer):
    x, z = torch.randn(4, 2, 8, 12), torch.randn(4, 6, 4)
    before = torch.get_rng_state()
    first, second = (tokenizer.decoder.eval().training_pass(x, z) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_shifted_cosine_is_the_formula(shift):
    alphas = shifted_cosine(1000, shift)
    for step in (1, 100, 500, 900, 998):
        t = step / 999
        log_snr = -2 * (math.log(math.tan(math.pi * t / 2)) + math.log(shift))
        assert alphas[step].item() == pytest.approx(1 / (1 + math.exp(-max(-15, min(15, log_snr)))), rel=1e-5)
    assert alphas[0].item() == pytest.approx(1 / (1 + math.exp(-15))) and alphas[-1] == 0
    assert (alphas.diff() <= 0).all()
    scheduler = make_scheduler(dataclasses.replace(TINY, schedule="shifted_cosine", shift=shift))
    assert torch.equal(scheduler.alphas_cumprod, shifted_cosine(100, shift))


def test_other_schedules():
    linear = make_scheduler(Diffusion(schedule="linear")).alphas_cumprod
    assert linear[0].item() == pytest.approx(1 - 1e-4) and 0 < linear[-1] < 1e-4
    cosine = make_scheduler(Diffusion(schedule="cosine")).alphas_cumprod
    assert cosine[499].item() == pytest.approx(math.cos(1.016 / 1.008 / 4 * math.pi) ** 2, rel=1e-2)
    terminal = make_scheduler(Diffusion(schedule="linear", zero_terminal_snr=True)).alphas_cumprod
    assert terminal[-1] == 0 and terminal[0].item() == pytest.approx(1 - 1e-4)


def test_clipping_and_thresholding(tokenizer):
    tokens = torch.zeros(1, 2, 3, dtype=torch.long)
    noise = 3 * torch.randn(1, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    free = tokenizer.decoder.decode(tokenizer.codes(tokens), noise)
    assert free.abs().max() > 1
    for settings in ({"clip": True}, {"threshold": True}):
        decoder = GridTokenizer(entry(**settings)).eval().decoder
        decoder.load_state_dict(tokenizer.decoder.state_dict())
        assert decoder.decode(tokenizer.codes(tokens), noise).abs().max() <= 1 + 1e-5


@pytest.mark.parametrize(
    "value, changes, words",
    [
        (VALUE, {"widths": (48,)}, ["widths", "multiples of 32"]),
        (VALUE, {"widths": (32, 32, 32)}, ["multiple of 8", "(8, 12)"]),
        (VALUE, {"attention": 3}, ["attention must be 0 to 2"]),
        (VALUE, {"steps": 101}, ["steps at most training_steps", "101"]),
        (VALUE, {"shift": 0.0}, ["shift must be positive"]),
        (VALUE, {"prediction": "epsilon", "zero_terminal_snr": True}, ["'v_prediction'"]),
        (VALUE, {"prediction": "epsilon", "schedule": "shifted_cosine"}, ["'v_prediction'"]),
        (
            Classes((8, 12), classes=("a", "b")),
            {},
            ["'classes' are categorical", "noise cannot be added", "leave it out"],
        ),
    ],
)
def test_what_cannot_be_is_refused(value, changes, words):
    with pytest.raises(MaskweaveError) as caught:
        GridTokenizer(entry(value, **changes))
    assert all(word in str(caught.value) for word in ["probe", "tokenizer.diffusion", *words])


def test_it_needs_two_axes():
    line = Modality("probe", 1, "grid", Map((8,), range=(0, 1)), grid=(2,), tokenizer=SPEC)
    with pytest.raises(MaskweaveError, match="need a grid of two axes"):
        GridTokenizer(line)


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MaskweaveError, match=r"maskweave\[diffusion\]"):
        DiffusionDecoder(entry(), SPEC)
