"""Unknown points: NaN in numbers and −1 in ids, from files to tokens, masking, losses, scores, ensembles and figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskweave.data.batches import ValueBatch
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.data.token_store import TokenData
from maskweave.data.tokenizing import column_of, tokenize
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.token_state import token_states
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.base import ValueType
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.geometry import Geometry
from maskweave.values.map import Map
from maskweave.values.unknown import known_points, resize_known

NAN = np.float32(np.nan)


def catalog(**changes: Any) -> Catalog:
    entries = {
        "bands": {"id": 1, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "channels": 2, "range": [0, 10], "missing": [-9999, 0]}},
        "cover": {"id": 2, "kind": "grid", "grid": [2, 2], "value": {"type": "classes", "size": [8, 8], "classes": ["water", "wood"], "ignore": 255}},
        "height": {"id": 3, "kind": "patches", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 9], "missing": "nan"}},
    }  # fmt: skip
    for name, change in changes.items():
        entries[name]["value"] = {**entries[name]["value"], **change}  # type: ignore[dict-item]
    return catalog_from({"modalities": entries}, "own.yaml")


def bands(rng: np.random.Generator) -> np.ndarray:
    array = rng.uniform(1, 9, (8, 8, 2)).astype(np.float32)
    array[:4, :4] = np.nan  # the first token as a whole
    array[6, 6, 0] = np.nan  # one channel of one point
    return array


@pytest.fixture
def sample() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cover = rng.integers(0, 2, (8, 8)).astype(np.int16)
    cover[4:, 4:] = -1
    height = rng.uniform(1, 9, (8, 8)).astype(np.float32)
    height[:, :4] = np.nan
    return {"bands": bands(rng), "cover": cover, "height": height}


# Values


def test_nan_is_refused_unless_the_entry_says_that_points_may_be_unknown() -> None:
    array = np.full((4, 4), 2, np.float32)
    array[1, 1] = np.nan
    with pytest.raises(BadSample, match=r"1 of 16 values NaN or infinite.*set the entry's value.missing: nan"):
        Map((4, 4), range=(0, 9)).check(array, "x")
    assert np.isnan(Map((4, 4), range=(0, 9), missing=("nan",)).check(array, "x")[1, 1])
    array[2, 2] = np.inf
    with pytest.raises(BadSample, match="1 of 16 values infinite"):
        Map((4, 4), range=(0, 9), missing=("nan",)).check(array, "x")


@pytest.mark.parametrize("written", ["nan", [float("nan")], -9999, [-9999, "nan"]])
def test_missing_is_one_number_or_a_list_and_compares_equal(written: Any) -> None:
    one, two = (catalog(height={"missing": written})["height"].value for _ in range(2))
    assert one == two and one.has_unknown
    assert catalog_from(Catalog([catalog()["height"]]).to_plain(), "again")["height"] == catalog()["height"]


def test_marks_count_in_files_and_not_in_python() -> None:
    value: Any = catalog()["bands"].value
    array = np.full((8, 8, 2), 5, np.int16)
    array[0, 0], array[0, 1, 0] = 0, -9999
    content, ending = value.write(array.astype(np.float32))
    found = value.read(content, ending, "x")
    assert np.isnan(found[0, 0]).all() and np.isnan(found[0, 1, 0]) and np.isnan(found).sum() == 3
    again = value.read(*value.write(found), "x")
    np.testing.assert_array_equal(again, found)
    zero = np.zeros((8, 8, 2), np.float32)
    assert not np.isnan(value.check(zero, "x")).any(), "a prediction of 0 is 0"


def test_a_value_without_a_known_point_is_missing() -> None:
    value: Any = catalog()["bands"].value
    assert value.read(*value.write(np.full((8, 8, 2), -9999, np.float32)), "x") is None
    cover: Any = catalog()["cover"].value
    assert cover.read(*cover.write(np.full((8, 8), -1)), "x") is None


def test_ids_to_ignore() -> None:
    value: Any = catalog()["cover"].value
    array = np.zeros((8, 8), np.uint8)
    array[0] = 255
    checked = value.check(array, "x")
    assert (checked[0] == -1).all() and (checked[1:] == 0).all() and checked.dtype == np.int16
    np.testing.assert_array_equal(value.read(*value.write(checked), "x"), checked)
    with pytest.raises(BadSample, match="list ids that mean unknown in value.ignore"):
        Classes((8, 8), classes=("water", "wood")).check(array, "x")
    assert value.check(np.ones((8, 8), np.uint8), "x").dtype == np.uint8
    with pytest.raises(MaskweaveError, match="value.ignore must be ids"):
        catalog(cover={"ignore": [-5]})


@pytest.mark.parametrize("outside", ["refuse", "clip", "missing"])
def test_what_is_outside_of_the_range(outside: Any) -> None:
    value = Map((4, 4), range=(0, 9), missing=("nan",), outside=outside)
    array = np.full((4, 4), 2, np.float32)
    array[0] = 20
    if outside == "refuse":
        with pytest.raises(BadSample, match=r"25.00% of them outside.*value.outside to clip or missing"):
            value.check(array, "x")
        return
    expected = np.where(array > 9, 9 if outside == "clip" else np.nan, array)
    np.testing.assert_array_equal(value.check(array, "x"), expected)


def test_outside_may_only_be_missing_where_points_may_be_unknown() -> None:
    with pytest.raises(MaskweaveError, match="also set value.missing: nan"):
        catalog_from(
            {"modalities": {"a": {"id": 1, "kind": "grid", "grid": [2], "value": {"type": "map", "size": [4], "range": [0, 1], "outside": "missing"}}}},
            "own.yaml",
        )  # fmt: skip


# Sizes


def test_a_resized_point_is_known_if_most_of_its_area_is() -> None:
    value = Map((2, 2), range=(0, 100), missing=("nan",), fit=("crop",))
    array = np.full((8, 8), 10, np.float32)
    array[:4, :4] = np.nan  # all of the first
    array[0, 4:6] = np.nan  # little of the second
    array[4:, :4] = np.nan
    array[7, 0] = 90  # almost nothing of the third
    found = fit({"x": array}, Catalog([_entry(value)]))["x"]
    assert np.isnan(found).tolist() == [[True, False], [True, False]]
    np.testing.assert_allclose(found[:, 1], 10, rtol=1e-5)


def test_resized_directions_are_known_where_most_of_their_area_is_and_have_length_one() -> None:
    """Also where the nearest point is known, but most of the area is not."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(48, 48, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    known = rng.random((48, 48)) < 0.5
    value = Direction((32, 32), missing=("nan",))
    found = value.transform(np.where(known[..., None], vectors, NAN), Geometry())
    x = torch.from_numpy(np.concatenate([vectors * known[..., None], known[..., None]], axis=-1)).movedim(-1, 0)[None]
    *total, share = F.interpolate(x.double(), (32, 32), mode="bilinear", antialias=True)[0].numpy()
    expected = share >= 0.5
    assert np.array_equal(~np.isnan(found).any(axis=-1), expected) and 0.3 < expected.mean() < 0.7
    mean = np.stack(total, axis=-1)[expected]
    assert found[expected] == pytest.approx(mean / np.linalg.norm(mean, axis=-1, keepdims=True), abs=1e-4)
    line = Direction((2,), missing=("nan",)).transform(
        np.array([[1, 0, 0], [0, 1, 0], [NAN] * 3, [NAN] * 3]), Geometry()
    )
    assert line[0] == pytest.approx([0.5**0.5, 0.5**0.5, 0]) and np.isnan(line[1]).all()


