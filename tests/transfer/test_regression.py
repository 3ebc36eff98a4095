"""Regression: heads and losses of numbers, ridge against scikit-learn, transfer and probe from recipe to distribution."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
import yaml
from small_transfer import catalog, make_bundle, write_recipe

from maskweave.cli.main import main
from maskweave.data.split import Split
from maskweave.errors import MaskweaveError
from maskweave.masking.inputs import raw_inputs
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.modality.entry import Modality
from maskweave.models.encoder import Encoded
from maskweave.models.raw_features import MOST_PARTS, RawFeatures, block_sizes, raw_blocks
from maskweave.models.sample_heads import ClassHead, NumberForm, NumberHead
from maskweave.objectives.regression import NumberLoss
from maskweave.synthetic.scenes import Scenes
from maskweave.transfer.build import load_transferred
from maskweave.transfer.data import Examples, open_examples
from maskweave.transfer.probe import probe_features
from maskweave.transfer.recipe import HeadSettings, TransferData, load_transfer
from maskweave.transfer.run import run_transfer
from maskweave.transfer.target import Target, make_target, target_tensor
from maskweave.transfer.task import fit_facts, number_answers
from maskweave.values.distribution import NumberDistribution, VectorDistribution
from maskweave.values.map import Map
from maskweave.values.scalar import Scalar
from maskweave.values.vector import Vector

BRIGHTNESS = {"target": "metadata", "label": "brightness"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


def encoded(tokens: torch.Tensor) -> Encoded:
    return Encoded(tokens, None, {"x": slice(0, tokens.shape[1])}, {})


@pytest.mark.parametrize("form", ["gaussian", "quantile", "histogram"])
def test_each_form_learns_a_number_and_its_spread(form: NumberForm) -> None:
    """y = 1000 + 50 x + noise of 20: the error reaches that of the noise, and 90% of the truths are in the interval."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (400, 1))
    y = 1000 + 50 * x[:, 0] + 20 * rng.normal(size=400)
    tokens = torch.from_numpy(np.concatenate([x, -x, x**2, np.ones_like(x)], axis=1)).float()[:, None]
    target = Target(Modality("y", 1, "grid", Scalar()), "", ())
    facts = fit_facts(target, list(y), HeadSettings(form=form, bins=16))
    torch.manual_seed(0)
    head = NumberHead(4, 1, form, len(facts.centers))
    head.norm = torch.nn.Identity()
    head.set_scale(facts.mean, facts.std)
    if form == "histogram":
        head.set_bins(facts.edges, facts.centers)
    loss, optimizer = NumberLoss(head), torch.optim.Adam(head.parameters(), 3e-2)
    wanted = target.modality.value.to_network(list(y))
    for _ in range(300):
        value, metrics = loss(head(encoded(tokens)), wanted)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    found = number_answers(target, head, head(encoded(tokens)))
    scores = {name: metric.score(found, y.tolist()) for name, metric in Scalar().metrics().items()}
    assert scores["mae"] < 1.25 * 20 * np.sqrt(2 / np.pi)
    assert scores["r2"] > 0.8 and 0.8 < scores["coverage"] < 0.98
    assert scores["nll"] < np.log(20 * np.sqrt(2 * np.pi * np.e)) + 0.25
    assert metrics["error"] == pytest.approx(scores["mae"] / facts.std[0], rel=0.1)


def test_unknown_numbers_are_skipped() -> None:
    head = NumberHead(4, 3, "gaussian")
    output = head(encoded(torch.randn(2, 1, 4)))
    target = torch.tensor([[1.0, torch.nan, 2.0], [torch.nan] * 3])
    loss, _ = NumberLoss(head)(output, target)
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, output)
    assert bool((gradient[1] == 0).all()) and bool((gradient[0, 1] == 0).all()) and bool((gradient[0, 0] != 0).any())
    nothing, _ = NumberLoss(head)(output, torch.full((2, 3), torch.nan))
    assert nothing == 0


