"""Block-wise shuffling: exactly a permutation, few shards at a time, a pure function of the batch number."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_catalog import random_columns, same, tiny

from maskweave.data import windows
from maskweave.data.order import Order
from maskweave.data.token_store import TokenData, entry_fingerprint, write_column, write_starts
from maskweave.data.windows import ShardWindows, WindowPermutation, window_size
from maskweave.files import write_json
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches
from maskweave.masking.m3ae import MaskedBatches, MaskRatio, _uniform


def starts_of(sizes) -> np.ndarray:
    return np.cumsum([0, *sizes])


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=30), size=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_sample_has_one_place_and_few_shards_are_open(sizes, size, seed) -> None:
    starts = starts_of(sizes)
    found = WindowPermutation(ShardWindows(starts, size), [seed])[np.arange(starts[-1])]
    assert np.array_equal(np.sort(found), np.arange(starts[-1]))
    shard = np.searchsorted(starts, found, side="right") - 1
    first, last = ([int(np.flatnonzero(shard == s)[end]) for s in np.unique(shard)] for end in (0, -1))
    most = max((sum(f <= at <= e for f, e in zip(first, last, strict=True)) for at in range(len(shard))), default=0)
    assert most <= size


def test_order_and_windows_differ_by_epoch_seed_and_window() -> None:
    starts = starts_of([10] * 12)
    one, other = (WindowPermutation(ShardWindows(starts, 3), [0, epoch])[np.arange(120)] for epoch in (0, 1))
    assert (one != other).any() and (np.unique(one[:30] // 10) != np.unique(other[:30] // 10)).any()
    ranks = [np.argsort(np.argsort(one[i : i + 30])) for i in range(0, 120, 30)]
    assert all((ranks[0] != rank).any() for rank in ranks[1:]), "each window has its own order"


@pytest.mark.parametrize("batch_size", [7, 64, 500])
def test_batches_are_functions_of_their_number(batch_size) -> None:
    starts = [starts_of([11, 3, 0, 20, 5, 8, 8, 1]), starts_of([6] * 20)]
    kinds = [ShardWindows(starts[0], 3), ShardWindows(starts[1], 4)]
    counts = [int(s[-1]) for s in starts]

    def order() -> Order:
        return Order(counts, batch_size, seed=3, weights=(1, 2), windows=kinds)

    one = order()
    ahead = [one[i] for i in range(1500 // batch_size)]
    for i in (len(ahead) - 1, 0, len(ahead) // 2):
        assert np.array_equal(order()[i], ahead[i])
    seen = np.concatenate(ahead)
    for d, count in enumerate(counts):
        own = seen[(seen >= counts[0]) == bool(d)]
        for epoch in own[: len(own) // count * count].reshape(-1, count):
            assert np.array_equal(np.sort(epoch), np.arange(count) + d * counts[0])


def test_the_order_of_a_seed_stays_as_it_is() -> None:
    """What runs were trained on cannot change."""
    order = Order([12], 4, seed=5, windows=[ShardWindows(starts_of([3, 3, 3, 3]), 2)])
    assert [order[i].tolist() for i in (0, 1, 1000)] == [[5, 2, 1, 3], [4, 0, 10, 11], [9, 10, 7, 6]]


def test_which_data_sets_have_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = starts_of([10] * 100)
    assert window_size(starts, None) == 0 and window_size(starts, 0) == 0 and window_size(starts, 16) == 16
    assert window_size(starts, 100) == 0, "one window is all samples"
    monkeypatch.setattr(windows, "LISTED", 999)
    assert window_size(starts, None) == 64 and window_size(starts, 0) == 0
    assert [window_size(starts_of([size] * 100), None) for size in (1000, 2000, 5000, 10_000, 100_000)] == [
        64,
        64,
        26,
        13,
        8,
    ]


def test_shards_are_asked_for_in_the_order_of_drawing() -> None:
    asked: list[list[int]] = []
    starts = starts_of([10] * 7)
    order = Order([70], 10, seed=1, windows=[ShardWindows(starts, 2, lambda shards: asked.append(shards.tolist()))])
    for i in range(14):  # two epochs
        shards = set((order[i] // 10).tolist())
        assert shards <= set(asked[-1]) and len(asked) == i + 1
        if i:
            assert shards <= set(asked[i - 1]), "always before they are needed"
    assert max(map(len, asked)) == 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    catalog = tiny()
    write_json(tmp_path / "index.json", {"modalities": {name: entry_fingerprint(m) for name, m in catalog.items()}})
    for shard in range(8):
        for name, column in random_columns(catalog, 6, np.random.default_rng(shard)).items():
            write_column(tmp_path, name, shard, column)
    write_starts(tmp_path, [6] * 8)
    return tmp_path


def test_token_batches_use_the_windows_of_their_data(data: Path) -> None:
    sampler = MaskSampler(tiny(), MaskingConfig(12, 12))
    plain, shuffled, again = (
        TokenBatches(TokenData(data, tiny(), window), sampler, 6, seed=3) for window in (None, 2, 2)
    )
    assert len(set((shuffled.order[0] // 6).tolist())) <= 2 < len(set((plain.order[0] // 6).tolist()))
    assert same(again[3], shuffled[3]) and not same(plain[3], shuffled[3])
    pair = tiny().subset(["photo", "caption"])
    masked = MaskedBatches(TokenData(data, pair, 2), MaskRatio(), 6, seed=3)
    assert np.array_equal(masked.order[5], shuffled.order[5])


def test_numbers_are_drawn_at_their_places() -> None:
    whole = np.random.default_rng([3, 2]).random(1000)
    places = np.array([0, 999, 17, 17, 1])
    assert (_uniform([3, 2], places) == whole[places]).all()
    assert _uniform([3, 2], np.array([10**15])).size == 1


def test_orders_are_those_of_runs_that_began_with_an_earlier_version() -> None:
    found = WindowPermutation(ShardWindows(starts_of([11, 3, 0, 20, 5, 8]), 3), [3, 1])[np.arange(12)]
    assert found.tolist() == [4, 1, 3, 0, 9, 11, 12, 2, 13, 8, 5, 7]
    batches = [Order([60, 20], 8, seed=3, weights=(1, 2))[i].tolist() for i in (0, 7)]
    assert batches == [[71, 22, 61, 63, 68, 76, 64, 75], [4, 67, 64, 11, 66, 73, 77, 71]]