@pytest.mark.parametrize("size", [(5,), (20,), (4, 6, 6), (2, 8, 8)])
def test_series_and_volumes_keep_what_is_known(size: tuple[int, ...]) -> None:
    source = (10,) if len(size) == 1 else (4, 8, 8)
    array = np.full(source, 3, np.float32)
    array[: source[0] // 2] = np.nan
    found = Map(size, range=(0, 9), missing=("nan",)).resized(array, Map(size, range=(0, 9)).resize_axes)
    known = known_points(found)
    assert known.any() and not known.all()
    np.testing.assert_allclose(found[known], 3, rtol=1e-5)


def test_resizing_known_values_changes_nothing() -> None:
    array = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    assert resize_known(lambda plane: plane[::2], array) is not None
    np.testing.assert_array_equal(resize_known(lambda plane: plane[::2], array), array[::2])


# Tokens and masking


def test_a_token_without_a_known_point_is_neither_input_nor_target(sample: dict[str, Any]) -> None:
    torch.manual_seed(0)
    entries = catalog()
    tokenizers = {name: GridTokenizer(entries[name]).eval() for name in ("bands", "cover")}
    columns = {name: column_of(m, [sample[name]] * 64, tokenizers.get(name)) for name, m in entries.items()}
    valid = {name: column.valid[0].tolist() for name, column in columns.items() if column.valid is not None}
    assert valid == {
        "bands": [False, True, True, True],
        "cover": [True, True, True, False],
        "height": [False, True, False, True],
    }
    batch = MaskSampler(entries, MaskingConfig(input_tokens=6, target_tokens=6))(columns, np.random.default_rng(0))
    seen: dict[str, set[int]] = {name: set() for name in entries}
    for slots in (batch.inputs, batch.targets):
        for name, index in slots.index.items():
            seen[name] |= set(slots.position.flatten()[index].tolist())
    assert seen == {"bands": {1, 2, 3}, "cover": {0, 1, 2}, "height": {1, 3}}
    assert all(torch.isfinite(rows).all() for rows in batch.rows.values())
    states = token_states(entries, [sample], tokenizers)
    assert {name: state.mask[0].tolist() for name, state in states.items()} == valid


def test_from_files_to_tokens_and_back(sample: dict[str, Any], tmp_path: Path) -> None:
    entries = catalog()
    for k in range(3):
        for name, value in sample.items():
            content, ending = entries[name].value.write(value if k or name != "bands" else np.full_like(value, np.nan))
            path = tmp_path / "in" / name / f"{k}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    report = import_folders(tmp_path / "in", tmp_path / "out", entries)
    assert report.per_modality == {"bands": 2, "cover": 3, "height": 3}
    assert "bands: values that say nothing count as missing: 1" in str(report)
    torch.manual_seed(0)
    tokenizers = {name: GridTokenizer(entries[name]).eval() for name in ("bands", "cover")}
    tokenize(Shards(tmp_path / "out", entries), entries, tokenizers, tmp_path / "tokens")
    columns = TokenData(tmp_path / "tokens", entries).columns(np.arange(3))
    assert columns["bands"].present.tolist() == [False, True, True]
    assert columns["bands"].valid is not None and columns["bands"].valid.sum(axis=1).tolist() == [0, 3, 3]
    decoded = tokenizers["cover"].decode(tokenizers["cover"].encode([sample["cover"]]))
    assert decoded.min() >= 0, "predictions are known everywhere"


def test_the_tokenizer_sees_what_is_known_and_not_what_is_not(sample: dict[str, Any]) -> None:
    torch.manual_seed(0)
    value: Any = catalog()["bands"].value
    objective = TokenizerObjective(GridTokenizer(catalog()["bands"]))
    x = value.to_network([sample["bands"]])
    assert x.isnan().sum() == 33 and objective.tokenizer.encoder.patches.in_features == 16 * 4
    loss, _ = objective.eval()(ValueBatch("x", x))
    output, _, quantized, _ = objective.tokenizer(x)
    known = ~x.isnan()
    expected = F.smooth_l1_loss(output[known], x[known], beta=0.1) + quantized.loss
    assert loss.isfinite() and torch.allclose(loss, expected)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    filled = x.clone()
    filled[0, 0, 0, 0] = 0.0  # known, at the middle of the range
    assert not torch.allclose(objective.tokenizer.encoder(x), objective.tokenizer.encoder(filled))


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "cosine"])
def test_directions_are_known_as_a_whole(loss: str) -> None:
    value = Direction((4, 4), missing=("nan",))
    array = np.zeros((4, 4, 3), np.float32)
    array[..., 2] = 1
    array[0, 0, 1] = np.nan
    checked = value.check(array, "x")
    assert np.isnan(checked[0, 0]).all() and np.isnan(checked).sum() == 3
    target, output = value.to_network([checked]), torch.zeros(1, 3, 4, 4)
    output[:, 2] = 1
    output[:, 0, 0, 0] = 5  # at the unknown point
    assert float(value.known_loss(value.losses[loss])(output, target)) == pytest.approx(0, abs=1e-6)