def test_gaussian_and_quantile_distributions() -> None:
    normal = NumberDistribution.gaussian(3.0, 2.0)
    assert (normal.value, normal.mean) == (pytest.approx(3), pytest.approx(3))
    assert normal.std == pytest.approx(2, rel=1e-3)
    assert normal.interval(0.9) == pytest.approx((3 - 2 * 1.64485, 3 + 2 * 1.64485), abs=2e-3)
    exact = -0.5 * np.log(2 * np.pi * 4) - 0.5
    assert normal.log_density(5.0) == pytest.approx(exact, abs=0.05)
    on_log = NumberDistribution.gaussian(10.0, 0.5, "Msun", "log")
    assert on_log.value == pytest.approx(1e10) and on_log.median == pytest.approx(1e10, rel=1e-3)
    levels = np.linspace(0.05, 0.95, 19)
    shaped = NumberDistribution.from_quantiles(levels, 10 * levels)
    assert shaped.quantile(levels) == pytest.approx(10 * levels)
    assert shaped.interval(0.9) == pytest.approx((0.5, 9.5)) and shaped.probabilities.sum() == pytest.approx(1)
    equal = NumberDistribution.from_quantiles(levels, np.full(19, 7.0))
    assert equal.value == pytest.approx(7, abs=1e-3) and (np.diff(equal.edges) > 0).all()


