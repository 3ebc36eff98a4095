"""Token shards and the batches drawn from them."""

import gc
import json
import os
import pickle
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, same, tiny
from torch.utils.data import DataLoader

from maskweave import system
from maskweave.data import token_store
from maskweave.data.batches import ValueBatches
from maskweave.data.columns import Column, StoredRows
from maskweave.data.order import Order
from maskweave.data.token_store import TokenData, entry_fingerprint, write_column, write_starts
from maskweave.errors import MaskweaveError
from maskweave.files import write_json
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches
from maskweave.modality.catalogs import Catalog

SIZES = (7, 5, 1, 8)
TOTAL = sum(SIZES)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Catalog, dict[str, Column]]:
    """Four shards of random tokens, and the same as one column per modality."""
    catalog = tiny()
    columns = random_columns(catalog, TOTAL, np.random.default_rng(0), missing=0.3)
    columns["codes"] = columns["codes"]._replace(ids=columns["codes"].ids.astype(np.int64))
    columns["codes"].ids[TOTAL - 1, 0] = 70_000  # so that shards differ in their integer type
    write_json(tmp_path / "index.json", {"modalities": {name: entry_fingerprint(m) for name, m in catalog.items()}})
    write(tmp_path, columns, list(catalog))
    return tmp_path, catalog, columns


def write(root: Path, columns: dict[str, Column], names: list[str]) -> None:
    start = 0
    for shard, size in enumerate(SIZES):
        for name in names:
            part = (None if a is None else a[start : start + size] for a in columns[name])
            write_column(root, name, shard, Column(*part))
        keys = [f"sample_{i}" for i in range(start, start + size)]
        write_json(root / "samples" / f"shard-{shard:05d}.json", {"keys": keys, "skipped": 0})
        start += size


def check(found: dict[str, Column], columns: dict[str, Column], indices) -> None:
    assert found.keys() == columns.keys()
    for name, expected in columns.items():
        for got, want in zip(found[name], expected, strict=True):
            assert (got is None) == (want is None)
            if want is not None:
                np.testing.assert_array_equal(got, want[indices])


@pytest.mark.parametrize(
    "indices",
    [
        np.arange(TOTAL),
        np.array([3]),
        np.array([20, 0, 12, 7, 6, 20, 13, 12]),
        np.random.default_rng(1).permutation(TOTAL),
    ],
)
def test_samples_come_in_the_order_asked_from_any_shards(written, indices) -> None:
    root, catalog, columns = written
    data = TokenData(root, catalog)
    check(data.columns(indices), columns, indices)


def test_keys_and_length(written) -> None:
    root, catalog, _ = written
    data = TokenData(root, catalog)
    assert len(data) == TOTAL
    assert [data.key(i) for i in range(TOTAL)] == [f"sample_{i}" for i in range(TOTAL)]


def test_shards_are_small_and_mapped(written) -> None:
    root, catalog, _ = written
    data = TokenData(root, catalog)
    assert data.columns(np.array([0]))["codes"].ids.dtype == np.uint16
    assert data.columns(np.array([TOTAL - 1]))["codes"].ids.dtype == np.int32
    assert data.columns(np.array([0, TOTAL - 1]))["codes"].ids[1, 0] == 70_000
    assert data.columns(np.array([0]))["photo"].rows.dtype == np.uint8


def test_pickling_takes_no_open_files_along(written) -> None:
    root, catalog, columns = written
    data = TokenData(root, catalog)
    data.columns(np.arange(TOTAL))
    assert data._open
    again = pickle.loads(pickle.dumps(data))
    assert not again._open
    check(again.columns(np.arange(4)), columns, np.arange(4))


def test_few_files_stay_open(written, monkeypatch: pytest.MonkeyPatch) -> None:
    root, catalog, columns = written
    monkeypatch.setattr(token_store, "MOST_OPEN", 7)
    monkeypatch.setattr(token_store, "_stores", WeakSet())
    data = TokenData(root, catalog)
    for i in np.random.default_rng(0).permutation(TOTAL):
        check(data.columns(np.array([i])), columns, np.array([i]))
        assert len(data._open) <= 7
    check(data.columns(np.arange(TOTAL)), columns, np.arange(TOTAL))


def test_few_files_of_all_stores_stay_open(written, monkeypatch: pytest.MonkeyPatch) -> None:
    root, catalog, columns = written
    monkeypatch.setattr(token_store, "MOST_OPEN", 7)
    monkeypatch.setattr(token_store, "_stores", WeakSet())  # without those of other tests
    first = TokenData(root, catalog)
    stores = [first, TokenData(root, catalog), pickle.loads(pickle.dumps(first))]
    for n, i in enumerate(np.random.default_rng(0).permutation(TOTAL)):
        check(stores[n % 3].columns(np.array([i])), columns, np.array([i]))
        assert 0 < sum(len(store._open) for store in stores) <= 7


