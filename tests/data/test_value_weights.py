"""Weights of numbers, such as inverse variances: `weight: NAME`, from folders to tokenizers and scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from maskweave.cli.main import main
from maskweave.data.augment import Augment, AugmentedValues
from maskweave.data.batches import ValueBatches
from maskweave.data.folders import import_folders
from maskweave.data.opening import open_data
from maskweave.data.reading import read
from maskweave.data.token_store import entry_fingerprint
from maskweave.data.transforms import fit
from maskweave.data.weights import scaled_together, scaled_weights_of, weights_of
from maskweave.errors import MaskweaveError
from maskweave.evaluate import run as evaluation
from maskweave.files import write_yaml
from maskweave.generate.bundle import load
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.training.metrics import read_metrics
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source
from maskweave.training.tokenizers import train_tokenizers
from maskweave.transfer.data import open_examples
from maskweave.transfer.recipe import TransferData
from maskweave.transfer.scoring import score_values
from maskweave.transfer.shares import weighted_answers
from maskweave.values import weights
from maskweave.values.weights import CLIPPED_AT, Weighting

SMALL = {"width": 32, "heads": 2, "depth": 1, "decoder_depth": 1, "loss": "mse", "quantizer": {"type": "fsq", "levels": [8, 8, 8]}}  # fmt: skip


def test_an_entry_without_weights_has_none() -> None:
    own = catalog()
    sample = {"ivar": np.ones((16, 1), np.float32), "flux": np.zeros((16, 1), np.float32)}
    assert scaled_weights_of([sample], own["ivar"]) is None
    assert scaled_together(None, own["flux"]) is None and scaled_together([np.ones((16, 1))], None) is None
    weights_of_flux = scaled_weights_of([sample], own["flux"])
    assert weights_of_flux is not None and np.array_equal(weights_of_flux[0], np.ones((16, 1)))


def catalog(**changes: Any) -> Catalog:
    entries: dict[str, Any] = {
        "flux": {"id": 1, "kind": "grid", "grid": [4], "value": {"type": "map", "size": [16], "range": [-4, 4], "outside": "clip", "missing": "nan"}, "weight": "ivar", "tokenizer": SMALL},
        "ivar": {"id": 2, "kind": "patches", "grid": [4], "value": {"type": "map", "size": [16], "range": [0, 1e6], "missing": "nan"}},
    }  # fmt: skip
    for name, change in changes.items():
        entries[name] = {**entries.get(name, {}), **change}
    return catalog_from({"modalities": entries}, "own.yaml")


IVAR = np.float32([0, 1, 2, np.nan, 4, 5, 6, 7, 1, 1, 1, 1, 0.5, 0.5, -1, 3])


def test_points_of_weight_0_are_unknown_and_samples_without_weights_are_told() -> None:
    entries = catalog()
    out = fit({"flux": np.ones(16, np.float32), "ivar": IVAR}, entries)
    known = np.nan_to_num(IVAR) > 0
    assert np.array_equal(~np.isnan(out["flux"]), known)
    raw = weights_of(out, entries["flux"])
    assert np.array_equal(raw, np.where(known, IVAR, 0))
    alone = fit({"flux": np.ones(16, np.float32)}, entries)
    assert not np.isnan(alone["flux"]).any() and np.isnan(weights_of(alone, entries["flux"])).all()
    assert list(fit({"flux": np.ones(16, np.float32), "ivar": np.zeros(16, np.float32)}, entries)) == ["ivar"]


def test_weights_of_planes_may_have_another_size() -> None:
    plane = {"type": "map", "size": [4, 4], "range": [0, 9], "missing": "nan"}
    entries = catalog(
        flux={"grid": [2, 2], "value": plane, "tokenizer": None},
        ivar={"grid": [2, 2], "value": {**plane, "size": [2, 2]}},
    )
    sample = fit({"flux": np.ones((4, 4), np.float32), "ivar": np.float32([[1, 2], [3, 4]])}, entries)
    wanted = np.float32([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    assert np.array_equal(weights_of(sample, entries["flux"]), wanted)


def test_weights_are_1_on_average_without_the_largest() -> None:
    rng = np.random.default_rng(0)
    raw = rng.gamma(2.0, 3.0, (40, 50, 2)) * [1, 1e-9]
    raw[0, 0] = 1e20
    raw[:, :10] = 0
    weighting = Weighting.fit(raw, 2)
    scaled = weighting(raw)
    assert scaled[:, 10:].reshape(-1, 2).mean(axis=0) == pytest.approx([1, 1], rel=0.02)
    assert (scaled[:, 1:10] == 0).all() and scaled.max() < 10, "one huge weight counts as much as the quantile"
    for c in range(2):
        positive = raw[..., c][raw[..., c] > 0]
        assert weighting.most[c] == pytest.approx(np.quantile(positive, CLIPPED_AT))
    assert weighting(np.full((3, 2), np.nan)).tolist() == [[1, 1]] * 3
    assert Weighting.fit([np.zeros(4), np.full(4, np.nan)], 1)(np.float32([0, np.nan])).tolist() == [0, 1]


@pytest.mark.parametrize("channels", [1, 2])
def test_scores_are_those_computed_by_hand(channels: int) -> None:
    value = {"type": "series", "size": [6], "channels": channels}
    entries = catalog(
        flux={"grid": [3], "value": value, "tokenizer": None},
        ivar={"grid": [3], "value": {**value, "missing": "nan", "mean": 0, "std": 1}},
    )
    entry, rng = entries["flux"], np.random.default_rng(1)
    shape = (6, channels) if channels > 1 else (6,)
    truth, predicted = rng.normal(size=(2, 5, *shape)).astype(np.float32)
    weight = rng.gamma(2.0, 1.0, (5, *shape)).astype(np.float32)
    truth[2, 4:], weight[1, 0] = np.nan, 0
    samples = [fit({"flux": t, "ivar": w}, entries) for t, w in zip(truth, weight, strict=True)]
    weights = scaled_weights_of(samples, entry)
    truths = [sample["flux"] for sample in samples]
    assert weights is not None
    axes = (0, 1)
    highest = [
        np.quantile(w[w > 0], CLIPPED_AT)
        for w in np.moveaxis(np.where(np.isnan(truth), 0, weight).reshape(5, 6, channels), -1, 0)
    ]
    w = np.minimum(weight.reshape(5, 6, channels), highest)
    w = np.where(np.isnan(truth).reshape(w.shape), 0, w)
    w = w / (w.sum(axis=axes) / (w > 0).sum(axis=axes))
    error = np.nan_to_num(predicted - truth).reshape(w.shape)
    metrics = entry.value.metrics()
    mae = metrics["mae"].scores(predicted, truths, weights)
    assert mae["MAE"] == pytest.approx((w * np.abs(error)).sum() / w.sum(), rel=1e-5)
    assert metrics["rmse"].score(predicted, truths, weights) == pytest.approx(
        np.sqrt((w * error**2).sum() / w.sum()), rel=1e-5
    )
    if channels > 1:
        assert mae["MAE 1"] == pytest.approx((w * np.abs(error)).sum(axis=axes)[1] / w.sum(axis=axes)[1], rel=1e-5)
    shorter = metrics["mae"].score([p[:5] for p in predicted], truths, weights)
    assert np.isfinite(shorter) and shorter != mae["MAE"]


def test_best_constants_of_weighted_values() -> None:
    rng = np.random.default_rng(2)
    values, weights = rng.gamma(3.0, 1.0, (30, 4)), list(rng.gamma(0.5, 1.0, (30, 4)))
    value = {"type": "map", "size": [4], "range": [0, 30], "missing": "nan"}
    entry = catalog(flux={"grid": [2], "value": value, "tokenizer": None}, ivar={"grid": [2], "value": value})["flux"]
    for name, metric in entry.value.metrics().items():
        if name == "unknown_iou":
            continue
        best = metric.best_constant(values, weights)
        sign = -1 if metric.better == "higher" else 1
        reached = sign * metric.score([best] * 30, values, weights)
        for other in (*values, metric.best_constant(values), best * 1.01, best * 0.99):
            assert reached <= sign * metric.score([other] * 30, values, weights) + 1e-9, name
        equal = metric.score([best] * 30, values, [np.full(4, 3.0)] * 30)
        assert equal == pytest.approx(metric.score([best] * 30, values)), name


def test_weighted_scores_of_vectors() -> None:
    value = catalog(colors={"id": 3, "kind": "grid", "grid": [1], "value": {"type": "vector", "channels": 2}})[
        "colors"
    ].value
    rng = np.random.default_rng(3)
    truth, predicted = rng.normal(size=(2, 20, 2))
    weights = rng.gamma(2.0, 1.0, (20, 2))
    wanted = [r2_score(truth[:, c], predicted[:, c], sample_weight=weights[:, c]) for c in range(2)]
    assert value.metrics()["r2"].score(predicted, truth, list(weights)) == pytest.approx(np.mean(wanted))


def trained(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Reconstructions of a small tokenizer."""
    torch.manual_seed(0)
    entry = catalog()["flux"]
    tokenizer = GridTokenizer(entry)
    objective = TokenizerObjective(tokenizer).train()
    batches = ValueBatches(entry, values, 64, weights=None if weights is None else (weights, Weighting.fit(weights, 1)))
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
    for i in range(200):
        loss, _ = objective(batches[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tokenizer.decode(tokenizer.encode(values))


def test_a_tokenizer_spends_its_codes_on_what_weighs_much() -> None:
    rng = np.random.default_rng(4)
    x = np.linspace(0, 1, 16)
    values = np.stack([np.sin(2 * np.pi * (x * f + p)) for f, p in rng.uniform(0.5, 2, (256, 2))]).astype(np.float32)
    noisy = np.arange(16) % 2 == 1
    values[:, noisy] = rng.uniform(-4, 4, (256, 8))
    weights = np.broadcast_to(np.where(noisy, 1e-3, 1).astype(np.float32), values.shape)
    error = [np.abs(trained(values, w) - values)[:, ~noisy].mean() for w in (None, weights)]
    assert error[1] < 0.7 * error[0], error


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "cosine"])
def test_equal_weights_change_no_loss(loss: str) -> None:
    entry = catalog(flux={"tokenizer": {**SMALL, "loss": loss}})["flux"]
    objective = TokenizerObjective(GridTokenizer(entry)).eval()
    values = np.random.default_rng(5).normal(size=(4, 16)).clip(-3, 3).astype(np.float32)
    values[0, :3] = np.nan
    batches = [
        ValueBatches(entry, values, 4, shuffle=False),
        ValueBatches(entry, values, 4, shuffle=False, weights=(np.ones((4, 16)), Weighting((1,), (1,)))),
    ]
    losses = [float(objective(b[0].to("cpu"))[0].detach()) for b in batches]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    tripled = ValueBatches(entry, values, 4, shuffle=False, weights=(np.full((4, 16), 3.0), Weighting((9,), (1,))))
    plain, more = (objective(b[0])[1]["reconstruction"] for b in (batches[0], tripled))
    assert float(more) == pytest.approx(3 * float(plain), rel=1e-5)