def test_class_losses_skip_unknown_points() -> None:
    value: Any = catalog()["cover"].value
    logits = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[0, 0] = -1
    loss, facts = value.task_loss(logits, target)
    expected = F.cross_entropy(logits[:, :, 1:], target[:, 1:])
    assert torch.allclose(loss, expected) and 0 <= float(facts["accuracy"]) <= 1
    nothing = value.task_loss(logits, torch.full_like(target, -1))[0]
    nothing.backward()
    assert nothing.item() == 0 and logits.grad is not None and bool((logits.grad == 0).all())


# Scores, ensembles and figures


def test_scores_and_best_constants_skip_unknown_points() -> None:
    value = Map((2, 2), range=(0, 9), missing=("nan",))
    truth = np.array([[1, np.nan], [3, 4]], np.float32)
    prediction = np.array([[2, 7], [3, 4]], np.float32)
    metrics = value.metrics()
    assert metrics["mae"].score([prediction], [truth]) == pytest.approx(1 / 3)
    assert metrics["rmse"].score([prediction], [truth]) == pytest.approx(np.sqrt(1 / 3))
    other = np.array([[3, 5], [3, np.nan]], np.float32)
    np.testing.assert_allclose(metrics["rmse"].best_constant([truth, other]), [[2, 5], [3, 4]])
    np.testing.assert_allclose(metrics["mae"].best_constant([truth, other]), [[2, 5], [3, 4]])
    cover: Any = catalog()["cover"].value
    seen, said = np.array([[0, -1], [1, 1]]), np.array([[0, 0], [1, 1]])
    assert cover.metrics()["miou"].score([said], [seen]) == 1