def test_what_was_used_last_stays_open(written, monkeypatch: pytest.MonkeyPatch) -> None:
    root, catalog, _ = written
    monkeypatch.setattr(token_store, "MOST_OPEN", 2 * len(catalog))  # those of two shards
    monkeypatch.setattr(token_store, "_stores", WeakSet())
    data = TokenData(root, catalog)
    for first_of_shard in (0, 7, 0, 12):
        data.columns(np.array([first_of_shard]))
    assert {shard for _, shard in data._open} == {0, 2}


def test_rows_are_read_only_where_they_are_drawn(written, monkeypatch: pytest.MonkeyPatch) -> None:
    root, catalog, _ = written
    read, drawn = [], []
    read_into = system.read_into

    def counted(file: int, content: memoryview, offset: int) -> int:
        read.append(len(content))
        return read_into(file, content, offset)

    monkeypatch.setattr(system, "read_into", counted)
    data = TokenData(root, catalog)
    stored = data.columns(np.array([0]))
    batches = TokenBatches(data, MaskSampler(catalog, MaskingConfig(6, 6)), 4, seed=3)
    for i in range(8):
        for name, rows in batches[i].rows.items():
            drawn.append(rows.numel() * stored[name].rows.dtype.itemsize)
    assert sum(read) == sum(drawn) and len(drawn) > 8, "bytes"


def test_a_shard_that_is_cut_off_while_it_is_open_is_named(written) -> None:
    root, catalog, _ = written
    data = TokenData(root, catalog)
    rows = data.columns(np.arange(7))["photo"].rows
    assert isinstance(rows, StoredRows)
    path = root / "photo" / "shard-00000.safetensors"
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(
        MaskweaveError, match="photo/shard-00000.safetensors: ends before row .*; copy or make it again"
    ):
        rows[np.array([6]), np.array([15])]


def test_open_files_are_closed_when_they_are_not_needed(written) -> None:
    root, catalog, _ = written

    def opened() -> int:
        return sum(str(path.resolve()).startswith(str(root)) for path in Path("/proc/self/fd").iterdir())

    data = TokenData(root, catalog)
    data.columns(np.arange(TOTAL))
    assert opened() == 2 * len(SIZES), "one for each file of rows"
    del data
    gc.collect()
    assert not opened()


def test_the_index_gives_the_same(written) -> None:
    root, catalog, columns = written
    index = json.loads((root / "index.json").read_text(encoding="utf-8")) | {"samples": 4 * 8, "shard_size": 8}
    write_json(root / "index.json", index)
    before = TokenData(root, catalog)  # of an earlier version: lists are read
    write_starts(root, SIZES)
    for path in (root / "samples").glob("*.json"):
        path.unlink()  # not needed any more, except for keys
    data = TokenData(root, catalog)
    assert data.starts.tolist() == before.starts.tolist()
    check(data.columns(np.arange(TOTAL)), columns, np.arange(TOTAL))
    for content, message in ((b"", "damaged"), (b"x" * 200, "damaged"), (None, "of 3 shards, expected 4")):
        write_starts(root, SIZES[:3])
        if content is not None:
            (root / "samples" / "starts.npy").write_bytes(content)
        with pytest.raises(MaskweaveError, match=f"(?s)starts.npy: .*{message}.*run 'maskweave tokenize' again"):
            TokenData(root, catalog)


def test_lists_of_more_than_five_digits_are_in_order(written) -> None:
    root, catalog, _ = written
    for shard in range(len(SIZES)):
        path = root / "samples" / f"shard-{shard:05d}.json"
        path.rename(path.with_name(f"shard-{99_998 + shard}.json"))
    assert TokenData(root, catalog).starts.tolist() == [0, 7, 12, 13, 21]


def test_a_modality_without_tokens_is_missing_from_every_sample(written) -> None:
    root, catalog, _ = written
    index = json.loads((root / "index.json").read_text(encoding="utf-8"))
    del index["modalities"]["caption"]
    write_json(root / "index.json", index)
    data = TokenData(root, catalog)
    assert "caption" not in data.names
    batch = MaskSampler(catalog, MaskingConfig(8, 8))(data.columns(np.arange(4)), np.random.default_rng(0))
    assert "caption" not in batch.names
    assert TokenData(root, catalog.subset(["facts"])).names == ["facts"]


def test_a_truncated_shard_is_named(written) -> None:
    root, catalog, _ = written
    path = root / "caption" / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    data = TokenData(root, catalog)
    data.columns(np.arange(7))
    with pytest.raises(
        MaskweaveError, match="caption/shard-00001.safetensors: cannot be read as safetensors, probably truncated"
    ):
        data.columns(np.array([8]))