def test_weights_move_with_augmented_values() -> None:
    entries = catalog(
        flux={
            "grid": [4, 4],
            "value": {"type": "map", "size": [8, 8], "range": [0, 64], "missing": "nan"},
            "tokenizer": None,
        },
        ivar={"grid": [4, 4], "value": {"type": "map", "size": [8, 8], "range": [0, 64], "missing": "nan"}},
    )
    augment = AugmentedValues(Augment(crop=0.5, flip=0.5, shift={"flux": 0.5}), entries["flux"], 0)
    values = np.random.default_rng(6).uniform(1, 60, (6, 8, 8)).astype(np.float32)
    moved, weights = augment(values, 0, values)
    assert weights is not None and not np.allclose(moved, values, equal_nan=True)
    np.testing.assert_allclose(moved, weights, rtol=1e-5)
    np.testing.assert_array_equal(moved, augment(values, 0)[0])
    values[:, :, :6] = np.nan  # shifts keep a known point inside
    far = AugmentedValues(Augment(shift={"flux": 1.0}), entries["flux"], 0)
    moved, weights = far(values, 0, np.nan_to_num(values))
    assert weights is not None and not np.isnan(moved).all(axis=(1, 2)).any()
    np.testing.assert_array_equal(moved, weights)
    values = np.ones_like(values)
    noisy, weights = AugmentedValues(Augment(noise={"flux": 0.5}), entries["flux"], 0)(values, 0, values)
    assert not np.allclose(noisy, values) and weights is not None and np.array_equal(weights, values)


