"""Several data sets as one: shares that hold, epochs of their own, modalities that only some have."""

from pathlib import Path

import numpy as np
import pytest
from tiny_catalog import random_columns, same, tiny

from maskweave.data.mixing import Mixed, MixedTokens, apportion, interleave
from maskweave.data.order import BLOCK, Order
from maskweave.data.source import Source
from maskweave.data.token_store import TokenData, entry_fingerprint, write_column
from maskweave.files import write_json
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches
from maskweave.masking.m3ae import MaskedBatches, MaskRatio
from maskweave.modality.catalogs import Catalog

COUNTS, WEIGHTS = (700, 90, 4000), (0.6, 0.2, 0.2)


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([0.6, 0.2, 0.2], 1000, [600, 200, 200]),
        ([3, 1, 1], 4096, [2458, 819, 819]),
        ([1, 1, 1], 1000, [334, 333, 333]),
        ([1, 1, 1], 2, [1, 1, 0]),
        ([2], 7, [7]),
        ([1, 3], 0, [0, 0]),
    ],
)
def test_whole_shares_sum_up(weights, total, expected) -> None:
    assert apportion(weights, total).tolist() == expected


def test_interleaved_data_sets_are_spread_evenly() -> None:
    order = interleave([30, 10])
    assert sorted(order) == list(range(40))
    assert [sum(order[i : i + 4] >= 30) for i in range(0, 40, 4)] == [1] * 10
    assert order[order < 30].tolist() == list(range(30)), "each in its own order"


