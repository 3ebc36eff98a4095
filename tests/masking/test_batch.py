"""Packing parts into slots."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_catalog import same, tiny, tiny_batch

from maskweave.data.batches import ValueBatch
from maskweave.masking.batch import TokenSlice, pack


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(0, 9))
def test_nothing_is_lost_and_padding_comes_last(counts_MB, width) -> None:
    names = [f"m{m}" for m in range(len(counts_MB))]
    rng = np.random.default_rng(0)
    parts = {}
    for name, counts in zip(names, counts_MB, strict=True):
        sample = np.repeat(np.arange(5), counts)
        parts[name] = TokenSlice(sample, *rng.integers(1, 100, (3, len(sample))))
    numbers = {name: 10 * (m + 1) for m, name in enumerate(names)}
    slots, labels = pack(parts, numbers, 5, width)
    longest = max(sum(column) for column in zip(*counts_MB, strict=True))
    assert (
        slots.ids.shape == slots.modality.shape == slots.position.shape == labels.shape == (5, max(longest, width, 1))
    )
    for b in range(5):
        expected = [
            (numbers[name], *values)
            for name in names
            for values in np.stack(parts[name][1:], 1)[parts[name].sample == b].tolist()
        ]
        used = len(expected)
        found = torch.stack([slots.modality[b], slots.ids[b], slots.position[b], labels[b]], 1)
        assert found[:used].tolist() == [list(row) for row in expected]
        assert (found[used:] == torch.tensor([0, 0, 0, -1])).all()
    assert set(slots.index) == {name for name in names if len(parts[name].ids)}
    for name, index in slots.index.items():
        assert (index.diff() > 0).all()
        assert (slots.modality.flatten()[index] == numbers[name]).all()
        assert slots.ids.flatten()[index].tolist() == parts[name].ids.tolist()


def test_inputs_have_no_labels() -> None:
    part = TokenSlice(np.array([0, 1]), np.array([5, 6]), np.array([0, 1]))
    assert (pack({"a": part}, {"a": 3}, 2)[1] == -1).all()


def test_a_batch_of_nothing_is_padding() -> None:
    slots, labels = pack({}, {}, 3)
    assert slots.modality.tolist() == labels.add(1).tolist() == [[0], [0], [0]]
    assert slots.index == {}


def test_moving_keeps_everything() -> None:
    batch = tiny_batch(tiny())
    assert same(batch, batch.to("cpu"))
    assert len(batch) == 6
    assert batch.names == sorted({*batch.inputs.index, *batch.targets.index})
    moved = batch.to("meta")
    tensors = [moved.labels, *moved.rows.values()]
    for side in (moved.inputs, moved.targets):
        tensors += [side.ids, side.modality, side.position, *side.index.values()]
    assert {t.device.type for t in tensors} == {"meta"}
    values = ValueBatch("depth", torch.zeros(4, 1, 8))
    assert (len(values), values.names, values.to("meta").values.device.type) == (4, ["depth"], "meta")


def test_the_parts_of_a_batch_cannot_be_exchanged_by_accident() -> None:
    with pytest.raises(AttributeError):
        tiny_batch(tiny()).labels = torch.zeros(1)  # type: ignore[misc]
