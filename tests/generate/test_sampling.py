"""Temperature, top-k and top-p against plain references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskweave.errors import MaskweaveError
from maskweave.generate import sampling
from maskweave.generate.sampling import confidence, keep_likely, sample
from maskweave.modality.decoding import Decoding


def kept_by_hand(logits: list[float], top_k: int, top_p: float) -> set[int]:
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    if top_k:
        order = order[:top_k]
    weights = np.exp(np.array([logits[i] for i in order]) - max(logits))
    share = weights / weights.sum()
    if top_p == 1:
        return set(order)
    fewest = next((n for n in range(1, len(order)) if share[:n].sum() >= top_p - 1e-6), len(order))
    return set(order[:fewest])


@settings(max_examples=200, derandomize=True)
@given(
    st.lists(st.integers(-80, 80), min_size=1, max_size=12, unique=True),
    st.integers(0, 13),
    st.sampled_from([1e-9, 0.1, 0.35, 0.5, 0.9, 0.999, 1.0]),
)
def test_the_cuts_keep_what_they_say(tenths, top_k, top_p) -> None:
    logits = [x / 10 for x in tenths]
    kept = keep_likely(torch.tensor([logits, logits[::-1]]), top_k, top_p)
    expected = kept_by_hand(logits, top_k, top_p)
    assert set(torch.isfinite(kept[0]).nonzero()[:, 0].tolist()) == expected
    assert torch.equal(kept[0], kept[1].flip(0)), "rows are independent"
    assert all(kept[0, i].item() == pytest.approx(logits[i]) for i in expected)


def test_top_p_looks_beyond_the_likeliest_where_they_are_too_few(monkeypatch) -> None:
    logits = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 8, 40)[:, None]
    found = keep_likely(logits, 0, 0.9)
    monkeypatch.setattr(sampling, "FIRST", 7)
    assert torch.equal(keep_likely(logits, 0, 0.9), found)
    assert torch.isfinite(found).sum(dim=1).unique().numel() > 10


def gumbel(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return sampling.gumbel(np.array(shape[:1]), shape[1], [np.random.default_rng(seed)], torch.device("cpu"))


def test_the_noise_is_standard_gumbel_and_each_sample_has_its_own() -> None:
    noise = gumbel((100, 2000))
    assert noise.dtype == torch.float32 and torch.isfinite(noise).all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    generators = [np.random.default_rng(seed) for seed in (3, 4, 5)]
    together = sampling.gumbel(np.array([2, 0, 1]), 7, generators, torch.device("cpu"))
    assert torch.equal(together[:2], gumbel((2, 7), 3)) and torch.equal(together[2:], gumbel((1, 7), 5))
    assert generators[1].random() == np.random.default_rng(4).random(), "who asks for nothing draws nothing"


def test_temperature_zero_takes_the_likeliest_whatever_the_noise() -> None:
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    ids = sample(logits, None, 0.0)
    assert torch.equal(ids, logits.argmax(1))
    torch.testing.assert_close(confidence(logits, ids), logits.log_softmax(1).amax(1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature) -> None:
    logits, n = torch.tensor([2.0, 1.0, 0.0, -1.0]), 40_000
    ids = sample(logits.expand(n, 4), gumbel((n, 4)), temperature)
    share = torch.bincount(ids, minlength=4) / n
    torch.testing.assert_close(share, (logits / temperature).softmax(0), atol=0.01, rtol=0)
    torch.testing.assert_close(confidence(logits.expand(n, 4), ids), logits.log_softmax(0)[ids])


def test_what_is_cut_is_never_drawn() -> None:
    logits, n = torch.tensor([2.0, 1.9, 0.5, -1.0]), 2000
    for top_k, top_p in ((2, 1.0), (0, 0.6), (3, 0.6)):
        assert set(sample(logits.expand(n, 4), gumbel((n, 4)), 1.0, top_k, top_p).tolist()) == {0, 1}
    assert set(sample(logits.expand(n, 4), gumbel((n, 4)), 1.0, top_p=1e-9).tolist()) == {0}


def test_sampling_does_not_wait_for_another_device() -> None:
    """On the meta device there is nothing to wait for, and whoever does gets an error."""
    logits = torch.empty(5, 4 * sampling.FIRST, device="meta")
    assert sample(logits, logits, 0.7, top_k=50, top_p=0.9).shape == (5,)
    assert confidence(logits, logits.argmax(-1)).shape == (5,)


def test_half_precision_logits() -> None:
    logits = torch.randn(5, 30_000, generator=torch.Generator().manual_seed(0)).bfloat16() * 20
    found = confidence(logits, sample(logits, gumbel((5, 30_000)), 1.0, top_p=0.9))
    assert torch.isfinite(found).all()
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"temperature": -0.1}, "temperature is -0.1; expected a number of 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; expected a share above 0, up to 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1; expected 0 or more"),
        ({"guidance": float("inf")}, "guidance is inf; expected a finite number"),
        (
            {"temperature_schedule": "onex:1"},
            "temperature_schedule is 'onex:1'; expected constant, linear or onex:MIN:POWER",
        ),
        ({"temperature_schedule": "onex:-1:2"}, "temperature_schedule is 'onex:-1:2'"),
        ({"temperature_schedule": "linear:2"}, "temperature_schedule is 'linear:2'"),
    ],
)
def test_settings_that_cannot_be(wrong, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        Decoding(**wrong)
    assert message in str(caught.value)


def test_noise_made_on_the_device() -> None:
    """Each sample's noise depends on its own generator only, and is standard Gumbel."""
    cpu, seeds = torch.device("cpu"), (5, 6, 7)

    def made(counts: list[int], seeds: tuple[int, ...]) -> torch.Tensor:
        return sampling._gumbel_there(np.array(counts), 400, [np.random.default_rng(s) for s in seeds], cpu)

    noise = made([3, 0, 50], seeds)
    assert noise.shape == (53, 400) and torch.isfinite(noise).all()
    assert torch.equal(noise[3:], made([50], (7,))) and torch.equal(noise[:3], made([3, 2], (5, 6))[:3])
    assert not torch.equal(made([3], (5,)), made([3], (6,)))
    generator = np.random.default_rng(5)
    first, second = (sampling._gumbel_there(np.array([3]), 400, [generator], cpu) for _ in range(2))
    assert torch.equal(first, noise[:3]) and not torch.equal(first, second)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.05) and noise.std().item() == pytest.approx(
        1.2825, abs=0.05
    )