def test_distributions_of_vectors() -> None:
    rng = np.random.default_rng(0)
    target = Target(Modality("v", 1, "grid", Vector(channels=2, unit="m"), grid=(1,)), "", ())
    truth = list(rng.normal([3, -100], [1, 20], (500, 2)).astype(np.float32))
    facts = fit_facts(target, truth, HeadSettings())
    head = NumberHead(4, 2, "gaussian")
    head.set_scale(facts.mean, facts.std)
    found = number_answers(target, head, torch.zeros(500, 2, 2))
    assert isinstance(found[0], VectorDistribution) and found[0].value == pytest.approx(facts.mean, rel=1e-5)
    spread = scipy.stats.norm(facts.mean, facts.std)
    metrics = Vector(channels=2).metrics()
    score = {name: metric.score(found, truth) for name, metric in metrics.items()}
    assert score["nll"] == pytest.approx(-spread.logpdf(truth).mean(), rel=1e-5)
    inside = (truth >= spread.ppf(0.05)) & (truth <= spread.ppf(0.95))
    assert score["coverage"] == pytest.approx(inside.mean()) == pytest.approx(0.9, abs=0.03)
    assert score["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(truth - np.array(facts.mean)))), rel=1e-5)
    weights = [np.array([1.0, 0.0])] * 500
    assert metrics["nll"].score(found, truth, weights) == pytest.approx(-spread.logpdf(truth)[:, 0].mean(), rel=1e-5)
    constant = metrics["nll"].best_constant(truth)
    assert metrics["nll"].score([constant] * 500, truth) == pytest.approx(score["nll"], rel=1e-4)
    wide = VectorDistribution.mixture(
        [VectorDistribution(np.zeros(2), np.ones(2)), VectorDistribution(np.full(2, 4.0), np.ones(2))]
    )
    assert wide.value.tolist() == [2, 2] and wide.std == pytest.approx(np.sqrt([5, 5]))
    assert json.loads(json.dumps(wide.to_plain()))["std"] == pytest.approx(np.sqrt([5, 5]))
    assert np.isnan(metrics["nll"].score([t * 0 for t in truth], truth)), "arrays have no distribution"


def test_points_that_no_example_knows_are_predicted_as_unknown() -> None:
    """Such as a sky line that all spectra mask: the prediction has a gap there, not a number that nothing tells."""
    value = Map(size=(4,), range=(0, 10), missing=("nan",))
    target = Target(Modality("v", 1, "grid", value, grid=(2,)), "", ())
    seen = [np.array([1, 2, np.nan, 4 + i % 2], np.float32) for i in range(6)]
    facts = fit_facts(target, seen, HeadSettings())
    head = NumberHead(4, 4, "gaussian")
    head.set_scale(facts.mean, facts.std)
    loss, _ = NumberLoss(head)(torch.zeros(6, 4, 2, requires_grad=True), target_tensor(target, seen))
    assert bool(loss.isfinite())
    (answer,) = number_answers(target, head, torch.zeros(1, 4, 2))
    assert np.allclose(answer, [1, 2, np.nan, 4.5], atol=1e-5, equal_nan=True)


def test_raw_features_are_over_known_points() -> None:
    raw = torch.tensor([[[[1.0, 3.0], [torch.nan, torch.nan]]], [[[torch.nan] * 2] * 2]])
    features = RawFeatures(1, (2, 2), (1, 2))
    assert features.counts == {"channels": 2, "rows": 4, "parts": 3}
    channels, rows, parts = raw_blocks({"x": features}, {"x": raw})
    assert channels[0].tolist() == [2.0, 1.0] and bool(channels[1].isnan().all())
    assert rows[0, :3:2].tolist() == [2.0, 1.0] and bool(rows[0, 1::2].isnan().all())
    assert parts[0].tolist() == [1.0, 3.0, 1.0] and bool(parts[1, :2].isnan().all())
    head = ClassHead(4, 3, raw={"x": features})
    assert head.blocks == {"encoder": 4, "channels": 2, "rows": 4, "parts": 3} and head.width == 13
    with torch.no_grad():
        head.feature_mean[4:] = torch.cat([channels[0], rows[0], parts[0]]).nan_to_num()
        head.out.weight[:, -1] = 0
    tokens = torch.ones(2, 1, 4)
    one, other = head(Encoded(tokens, None, {}, {}, {"x": raw}))
    assert torch.allclose(one, other), "what is unknown counts as average"


def test_parts_divide_what_is_known() -> None:
    """The same course, twice as slow: equal parts, another known share."""
    fast = torch.full((1, 1, 3, 16), torch.nan)
    fast[..., :8] = torch.arange(8.0)
    slow = torch.arange(16.0).div(2, rounding_mode="floor").expand(1, 1, 3, 16)
    features = RawFeatures(1, (3, 16), (1, 4))
    fast_parts, slow_parts = (features(x)["parts"][0] for x in (fast, slow))
    assert fast_parts.tolist() == [0.5, 2.5, 4.5, 6.5, 0.5] and slow_parts.tolist() == [0.5, 2.5, 4.5, 6.5, 1.0]
    assert "parts" not in RawFeatures(MOST_PARTS, (8,), (2,)).counts and "parts" not in RawFeatures(3, (8,), ()).counts
    series, volume = RawFeatures(2, (8,), (4,)), RawFeatures(1, (4, 4, 4), (2, 2, 2))
    assert block_sizes({"a": series, "b": volume}) == {"channels": 6, "parts": 18, "shape": 8}
    found = raw_blocks({"a": series, "b": volume}, {"a": torch.randn(2, 2, 8), "b": torch.randn(2, 1, 4, 4, 4)})
    assert [x.shape for x in found] == [(2, 6), (2, 18), (2, 8)]


def test_shape_does_not_depend_on_level_and_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each channel; unknown parts stay unknown, and a value without a course has zeros."""
    raw = torch.randn(3, 2, 12, generator=torch.Generator().manual_seed(0))
    raw[1, 0, :3], raw[2, 1] = torch.nan, 5.0
    features = RawFeatures(2, (12,), (4,))
    found = features(raw)["shape"]
    scaled = features(raw * torch.tensor([3.0, 0.1])[:, None] + torch.tensor([-7.0, 2.0])[:, None])["shape"]
    assert torch.allclose(found, scaled, atol=1e-4, equal_nan=True)
    assert found[0, :4].mean() == pytest.approx(0, abs=1e-6) and found[0, :4].std(correction=0) == pytest.approx(
        1, abs=1e-5
    )
    assert bool(found[1, 0].isnan()) and bool(found[1, 1:].isfinite().all()) and found[2, 4:].tolist() == [0.0] * 4
    pooled: list[torch.Tensor] = []
    whole = RawFeatures._parts
    monkeypatch.setattr(RawFeatures, "_parts", lambda self, x: pooled.append(x) or whole(self, x))
    assert raw_blocks({"x": features}, {"x": raw})[2].nan_to_num(9).equal(found.nan_to_num(9)) and len(pooled) == 1
    assert "shape" not in RawFeatures(1, (4, 4), (2, 2)).counts and "shape" not in RawFeatures(1, (8,), (2,)).counts


@pytest.mark.parametrize(("size", "parts"), [((9,), (3,)), ((4, 9), (2, 3)), ((2, 4, 9), (1, 2, 3))])
def test_parts_of_a_sample_do_not_depend_on_its_batch(size: tuple[int, ...], parts: tuple[int, ...]) -> None:
    raw = torch.randn(7, 2, *size, generator=torch.Generator().manual_seed(0))
    for i, length in enumerate((9, 5, 9, 1, 0, 5, 7)):
        raw[i, ..., length:] = torch.nan
    raw[0, 0, ..., 2] = torch.nan
    features = RawFeatures(2, size, parts)
    together = features(raw)["parts"]
    alone = torch.cat([features(raw[i : i + 1])["parts"] for i in range(7)])
    assert torch.equal(together.nan_to_num(-9), alone.nan_to_num(-9))
    assert together[:, -1].tolist() == pytest.approx([1, 5 / 9, 1, 1 / 9, 1 / 9, 5 / 9, 7 / 9])
    first = F.adaptive_avg_pool1d(raw[5].flatten(0, -2)[..., :5], parts[-1]).unflatten(0, (2, *size[:-1]))
    pooled = first.reshape(2, *(s for n, k in zip(size[:-1], parts[:-1], strict=True) for s in (k, n // k)), parts[-1])
    mean = pooled.mean(dim=[*range(2, pooled.ndim - 1, 2)]) if len(size) > 1 else pooled
    assert torch.allclose(together[5, :-1], mean.flatten(), atol=1e-6)


def test_raw_inputs_of_samples() -> None:
    samples = [Scenes(catalog(["rgb", "depth"]), 2, 0)[i] for i in range(2)]
    del samples[1]["depth"]
    values = raw_inputs(samples, catalog(["rgb", "depth"]), ["rgb", "depth"])
    assert values["rgb"].shape == (2, 3, 64, 64) and bool(values["depth"][1].isnan().all())
    assert bool(values["depth"][0].isfinite().all())


def test_attention_starts_as_the_mean_and_skips_padding() -> None:
    head = ClassHead(8, 3, attention=2)
    tokens = torch.randn(2, 5, 8)
    present = torch.tensor([[True] * 5, [True, True, False, False, False]])
    features = head.features(Encoded(tokens, present, {}, {}))
    assert features.shape == (2, 16)
    assert torch.allclose(features[1, 8:], tokens[1, :2].mean(dim=0), atol=1e-6)
    with torch.no_grad():
        head.query.fill_(3.0)
    moved = head.features(Encoded(tokens, present, {}, {}))
    assert not torch.allclose(moved[0, 8:], features[0, 8:])


@pytest.mark.parametrize("form", ["gaussian", "quantile", "histogram"])
def test_a_metadata_key_from_recipe_to_distribution(form: str, start: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, start, **BRIGHTNESS, head={"form": form, "bins": 8, "attention": 2})
    rows = {row.metric: row for row in run_transfer(load_transfer(path), tmp_path / "run")}
    assert list(rows) == ["MAE", "RMSE", "R²", "NLL", "coverage of 90%"]
    assert all(np.isfinite([row.value, row.constant]).all() for row in rows.values())
    model = load_transferred(tmp_path / "run")
    sample = {"rgb": Scenes(catalog(["rgb"]), 1, 5)[0]["rgb"]}
    (value,) = model.predict([sample])
    (distribution,) = model.predict([sample], distributions=True)
    assert isinstance(distribution, NumberDistribution) and value == distribution.value
    assert (
        json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))[0]["target"]
        == "metadata brightness"
    )


def test_a_probe_of_numbers(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The brightness of a picture is its mean: statistics tell it, features of random weights hardly."""
    words = ["probe", str(start), "scenes", "--inputs", "rgb", "--samples", "60", "--validation", "20"]
    assert main([*words, "--target", "metadata", "--label", "brightness"]) == 0
    rows = {row["metric"]: row for row in json.loads((start / "probe.json").read_text(encoding="utf-8"))}
    assert (
        rows["linear-probe R²"]["value"] > 0.95
        and rows["linear-probe MAE"]["value"] < rows["linear-probe MAE"]["constant"]
    )
    assert {"linear-probe NLL", "linear-probe coverage of 90%", "20-nearest-neighbor MAE"} <= {*rows}
    assert "20-nearest-neighbor NLL" not in rows
    assert main([*words, "--target", "metadata", "--label", "brightness", "--statistics", "false"]) == 0
    without = {row["metric"]: row for row in json.loads((start / "probe.json").read_text(encoding="utf-8"))}
    assert without["linear-probe MAE"]["value"] > rows["linear-probe MAE"]["value"]


NEW = {
    "curve": {"id": 60, "kind": "grid", "grid": [4], "value": {"type": "map", "size": [16], "channels": 2, "range": [0, 1], "missing": "nan"}},
    "joints": {"id": 62, "kind": "grid", "grid": [4], "value": {"type": "series", "size": [16], "channels": 2, "mean": [0, 0], "std": [1, 1]}},
    "summary": {"id": 61, "kind": "grid", "grid": [1], "value": {"type": "vector", "channels": 3}},
}  # fmt: skip


class Curves:
    """Pictures of one gray level g: the summary is (g, 1 − g, 2), the curve rises from 0 to g and is partly unknown."""

    names = ("rgb", "curve", "joints", "summary")

    def __init__(self, catalog: Catalog | None = None):
        pass

    def __len__(self) -> int:
        return 40

    def key(self, i: int) -> str:
        return f"curve-{i}"

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        g = (i * 7 % 40) / 40
        curve = np.stack([g * np.linspace(0, 1, 16), np.full(16, g)], axis=1).astype(np.float32)
        curve[i % 5 :][:2] = np.nan
        return {
            "rgb": np.full((64, 64, 3), round(255 * g), np.uint8),
            "curve": curve,
            "joints": np.full((5 + i % 10, 2), g, np.float32),
            "summary": np.array([g, 1 - g, 2], np.float32),
        }


@pytest.mark.parametrize("target", [pytest.param("curve", marks=pytest.mark.slow), "joints", "summary"])
def test_vectors_and_curves_are_targets(
    target: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    changes = {"target": target, "catalog": str(tmp_path / "more.yaml")}
    data = {"source": "python: test_regression:Curves", "validation": 8}
    path = write_recipe(tmp_path, start, **changes, data=data, head={"form": "quantile"})
    rows = {row.metric: row for row in run_transfer(load_transfer(path), tmp_path / "run")}
    assert rows["MAE"].value < rows["MAE"].constant
    (found,) = load_transferred(tmp_path / "run").predict([{"rgb": Curves()[3]["rgb"]}])
    assert found.shape == (16, 2) if target == "joints" else np.shape(Curves()[3][target])
    path = write_recipe(tmp_path, start, **changes, data=data, head={"form": "histogram"})
    with pytest.raises(MaskweaveError, match=r"bins are for one; use 'gaussian' or 'quantile'"):
        run_transfer(load_transfer(path), tmp_path / "bins")


def test_a_probe_of_a_target_that_only_the_catalog_has(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    words = ["probe", str(start), "python: test_regression:Curves", "--inputs", "rgb"]
    assert main([*words, "--target", "summary"]) == 1
    assert "unknown modality 'summary'" in capsys.readouterr().err
    assert main([*words, "--target", "summary", "--catalog", str(tmp_path / "more.yaml")]) == 0
    written = json.loads((start / "probe.json").read_text(encoding="utf-8"))
    assert {row["samples"] for row in written} == {8}, "a fifth of 40 samples"
    rows = {row["metric"]: row["value"] for row in written}
    assert rows["linear-probe R²"] > 0.95 and "20-nearest-neighbor NLL" not in rows
    assert rows["linear-probe coverage of 90%"] > 0.7 and np.isfinite(rows["linear-probe NLL"])


class Ended(Curves):
    """The curves of the last samples are unknown."""

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        sample = super().__getitem__(i)
        return {**sample, "curve": sample["curve"] * (np.nan if i >= 30 else 1)}


class Plain:
    """Stands for an encoder: its features never change."""

    encoder = SimpleNamespace(names=["curve"], parameters=lambda: iter([torch.zeros(1)]))

    def stream(self, examples: Examples, **_: Any) -> Iterator[Any]:
        numbers = range(len(examples))
        pooled = torch.ones(len(examples), 2)
        yield SimpleNamespace(
            numbers=[*numbers], samples=[examples[i] for i in numbers], encoded=SimpleNamespace(pooled=pooled)
        )


def test_unknown_features_count_as_those_of_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    data = TransferData(source="python: test_regression:Ended", validation=8, split=Split(by="order"))
    parts = open_examples(data, load_catalog(str(tmp_path / "more.yaml")), ["curve"], "summary", "")
    features: Any = Plain()
    train, held_out = probe_features(features, parts)
    assert bool(train.features.isfinite().all()) and held_out.blocks == [2, 4, 9, 8]
    known = train.features[:30]
    assert not torch.equal(known[0], known[1])
    others = [i for i in range(23) if i != 14]  # all but the known share, the last of the parts
    assert torch.allclose(held_out.features[:, others], known.mean(dim=0).expand(8, -1)[:, others], atol=1e-5)


def test_groups_share_a_part_and_a_fold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    data = TransferData(source="python: test_regression:Curves", validation=10, split=Split(group=r"curve-\d"))
    parts = open_examples(data, load_catalog(str(tmp_path / "more.yaml")), ["curve"], "summary", "")
    keys = [[part.key(i) for i in range(len(part))] for part in parts]
    groups = [{key[:7] for key in of_part} for of_part in keys]
    assert len(keys[0]) + len(keys[1]) == 40 and not groups[0] & groups[1]
    folds = parts.train.folds(range(len(parts.train)))
    by_group = {key[:7]: {int(f) for k, f in zip(keys[0], folds, strict=True) if k[:7] == key[:7]} for key in keys[0]}
    assert all(len(found) == 1 for found in by_group.values()) and len(set(folds.tolist())) > 1


def test_what_a_number_cannot_be(start: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="metadata with label brightness"):
        make_target(catalog(), "metadata", "brightnes")
    for changes, message in (
        ({"loss": {"focal": 2.0}}, "loss: its keys are for targets with classes, and 'metadata brightness' has none"),
        ({"head": {"attention": 5}}, "head.attention 5 must divide the encoder's width 32"),
        (
            {"head": {"statistics": True}, "inputs": ["caption"]},
            "head.statistics needs an input of numbers at points, found caption",
        ),
    ):
        with pytest.raises(MaskweaveError, match=message):
            run_transfer(load_transfer(write_recipe(tmp_path, start, **BRIGHTNESS, **changes)), tmp_path / "run")
