"""`missing: predicted`: tokens without any known point have a code of their own, are inputs and targets, and are decoded to unknown points."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskweave.data.batches import ValueBatch
from maskweave.data.tokenizing import column_of
from maskweave.generate.token_state import token_states
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.direction import Direction
from maskweave.values.map import Map

NAN = np.nan
SPEC = {"width": 32, "heads": 2, "quantizer": {"type": "vq", "codes": 16, "dim": 8}}


def catalog(**quantizer: Any) -> Catalog:
    spec = {**SPEC, "quantizer": quantizer} if quantizer else SPEC
    value = {"type": "map", "size": [4, 8], "range": [0, 10], "missing": "predicted"}
    entry = {"id": 1, "kind": "grid", "grid": [2, 2], "value": value, "tokenizer": spec}
    return catalog_from({"modalities": {"height": entry}}, "c.yaml")


def values(count: int) -> np.ndarray:
    """Maps of one height, of which only some columns are known: none, some or all of the second column of tokens."""
    rng = np.random.default_rng(0)
    out = np.broadcast_to(rng.uniform(1, 9, (count, 1, 1)), (count, 4, 8)).astype(np.float32).copy()
    for k in range(count):
        out[k, :, (8, 6, 4)[k % 3] :] = NAN
    return out


@pytest.mark.parametrize("quantizer", [{}, {"type": "fsq", "levels": [4, 4]}, {"type": "lfq", "codes": 16}])
def test_a_token_without_known_points_has_the_last_id(quantizer: Any, tmp_path: Path) -> None:
    entries = catalog(**quantizer)
    torch.manual_seed(0)
    tokenizer = GridTokenizer(entries["height"]).eval()
    assert tokenizer.vocabulary_size == entries.vocabulary_size("height") == 17 == len(tokenizer.token_embeddings)
    ids = tokenizer.encode(values(3))
    assert (ids == 16).tolist() == [[[False, False]] * 2, [[False, False]] * 2, [[False, True]] * 2]
    restored = tokenizer.decode(ids)
    assert np.isnan(restored[2, :, 4:]).all() and restored.shape == (3, 4, 8)
    changed = values(3)
    changed[2, 0, 0] = 3.0
    other = tokenizer.decode(torch.tensor([[16, 16, 16, 16]]))
    assert np.isnan(other).all()
    tokenizer.save(tmp_path)
    assert torch.equal(GridTokenizer.load(tmp_path, entries["height"]).encode(values(3)), ids)


def test_unknown_tokens_leave_the_codebook_alone() -> None:
    torch.manual_seed(0)
    tokenizer = GridTokenizer(catalog()["height"])
    x = tokenizer.modality.value.to_network(values(3))
    quantized = tokenizer(x).quantized
    assert quantized.z_q.shape == (3, 4, 8) and (quantized.z_q[2, 1::2] == 0).all()
    assert (quantized.z_q.flatten(0, 1).norm(dim=1) > 0.9).tolist() == (quantized.ids.flatten() < 16).tolist()
    objective = TokenizerObjective(tokenizer)
    objective(ValueBatch("height", x))
    assert objective.counts.sum() == pytest.approx(10), "of 12 tokens, two are unknown as a whole"


def test_training_learns_values_and_where_they_are_known() -> None:
    torch.manual_seed(0)
    tokenizer = GridTokenizer(catalog(type="fsq", levels=[5, 5, 5])["height"])
    objective, data = TokenizerObjective(tokenizer), values(60)
    x = tokenizer.modality.value.to_network(data)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 4e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss, metrics = objective(ValueBatch("height", x))
        loss.backward()
        optimizer.step()
    assert set(metrics) == {"reconstruction", "validity", "quantizer", "perplexity", "codebook_use"}
    restored = tokenizer.decode(tokenizer.encode(data))
    assert np.mean(np.isnan(restored) == np.isnan(data)) > 0.99
    assert np.nanmean(np.abs(restored - data)) < 0.5


def test_unknown_tokens_are_inputs_and_targets() -> None:
    entries = catalog()
    torch.manual_seed(0)
    tokenizer = GridTokenizer(entries["height"]).eval()
    column = column_of(entries["height"], [*values(3), None], tokenizer)
    assert column.valid is None and column.ids is not None and column.ids[2].tolist().count(16) == 2
    batch = MaskSampler(entries, MaskingConfig(input_tokens=2, target_tokens=2))(
        {"height": column}, np.random.default_rng(0)
    )
    assert {*batch.inputs.ids[2].tolist(), *batch.labels[2].tolist()} >= {16}
    state = token_states(entries, [{"height": values(3)[2]}], {"height": tokenizer})["height"]
    assert state.mask.all()


def test_raw_patches_without_known_points_are_never_inputs() -> None:
    value = {"type": "map", "size": [4, 8], "range": [0, 10], "missing": ["predicted", -1]}
    entry = catalog_from({"modalities": {"a": {"id": 1, "kind": "patches", "grid": [2, 2], "value": value}}}, "c.yaml")[
        "a"
    ]
    column = column_of(entry, list(values(3)), None)
    assert column.valid is not None and column.valid[2].tolist() == [True, False, True, False]


def test_files_keep_unknown_points() -> None:
    value = Map((2, 2), range=(0, 9), missing=("predicted", -9999.0))
    array = np.array([[1, NAN], [NAN, 2]], np.float32)
    content, ending = value.to_file(array, "x")
    assert np.array_equal(value.read(content, ending, "x"), array, equal_nan=True)
    marked = Map((2, 2), range=(-1e4, 9)).write(np.nan_to_num(array, nan=-9999))[0]
    assert np.array_equal(value.read(marked, "npy", "x"), array, equal_nan=True)


def test_a_merged_point_is_known_if_half_of_the_predictions_know_it() -> None:
    members = [np.array([1, 1, NAN]), np.array([2, NAN, NAN]), np.array([3, NAN, 4])]
    predicted = Map((3,), range=(0, 9), missing=("predicted",))
    assert np.array_equal(predicted.merge(members, 0.5), [2, NAN, NAN], equal_nan=True)
    marked = dataclasses.replace(predicted, missing=("nan",))
    assert np.array_equal(marked.merge(members, 0.5), [2, 1, 4], equal_nan=True)


def test_the_overlap_of_unknown_points_is_scored() -> None:
    metric = Map((4,), range=(0, 9), missing=("predicted",)).metrics()["unknown_iou"]
    truth, guess = np.array([1, 1, NAN, NAN]), np.array([1, NAN, NAN, 1])
    assert metric.score([guess], [truth]) == pytest.approx(1 / 3)
    assert np.array_equal(metric.best_constant([truth, truth, guess]), [0, 0, NAN, NAN], equal_nan=True)


def test_directions_may_be_unknown_too() -> None:
    value = Direction((2, 2), missing=("predicted",))
    up = np.broadcast_to(np.array([0, 1, 0], np.float32), (1, 2, 2, 3))
    logits = torch.ones(1, 3, 2, 2)
    logits[0, :2, 0, 1] = -2
    found = value.with_unknown(up, logits)
    assert np.isnan(found[0, 0, 1]).all() and np.isfinite(found).sum() == 9