def test_weights_are_read_with_their_values(tmp_path: Path) -> None:
    for name, value in (("flux", np.ones(16, np.float32)), ("ivar", IVAR)):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i in range(3):
            if name == "flux" or i:
                np.save(tmp_path / "raw" / name / f"s{i}.npy", value)
    entries = catalog()
    import_folders(tmp_path / "raw", tmp_path / "out", entries.subset(["flux"]))
    items = list(read(open_data(str(tmp_path / "out"), entries, names=["flux"]), range(3)))
    assert [np.isnan(item.sample["flux"]).sum() for item in items] == [0, 3, 3]
    told = {("flux", "values without weights in 'ivar': all their points weigh as much as the average"): 1}
    assert items[0].remarks == told and not items[1].remarks
    assert entry_fingerprint(entries["flux"]) != entry_fingerprint(catalog(flux={"weight": ""})["flux"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flux": {"value": {"type": "map", "size": [16], "range": [0, 9]}}}, "points of weight 0 are unknown: also set value.missing: nan"),
        ({"flux": {"weight": "noise"}}, "weight is 'noise', which is not a modality of the catalog; correct the name, or remove 'weight'"),
        ({"ivar": {"view": "other"}}, "view 'other'; expected numbers with 1 axes, 1 channel and view ''"),
        ({"ivar": {"value": {"type": "series", "size": [32], "mean": 0, "std": 1}}}, "whose values have 32 points; expected 16 points, as weights over one axis belong to the points of the same index; set value.size"),
        ({"ivar": {"value": {"type": "map", "size": [16], "range": [0, 9], "missing": "nan", "fit": "resize"}}}, "whose values have 16 points, resized; expected 16 points, as"),
        ({"ivar": {"value": {"type": "map", "size": [16], "range": [0, 9], "missing": "nan", "axis": {"from": 400, "to": 700}}}}, r"whose values have 16 points from 400 to 700 \(linear\); expected 16 points, as"),
        ({"flux": {"value": {"type": "classes", "size": [16], "classes": ["a", "b"], "ignore": 255}, "tokenizer": None}}, "values of type 'classes' cannot be weighted; expected a map, series, features or vector"),
        ({"ivar": {"kind": "grid", "value": {"type": "binary", "size": [16]}}}, "of type 'binary' with value.size"),
        ({"tok": {"id": 9, "kind": "grid", "grid": [4], "source": "flux", "weight": "ivar", "value": {"type": "map", "size": [16], "range": [-4, 4], "missing": "nan"}}}, "weight belongs in the entry of its source 'flux'; move it there"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        catalog(**changes)


RECIPE = """\
catalog: HOME/spectra.yaml
modalities: [flux, ivar]
data: {source: HOME/shards, validation: 8}
tokenizers: {train: {steps: 3, batch_size: 8, checkpoint_every: 0, log_every: 1}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 4, target_tokens: 4}}
train: {steps: 2, batch_size: 8, checkpoint_every: 0}
evaluate: {samples: 8, requests: [{inputs: [ivar], targets: [flux]}]}
"""


def test_runs_train_and_score_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    for i in range(40):
        for name, value in (("flux", rng.normal(size=16).clip(-3, 3)), ("ivar", rng.gamma(2.0, 1.0, 16))):
            (tmp_path / "raw" / name).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "raw" / name / f"{i:02d}.npy", value.astype(np.float32))
    entries = catalog()
    write_yaml(tmp_path / "spectra.yaml", entries.to_plain())
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("HOME", str(tmp_path)), encoding="utf-8")
    import_folders(tmp_path / "raw", tmp_path / "shards", entries)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    train_tokenizers(recipe, catalog(flux={"weight": ""}), tmp_path / "plain")
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 0
    first = [read_metrics(tmp_path / run / "tokenizers" / "flux")[0] for run in ("plain", "run")]
    assert first[0]["loss"] != first[1]["loss"] and first[0]["loss"] == pytest.approx(first[1]["loss"], rel=0.3)

    bundle = load(tmp_path / "run")
    source = open_source(recipe, bundle.catalog, "validation", samples=8)
    samples = [source[i] for i in range(len(source))]
    tokenizer, truth = bundle.tokenizers["flux"], np.stack([sample["flux"] for sample in samples])
    weights = np.stack([sample["ivar"] for sample in samples])
    weights = np.minimum(weights, np.quantile(weights, CLIPPED_AT))
    error = np.abs(tokenizer.decode(tokenizer.encode(truth)) - truth)
    (mae,) = [
        row
        for row in json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
        if row["metric"] == "MAE"
    ]
    assert mae["tokenizer"] == pytest.approx((weights * error).sum() / weights.sum(), rel=1e-4)
    scaled: list[int] = []
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    monkeypatch.setattr(evaluation, "scaled_weights_of", lambda s, e: scaled.append(len(s)) or scaled_weights_of(s, e))
    (again,) = [row for row in evaluation.evaluate(bundle, tmp_path / "run") if row.metric == "MAE"]
    assert again.tokenizer == pytest.approx(mae["tokenizer"], rel=1e-6) and again.samples == 8
    assert scaled == [32, 8], "of the training samples, then of the held-out ones, once for all chunks"

    parts = open_examples(TransferData(source=str(tmp_path / "shards"), validation=8), entries, ["flux"], "flux", "")
    assert set(parts.held_out[0]) == {"flux", "ivar"}
    seen, seen_weights = weighted_answers(parts.train, 500)
    assert seen_weights is not None and len(seen) == len(seen_weights) == 32
    scored = {
        score.metric: score
        for score in score_values(
            parts.train.target.scores(), [0 * t for t in truth], truth, seen, weights, seen_weights
        )
    }
    constant = np.abs(weighted_medians(np.stack(seen), np.stack(seen_weights)) - truth)
    assert scored["MAE"].value == pytest.approx((weights * np.abs(truth)).sum() / weights.sum(), rel=1e-4)
    assert scored["MAE"].constant == pytest.approx((weights * constant).sum() / weights.sum(), rel=1e-4)


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Per point, the value whose absolute distance to the others is smallest."""
    cost = [(np.abs(values - one) * weights).sum(axis=0) for one in values]
    return np.take_along_axis(values, np.argmin(cost, axis=0)[None], axis=0)[0]


def test_weights_are_looked_at_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most `POINTS` of a channel: of few large values all points' share, of many small values some values."""
    monkeypatch.setattr(weights, "POINTS", 60)
    small = np.arange(400 * 2 * 3, dtype=np.float32).reshape(400, 2, 3)
    some = weights._some(small, 3)
    assert len(some) == 60 and np.array_equal(some[[0, -2]], small[[0, -1], 0])
    steps = np.diff(some[::2, 0]) / 6
    assert steps.min() >= 13 and steps.max() <= 14
    large = np.arange(3 * 50 * 2, dtype=np.float32).reshape(3, 50, 2)
    assert np.array_equal(weights._some(large, 2), large.reshape(-1, 2)[:50:1])
