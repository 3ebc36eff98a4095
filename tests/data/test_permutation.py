"""Orders that are computed: each sample once, from small sets to the largest, and no order left to be seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskweave.data import permutation as permutations
from maskweave.data.order import Order
from maskweave.data.permutation import Permutation, _hashed


@settings(max_examples=300)
@given(count=st.integers(1, 5000), seed=st.integers(0, 2**32))
def test_every_sample_has_one_place(count: int, seed: int) -> None:
    found = Permutation(count, np.random.default_rng(seed))[np.arange(count)]
    assert found.dtype == np.int64 and np.array_equal(np.sort(found), np.arange(count))


@settings(max_examples=100)
@given(count=st.integers(5000, 2**62), seed=st.integers(0, 2**32))
def test_so_it_is_in_large_sets(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    indices = np.unique([*rng.integers(count, size=1000), *range(100), *range(count - 100, count)])
    permutation = Permutation(count, rng)
    found = permutation[indices]
    assert found.min() >= 0 and found.max() < count and len(np.unique(found)) == len(indices)
    assert np.array_equal(permutation[indices[::-7]], found[::-7]), "whatever else is asked for"


def test_a_digit_can_be_added_to_what_is_hashed() -> None:
    """Sums that wrap would give two samples one place, so rarely that no other test would see it."""
    assert 2**62 < _hashed(np.arange(100_000, dtype=np.uint64)).max() < 2**63


@pytest.mark.parametrize("count", [2**20 + 1, 365_000_000])
def test_no_order_is_left(count: int) -> None:
    """By chi-square tests of 100 classes: 99 is expected, 180 and more once in a million."""
    first, second = (Permutation(count, np.random.default_rng(seed))[np.arange(200_000)] for seed in (0, 1))
    column = Permutation(count, np.random.default_rng(0))[np.arange(0, count, -(-count // 200_000))]
    pairs = first[:-1] * 10 // count * 10 + first[1:] * 10 // count
    differences = [(a - b) % count * 100 // count for a, b in ((first[1:], first[:-1]), (second, first))]
    for classes in (first * 100 // count, first % 100, column * 100 // count, pairs, *differences):
        found, expected = np.bincount(classes, minlength=100), len(classes) / 100
        assert ((found - expected) ** 2 / expected).sum() < 180


def test_a_set_too_large_to_be_listed_is_drawn_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutations, "LISTED", 50)
    order = Order([50, 70], 10, seed=3, weights=(1, 2))
    seen = np.concatenate([order[i] for i in range(40)])
    epochs = [own[: len(own) // n * n].reshape(-1, n) for n, own in ((50, seen[seen < 50]), (70, seen[seen >= 50]))]
    assert [len(one) for one in epochs] == [2, 3]
    assert all((np.sort(one) == np.unique(one)).all() and (one[0] != one[1]).any() for one in epochs)
    assert np.array_equal(Order([50, 70], 10, seed=3, weights=(1, 2))[17], order[17])
    assert not np.array_equal(Order([50, 70], 10, seed=4, weights=(1, 2))[17], order[17])


def test_the_largest_sets_take_no_memory() -> None:
    order = Order([10**15], 512, seed=3)
    assert len(np.unique(np.concatenate([order[i] for i in range(20)]))) == 20 * 512


@pytest.mark.parametrize(
    ("count", "first"),
    [
        (1000, [789, 29, 330, 122, 905, 285]),
        (2**20 + 7, [899449, 412525, 740840, 592132, 793535, 596340]),
        (2**40, [508638400168, 435468023574, 241820391551, 709366767574, 283884761900, 161235592320]),
    ],
)
def test_orders_are_those_of_runs_that_began_with_an_earlier_version(count: int, first: list[int]) -> None:
    assert Permutation(count, np.random.default_rng(3))[np.arange(6)].tolist() == first
    if count > permutations.LISTED:
        assert permutations.random_order(count, np.random.default_rng(3))[np.arange(6)].tolist() == first