def test_standardized_maps_with_unknown_points() -> None:
    value = Map((4, 4), trim_quantile=0.1, missing=("nan",))
    array = np.arange(16, dtype=np.float32).reshape(4, 4)
    array[0, 0] = np.nan
    found = value.to_network([value.check(array, "x")])
    known = found[~found.isnan()]
    assert found.isnan().sum() == 1 and abs(float(known.mean())) < 0.2
    empty = value.standardize(np.full((4, 4), NAN))
    assert np.isfinite(empty).all() or np.isnan(empty).all()


def test_merging_skips_unknown_points() -> None:
    value = Map((2,), range=(0, 9), missing=("nan",))
    a, b = np.array([1, np.nan], np.float32), np.array([3, np.nan], np.float32)
    np.testing.assert_array_equal(value.merge([a, b], 0.5), [2, np.nan])
    cover: Any = catalog()["cover"].value
    merged = cover.merge([np.array([[-1, 0], [1, -1]], np.int16)] * 2 + [np.array([[1, 0], [1, -1]], np.int16)], 0.5)
    assert merged.tolist() == [[1, 0], [1, -1]]


@pytest.mark.parametrize("name", ["bands", "cover", "height"])
def test_unknown_points_are_hatched(name: str, sample: dict[str, Any]) -> None:
    value: ValueType = catalog()[name].value
    picture = value.draw(sample[name], (64, 64))
    full = {"bands": 5.0, "cover": 1, "height": 5.0}[name]
    whole = value.draw(np.where(value.known(sample[name]), sample[name], full), (64, 64), reference=sample[name])
    changed = (picture != whole).any(axis=-1)
    assert 0.1 < changed.mean() < 0.6
    shades = {tuple(color) for color in picture[changed].tolist()}
    assert {(206, 206, 206), (150, 150, 150)} <= shades


def test_a_diffusion_decoder_cannot_predict_unknown_points() -> None:
    with pytest.raises(MaskweaveError, match="a diffusion decoder cannot predict which points are unknown"):
        catalog_from(
            {"modalities": {"a": {"id": 1, "kind": "grid", "grid": [2, 2], "tokenizer": {"diffusion": {}}, "value": {"type": "map", "size": [8, 8], "range": [0, 1], "missing": "predicted"}}}},
            "own.yaml",
        )  # fmt: skip


def _entry(value: ValueType) -> Any:
    from maskweave.modality.entry import Modality

    return Modality("x", 1, "grid", value, grid=(1, 1))