def test_a_shard_of_another_length_is_refused(written) -> None:
    root, catalog, columns = written
    write_column(root, "codes", 0, Column(*(None if a is None else a[:3] for a in columns["codes"])))
    with pytest.raises(MaskweaveError, match="contains 3 samples, expected 7; tokenize again"):
        TokenData(root, catalog).columns(np.array([0]))


def test_tokens_of_another_entry_are_refused(written) -> None:
    root, catalog, _ = written
    index = json.loads((root / "index.json").read_text(encoding="utf-8"))
    index["modalities"]["spectrum"] = "0123456789abcdef"
    write_json(root / "index.json", index)
    with pytest.raises(MaskweaveError, match="the entry of 'spectrum' in .* has changed since these tokens were made"):
        TokenData(root, catalog)


def test_a_folder_without_tokens_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="index.json: no such file"):
        TokenData(tmp_path, tiny())
    for content in ([], {"modalities": []}):
        write_json(tmp_path / "index.json", content)
        with pytest.raises(MaskweaveError, match="its index.json is damaged; remove the folder and tokenize again"):
            TokenData(tmp_path, tiny())
    write_json(tmp_path / "index.json", {"modalities": {}})
    with pytest.raises(MaskweaveError, match="has no token shards for any of photo, codes.*'maskweave tokenize'"):
        TokenData(tmp_path, tiny())


def test_drawn_batches_are_functions_of_their_number(written) -> None:
    root, catalog, _ = written
    sampler = MaskSampler(catalog, MaskingConfig(12, 12))
    batches = TokenBatches(TokenData(root, catalog), sampler, 4, seed=3)
    ahead = [batches[i] for i in range(8)]
    fresh = TokenBatches(TokenData(root, catalog), sampler, 4, seed=3)
    assert all(same(fresh[i], ahead[i]) for i in (5, 0, 7, 2))
    assert not same(batches[0], batches[1])
    assert not same(batches[0], TokenBatches(TokenData(root, catalog), sampler, 4, seed=4)[0])
    assert len(batches) == 6
    in_order = TokenBatches(TokenData(root, catalog), sampler, 4, shuffle=False)
    assert [len(in_order[i]) for i in range(6)] == [4, 4, 4, 4, 4, 1]
    assert same(in_order[2], in_order[2])
    with pytest.raises(IndexError):
        in_order[6]


def test_worker_processes_give_the_same_batches(written) -> None:
    root, catalog, _ = written
    batches = TokenBatches(TokenData(root, catalog), MaskSampler(catalog, MaskingConfig(12, 12)), 4, seed=3)
    loader = DataLoader(batches, batch_size=None, sampler=range(6), num_workers=1, collate_fn=lambda batch: batch)
    for i, batch in enumerate(loader):
        assert same(batch, batches[i])


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (10, 3), (3, 8), (1, 2), (64, 64)])
def test_every_epoch_is_a_permutation_of_its_own(count, batch_size) -> None:
    epochs = 6
    order = Order([count], batch_size, seed=5)
    stream = np.concatenate([order[n] for n in range(-(-count * epochs // batch_size))])
    parts = [stream[e * count : (e + 1) * count].tolist() for e in range(epochs)]
    assert all(sorted(part) == list(range(count)) for part in parts)
    assert count < 4 or len({tuple(part) for part in parts}) == epochs
    assert count < 4 or Order([count], batch_size, seed=6)[0].tolist() != stream[:batch_size].tolist()


def test_the_order_of_a_seed_stays_as_it_is() -> None:
    """What runs were trained on cannot change."""
    order = Order([10], 4, seed=5)
    assert order[0].tolist() == [7, 6, 1, 3] and order[1000].tolist() == [6, 1, 2, 7]


def test_in_order_there_is_one_pass() -> None:
    order = Order([10], 4, shuffle=False)
    assert len(order) == 3
    assert [order[n].tolist() for n in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    with pytest.raises(IndexError):
        Order([8], 4, shuffle=False)[2]


def test_value_batches_are_as_the_network_takes_them() -> None:
    modality = tiny()["codes"]
    values = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    batches = ValueBatches(modality, values, 4, shuffle=False)
    assert len(batches) == 3
    assert batches[2].values.shape == (2, 3, 8, 8)
    torch.testing.assert_close(batches[0].values, torch.from_numpy(values[:4] / 127.5 - 1).float().movedim(-1, 1))
    shuffled = ValueBatches(modality, values, 4, seed=1)
    assert torch.equal(shuffled[9].values, ValueBatches(modality, values, 4, seed=1)[9].values)