@pytest.mark.parametrize("counts", [(5,), (30, 10), (1, 1, 1), (700, 90, 4000), (6, 6, 6), (1, 999), (0, 7)])
def test_a_part_of_interleaved_data_sets_is_computed_alone(counts) -> None:
    whole = np.concatenate([(np.arange(count) + 0.5) / count for count in counts]).argsort(kind="stable")
    assert (interleave(counts) == whole).all()
    for first in (0, 1, 3, sum(counts) // 2, sum(counts) - 1, sum(counts)):
        for last in (first, first + 1, first + 16):
            assert interleave(counts, first, last).tolist() == whole[first:last].tolist()
    assert interleave([10**15, 10**9], 10**12, 10**12 + 4).size == 4, "no list of all"


def stream(order: Order, samples: int) -> np.ndarray:
    return np.concatenate([order[i] for i in range(-(-samples // order.batch_size))])[:samples]


def set_of(indices: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(COUNTS), indices, side="right")


@pytest.mark.parametrize("batch_size", [64, 1500])
def test_every_block_has_the_shares_exactly(batch_size) -> None:
    seen = stream(Order(COUNTS, batch_size, seed=3, weights=WEIGHTS), 5 * BLOCK)
    blocks = set_of(seen).reshape(5, BLOCK)
    assert [np.bincount(block).tolist() for block in blocks] == [[600, 200, 200]] * 5
    assert not (blocks[0] == blocks[1]).all(), "in an order of its own"
    assert np.bincount(blocks[0][:100]).tolist() == pytest.approx([60, 20, 20], abs=15), "mixed all along"


def test_every_data_set_has_its_own_epochs() -> None:
    seen = stream(Order(COUNTS, 64, seed=3, weights=WEIGHTS), 7000)
    ends = np.cumsum([0, *COUNTS])
    for d, count in enumerate(COUNTS):
        own = seen[set_of(seen) == d] - ends[d]
        epochs = [own[i : i + count].tolist() for i in range(0, len(own) - count + 1, count)]
        assert len(epochs) == (6, 15, 0)[d]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
        assert len(set(own.tolist())) == min(len(own), count), "what is not through yet is not repeated"


def test_equal_data_sets_are_shuffled_differently() -> None:
    seen = stream(Order((50, 50), 10, weights=(1, 1)), 100)
    assert seen[seen < 50].tolist() != (seen[seen >= 50] - 50).tolist()


def test_a_batch_does_not_depend_on_those_before() -> None:
    order = Order(COUNTS, 64, seed=3, weights=WEIGHTS)
    ahead = [order[i] for i in range(200)]
    for i in (199, 3, 42, 0):
        assert (Order(COUNTS, 64, seed=3, weights=WEIGHTS)[i] == ahead[i]).all()
    assert not (Order(COUNTS, 64, seed=4, weights=WEIGHTS)[3] == ahead[3]).all()


class Numbers:
    """Samples that say where they are from."""

    def __init__(self, name: str, count: int):
        self.name, self.count = name, count

    @property
    def names(self) -> tuple[str, ...]:
        return ("number", self.name)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, int]:
        return {self.name: i}

    def key(self, i: int) -> str:
        return f"sample_{i}"


def test_sources_are_read_in_turn() -> None:
    sources: dict[str, Source] = {"a": Numbers("x", 4), "b": Numbers("y", 2)}
    mixed = Mixed(sources)
    assert isinstance(mixed, Source) and mixed.names == ("number", "x", "y")
    assert [mixed[i] for i in range(6)] == [{"x": 0}, {"y": 0}, {"x": 1}, {"x": 2}, {"y": 1}, {"x": 3}]
    keys = [mixed.key(i) for i in range(len(mixed))]
    assert keys[:2] == ["a/sample_0", "b/sample_0"] and len(set(keys)) == 6
    for i in (-1, 6):
        with pytest.raises(IndexError):
            mixed[i]


CATALOG = tiny()
SIZES = (9, 20, 14)
HELD = (list(CATALOG), ["caption"], ["photo", "codes", "feature"])


@pytest.fixture
def mixed(tmp_path: Path) -> MixedTokens:
    """Token shards of three data sets: with everything, with texts alone, with everything but texts."""
    parts = []
    for d, (size, names) in enumerate(zip(SIZES, HELD, strict=True)):
        root, held = tmp_path / str(d), CATALOG.subset(names)
        columns = random_columns(held, size, np.random.default_rng(d), missing=0.2 if d == 0 else 0.0)
        if d == 2:
            columns["codes"] = columns["codes"]._replace(ids=columns["codes"].ids.astype(np.int64))
            columns["codes"].ids[3, 0] = 70_000  # so that data sets differ in their integer type
        for name in held:
            write_column(root, name, 0, columns[name])
        write_json(root / "index.json", {"modalities": {n: entry_fingerprint(m) for n, m in held.items()}})
        write_json(root / "samples" / "shard-00000.json", {"keys": [f"s{i}" for i in range(size)], "skipped": 0})
        parts.append(TokenData(root, CATALOG))
    return MixedTokens(parts, (0.5, 0.3, 0.2))


def test_columns_come_from_every_data_set(mixed: MixedTokens) -> None:
    assert len(mixed) == 43 and mixed.counts == SIZES
    indices = np.array([32, 0, 11, 42, 5, 28, 12])  # third, first, second, third, first, second, second
    columns = mixed.columns(indices)
    assert list(columns) == list(CATALOG)
    starts = np.cumsum([0, *SIZES])
    for row, index in enumerate(indices):
        d = int(np.searchsorted(starts, index, side="right")) - 1
        alone = mixed.parts[d].columns(np.array([index - starts[d]]))
        for name, column in columns.items():
            if name not in alone:
                assert not column.present[row]
                continue
            for got, want in zip(column, alone[name], strict=True):
                assert (got is None) == (want is None)
                if want is not None:
                    np.testing.assert_array_equal(got[row], want[0])
    assert columns["codes"].ids[0, 0] == 70_000
    assert list(mixed.columns(np.array([11, 28]))) == ["caption"], "no zeros for what none of them can have"


def test_what_a_data_set_lacks_is_never_drawn(mixed: MixedTokens) -> None:
    batches = TokenBatches(mixed, MaskSampler(CATALOG, MaskingConfig(12, 12)), 16, seed=1)
    caption = CATALOG["caption"].id
    for i in range(4):
        batch, from_set = batches[i], np.searchsorted(np.cumsum(SIZES), batches.order[i], side="right")
        assert len(batch) == 16
        for side in (batch.inputs, batch.targets):
            drawn = side.modality.numpy()
            assert set(np.unique(drawn[from_set == 1])) <= {0, caption}
            assert caption not in drawn[from_set == 2]
        assert (batch.targets.modality[from_set == 1] == caption).any()
    again = TokenBatches(mixed, MaskSampler(CATALOG, MaskingConfig(12, 12)), 16, seed=1)
    assert same(again[3], batches[3]) and not same(again[2], batches[3])


def test_held_out_samples_of_all_stand_among_each_other(mixed: MixedTokens) -> None:
    batches = TokenBatches(mixed, MaskSampler(CATALOG, MaskingConfig(12, 12)), 8, shuffle=False)
    assert len(batches) == 6 and sum(len(batches[i]) for i in range(6)) == 43
    for i in range(5):
        assert len({*np.searchsorted(np.cumsum(SIZES), batches.order[i], side="right")}) == 3


def test_masked_batches_take_a_mix(mixed: MixedTokens) -> None:
    pair: Catalog = CATALOG.subset(["photo", "caption"])
    data = MixedTokens([TokenData(part.root, pair) for part in mixed.parts], mixed.weights)
    batches = MaskedBatches(data, MaskRatio(), 20, seed=2, unpaired=0.5)
    groups = {tuple(sorted(group.parts)) for i in range(4) for group in batches[i].groups}
    assert groups == {("photo",), ("caption",), ("caption", "photo")}
    again = MaskedBatches(data, MaskRatio(), 20, seed=2, unpaired=0.5)[3]
    for one, other in zip(again.groups, batches[3].groups, strict=True):
        assert one.samples.tolist() == other.samples.tolist()
        assert all((part.masked == other.parts[name].masked).all() for name, part in one.parts.items())
