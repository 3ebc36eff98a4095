"""Random numbers by sample: distributions, and independence of samples, streams and counts."""

import numpy as np
import pytest

from maskweave.masking.random import SampleRandom

RNG = SampleRandom.at(3, np.arange(20_000))


def test_numbers_depend_on_seed_place_and_stream_only() -> None:
    whole = RNG.random(9)
    assert np.array_equal(SampleRandom.at(3, np.arange(100, 107)).random(4), whole[100:107, :4])
    assert np.array_equal(RNG[np.array([5, 5, 2])].random(9), whole[[5, 5, 2]])
    assert np.array_equal(RNG.stream(4)[np.arange(3)].random(2), RNG[np.arange(3)].stream(4).random(2))
    assert np.array_equal(
        RNG[np.arange(3)].stream(np.array([7, 8, 9])).random(2)[1], RNG[np.arange(1, 2)].stream(8).random(2)[0]
    )
    others = [SampleRandom.at(4, np.arange(20_000)), RNG.stream(0), RNG.stream(1), RNG.stream(0).stream(0)]
    numbers = np.stack([whole[:, 0], whole[:, 1], *(other.random(1)[:, 0] for other in others)])
    correlation = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(correlation).max() < 0.03, "independent of each other"
    assert np.abs(np.corrcoef(whole[:-1, 0], whole[1:, 0])[0, 1]) < 0.03, "and so are neighbors"


def test_a_generator_gives_the_keys() -> None:
    a, b = (SampleRandom.of(np.random.default_rng(1), 5).random(2) for _ in range(2))
    assert np.array_equal(a, b) and len(np.unique(a)) == 10
    assert SampleRandom.of(RNG, 5) is RNG


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_numbers(dtype) -> None:
    numbers = RNG.random(5, dtype=dtype)
    assert numbers.dtype == dtype and numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, 50, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 95, "chi squared with 49 degrees of freedom, 0.01%"


@pytest.mark.parametrize("shape", [1.0, 1.001, 1.5, 4.0, 40.0])
def test_gamma_variates_have_the_distribution_of_numpys(shape: float) -> None:
    ours = np.sort(RNG.standard_gamma(np.full((20_000, 3), shape)).ravel())
    numpys = np.sort(np.random.default_rng(0).standard_gamma(shape, 60_000))
    at = np.sort(np.concatenate([ours, numpys]))
    gap = np.abs(np.searchsorted(ours, at, side="right") - np.searchsorted(numpys, at, side="right")).max() / 60_000
    assert gap < 2.2 * np.sqrt(2 / 60_000), "Kolmogorov and Smirnov, 0.01%"


def test_gamma_variates_do_not_depend_on_their_neighbors() -> None:
    shapes = np.random.default_rng(0).uniform(1, 5, (50, 4))
    rng = SampleRandom.at(0, np.arange(50))
    assert np.array_equal(rng.standard_gamma(shapes)[20:30], rng[np.arange(20, 30)].standard_gamma(shapes[20:30]))


def test_exponential_variates() -> None:
    numbers = RNG.standard_exponential(5)
    assert numbers.min() >= 0
    assert numbers.mean() == pytest.approx(1, abs=0.02) and numbers.var() == pytest.approx(1, abs=0.05)
