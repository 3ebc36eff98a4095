"""Scalars: files, bins that follow the training values, distributions, scores and figures."""

import io
import json

import numpy as np
import pytest
import torch

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.bins import bin_starts, fit_bins
from maskweave.values.distribution import NumberDistribution, point
from maskweave.values.files import write_npy
from maskweave.values.remarks import listening
from maskweave.values.scalar import Scalar
from maskweave.values.scales import from_scale, to_scale

SAMPLES = np.random.default_rng(0).lognormal(0, 2, 4000)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


# Files and checks.


def test_all_files_hold_the_same_number() -> None:
    value = Scalar(key="z")
    contents = {
        "json": [b"0.25", b'{"z": 0.25, "other": null}'],
        "txt": [b"0.25\n", b"  2.5e-1"],
        "csv": [b"0.25\n", b"z,flux\n0.25,7\n"],
        "npy": [write_npy(np.float32(0.25)), write_npy(np.array([0.25]))],
    }
    contents["npz"] = [npz(z=np.float64(0.25), flux=np.zeros(3))]
    assert set(contents) <= set(value.endings)
    for ending, variants in contents.items():
        for content in variants:
            assert value.read(content, ending, "here") == 0.25
    for one in (value, Scalar()):
        content, ending = one.to_file(0.1, "here")
        assert one.read(content, ending, "again") == 0.1
    assert json.loads(value.write(0.1)[0]) == {"z": 0.1}


@pytest.mark.parametrize(
    ("ending", "content", "said"),
    [
        ("txt", b"fast", "here: found the text 'fast'; expected a number"),
        ("json", b"[1, 2]", r"here: found \[1, 2\]; expected a finite number"),
        ("json", b'{"z": true}', "here: found True; expected a finite number"),
        ("txt", b"inf", "here: found inf; expected a finite number"),
        ("npy", b"", "here: the file is empty"),
        ("csv", b"z\n1\n2\n", "here: found 3 rows of 1 columns; expected one cell, or the column 'z' and one row"),
        ("npy", write_npy(np.zeros(3)), r"here: found an array of shape \(3,\); expected one number"),
    ],
)
def test_other_contents_are_refused(ending: str, content: bytes, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        Scalar(key="z").read(content, ending, "here")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("json", b"null"),
        ("json", b"NaN"),
        ("json", b'{"z": null}'),
        ("json", b'{"flux": 1}'),
        ("txt", b""),
        ("txt", b" nan\n"),
        ("csv", b""),
        ("csv", b"z,flux\n,1\n"),
        ("npy", write_npy(np.array(np.nan))),
    ],
)
def test_files_may_say_that_the_number_is_missing(ending: str, content: bytes) -> None:
    assert Scalar(key="z").read(content, ending, "here") is None


def test_numbers_outside_are_clipped_or_missing_if_the_entry_says_so() -> None:
    clipped, missing = (Scalar(range=(0, 2), outside=how) for how in ("clip", "missing"))
    remarks: list[str] = []
    with listening(remarks.append):
        assert clipped.read(b"7", "txt", "here") == 2 and missing.read(b"-999", "txt", "here") is None
        assert clipped.read(b"1", "txt", "here") == 1 == missing.read(b"1", "txt", "here")
    assert remarks[:2] == ["numbers outside of 0 to 2, clipped", "numbers outside of 0 to 2, missing"]
    with pytest.raises(BadSample, match="found 3; expected 0 to 2"):
        missing.check(3, "here")
    with pytest.raises(MaskweaveError, match="value.outside is 'clip', but there is no value.range; set one"):
        Scalar(outside="clip").check_settings("grid")


def test_numbers_outside_are_refused() -> None:
    value = Scalar(range=(0, 2), unit="m")
    assert value.check(2 + 1e-9, "here") == 2
    with pytest.raises(
        BadSample, match="here: found 2.1; expected 0 to 2 m; check the unit, widen the entry's value.range, or set its"
    ):
        value.check(2.1, "here")
    with pytest.raises(
        BadSample, match="found 0; expected a number above 0; the entry's value.scale is log; use asinh"
    ):
        Scalar(scale="log").check(0, "here")
    assert Scalar(scale="asinh").check(-3, "here") == -3


def test_python_forms() -> None:
    value = Scalar()
    for given in (1.5, np.float32(1.5), np.array([1.5]), torch.tensor([[1.5]]), "1.5"):
        assert value.check(value.from_python(given, "here"), "here") == 1.5
    with pytest.raises(BadSample, match="expected one number"):
        value.from_python(np.zeros(2), "here")
    assert (value.typed("-2e3"), value.typed("file.txt")) == (-2000.0, None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bins": 1}, "value.bins must be 2 to 65,536, found 1"),
        ({"smoothing": -1.0}, "value.smoothing must be 0 to value.bins 64, found -1.0"),
        ({"range": (3, 3)}, r"value.range must be \[lowest, highest\]"),
        ({"scale": "log", "range": (0, 3)}, "value.scale 'log' needs a range above 0, found the lowest value 0"),
        ({"scale": "asinh", "softening": 0.0}, "value.softening must be a number above 0, found 0.0"),
    ],
)
def test_contradicting_settings_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(MaskweaveError, match=said):
        Scalar(**settings).check_settings("grid")


@pytest.mark.parametrize("scale", ["linear", "log", "asinh"])
def test_scales_are_reversed(scale) -> None:
    x = SAMPLES if scale == "log" else np.concatenate([-SAMPLES, [0], SAMPLES])
    assert np.allclose(from_scale(to_scale(x, scale, 3.0), scale, 3.0), x)
    assert (np.diff(to_scale(np.sort(x), scale, 3.0)) >= 0).all()
    assert to_scale(1e6, "asinh", 2.0) == pytest.approx(6, abs=1e-9)


# Bins.


@pytest.mark.parametrize("scale", ["linear", "log", "asinh"])
def test_bins_hold_equal_shares(scale) -> None:
    edges, centers = fit_bins(SAMPLES, 50, scale)
    counts, _ = np.histogram(SAMPLES, edges)
    assert len(centers) == 50 and counts.sum() == len(SAMPLES) and set(counts) == {80}
    assert (edges[:-1] < centers).all() and (centers < edges[1:]).all()


def test_counts_get_a_bin_each() -> None:
    values = np.repeat([0, 1, 2, 7], [50, 5, 3, 2])
    edges, centers = fit_bins(values, 64, "linear")
    assert centers.tolist() == [0, 1, 2, 7] and edges.tolist() == [-0.5, 0.5, 1.5, 4.5, 9.5]
    edges, centers = fit_bins(np.full(5, 3.0), 8, "linear")
    assert centers.tolist() == [3] and edges[0] < 3 < edges[1]


def test_a_frequent_value_gets_its_own_bin() -> None:
    rare = np.linspace(1, 2, 400)
    for values in (np.concatenate([np.zeros(600), rare]), np.concatenate([rare, np.full(600, 3.0)])):
        edges, _ = fit_bins(values, 20, "linear")
        counts, _ = np.histogram(values, edges)
        assert sorted(counts)[-1] == 600 and len(counts) == 20 and sorted(counts)[-2] <= 22
    assert bin_starts(np.array([1, 1, 1, 1]), 2).tolist() == [0, 2]


def test_few_samples_get_few_bins() -> None:
    assert len(fit_bins(np.linspace(0, 1, 300), 64, "linear").centers) == 30
    assert len(fit_bins(np.linspace(0, 1, 16), 64, "linear").centers) == 8
    assert len(fit_bins(np.linspace(0, 1, 3), 64, "linear").centers) == 3


def test_tokens_return_the_median_of_their_bin() -> None:
    value = Scalar(bins=40, scale="log")
    facts = value.fit_rules(SAMPLES.tolist())
    rules = value.rules(json.loads(json.dumps(facts)))
    ids = rules.encode(SAMPLES)
    assert ids.shape == (4000, 1) and (np.bincount(ids[:, 0]) == 100).all()
    decoded = np.array(rules.decode(ids))
    assert np.array_equal(rules.encode(decoded), ids)
    for bin in (0, 7, 39):
        assert decoded[ids[:, 0] == bin][0] == pytest.approx(np.median(SAMPLES[ids[:, 0] == bin]), rel=0.03)
    assert rules.encode([1e-9, 1e9]).tolist() == [[0], [39]]
    near, far = (np.linalg.norm(np.diff(rules.embeddings()[[0, i]], axis=0)) for i in (1, 30))
    assert rules.embeddings().shape == (40, 32) and near < far


@pytest.mark.parametrize(
    "facts", [{}, {"bin_edges": [0, 1], "bin_centers": [1, 2]}, {"bin_edges": [1, 0], "bin_centers": [0.5]}]
)
def test_damaged_bins_are_refused(facts: dict) -> None:
    with pytest.raises(MaskweaveError, match=r"bin_edges|ascending edges"):
        Scalar().rules(facts)


def test_smoothing_covers_neighbors() -> None:
    assert Scalar(smoothing=0).target_smoothing is None
    weights = Scalar(smoothing=2.0).target_smoothing
    assert weights is not None and weights.dtype == np.float32 and len(weights) == 7
    assert weights[0] == 1 and (np.diff(weights) < 0).all() and weights[2] == pytest.approx(np.exp(-0.5))
    assert len(Scalar(bins=3, smoothing=2.0).target_smoothing) == 3  # type: ignore[arg-type]


# Distributions.


def normal(mean: float, std: float, bins: int = 400) -> NumberDistribution:
    edges = np.linspace(mean - 6 * std, mean + 6 * std, bins + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    p = np.exp(-0.5 * ((centers - mean) / std) ** 2)
    return NumberDistribution(edges, centers, p / p.sum())


def test_a_distribution_tells_what_a_normal_one_does() -> None:
    found = normal(3, 2)
    assert (found.mean, found.value, found.std, found.median) == pytest.approx((3, 3, 2, 3), abs=1e-3)
    assert found.interval(0.9) == pytest.approx((3 - 1.645 * 2, 3 + 1.645 * 2), abs=1e-2)
    shares = np.array([[0.1, 0.5], [0.9, 0.99]])
    assert found.quantile(shares).shape == (2, 2) and found.cumulative(found.quantile(shares)) == pytest.approx(shares)
    assert found.density([3, 100]) == pytest.approx([1 / (2 * np.sqrt(2 * np.pi)), 0], abs=1e-3)
    assert found.densities @ np.diff(found.edges) == pytest.approx(1)
    assert found.log_density(3) == pytest.approx(-np.log(2 * np.sqrt(2 * np.pi)), abs=1e-2)
    assert found.log_density(1e9) == found.log_density(3 + 12 - 1e-9), "as in the nearest bin"
    with pytest.raises(MaskweaveError, match="expected shares from 0 to 1, found 2 to 2"):
        found.quantile(2)
    assert json.loads(json.dumps(found.to_plain()))["interval_90"] == pytest.approx(found.interval())


def test_bins_without_probability_are_skipped() -> None:
    found = NumberDistribution(np.arange(6.0), np.arange(5) + 0.5, np.array([0, 0.5, 0, 0.5, 0]))
    assert found.quantile([0.25, 0.5, 0.75, 1]).tolist() == [1.5, 2, 3.5, 4]
    assert found.interval(1)[1] == 4 and found.log_density(2.5) == -np.inf


def test_the_answer_is_the_mean_on_the_scale() -> None:
    edges, centers, p = np.array([0.1, 5, 500]), np.array([1.0, 100.0]), np.array([0.5, 0.5])
    found = NumberDistribution(edges, centers, p, scale="log")
    assert (found.value, found.mean) == pytest.approx((10, 50.5))
    mixed = NumberDistribution.mixture([found, NumberDistribution(edges, centers, np.array([1.0, 0]), scale="log")])
    assert mixed.probabilities.tolist() == [0.75, 0.25] and mixed.value == pytest.approx(10**0.5)
    assert point(found) == found.value and point(4.0) == 4.0
    assert Scalar(scale="log").merge([1.0, 100.0], 0.5) == pytest.approx(10)


def test_rules_ignore_ids_without_a_bin() -> None:
    value = Scalar(bins=8)
    rules = value.rules({"bin_edges": [0, 1, 2], "bin_centers": [0.5, 1.5]})
    found = rules.distribution(np.array([[0.2, 0.2, *[0.1] * 6]]))
    assert found.probabilities.tolist() == [0.5, 0.5] and found.value == 1
    assert rules.decode(np.array([[7]])) == [1.5]


# Scores.


def test_scores_of_values() -> None:
    metrics = Scalar(scale="log").metrics()
    truth, found = [1.0, 10.0, 100.0], [10.0, 10.0, 100.0]
    score = {name: metrics[name].score(found, truth) for name in ("mae", "rmse", "scaled_mae", "r2", "nll", "coverage")}
    assert (
        score["mae"] == 3
        and score["rmse"] == pytest.approx(np.sqrt(27))
        and score["scaled_mae"] == pytest.approx(1 / 3)
    )
    assert score["r2"] == pytest.approx(1 - 1 / 2) and np.isnan([score["nll"], score["coverage"]]).all()
    assert metrics["mae"].best_constant(truth) == 10 and metrics["rmse"].best_constant(truth) == 37
    assert metrics["r2"].score([10.0] * 3, truth) == pytest.approx(0)
    assert np.isnan(metrics["r2"].score([1.0, 1.0], [1.0, 1.0]))


def test_scores_of_distributions() -> None:
    rng, metrics = np.random.default_rng(1), Scalar().metrics()
    means = rng.normal(size=400)
    truth = (means + 0.3 * rng.normal(size=400)).tolist()
    sharp, honest = ([normal(m, std) for m in means] for std in (0.1, 0.3))
    assert metrics["coverage"].score(honest, truth) == pytest.approx(0.9, abs=0.05)
    assert metrics["coverage"].score(sharp, truth) < 0.6 and metrics["coverage"].better == "0.9"
    assert metrics["nll"].score(honest, truth) < metrics["nll"].score(sharp, truth)
    assert metrics["mae"].score(honest, truth) == pytest.approx(np.mean(np.abs(means - truth)), abs=1e-3)
    constant = metrics["nll"].best_constant(truth)
    assert metrics["coverage"].score([constant] * 400, truth) == pytest.approx(0.9, abs=0.02)
    assert metrics["nll"].score(honest, truth) < metrics["nll"].score([constant] * 400, truth)


# Figures.


def test_a_number_and_its_density_are_drawn() -> None:
    value = Scalar(unit="m")
    number, density = value.draw(1.5, (96, 144)), value.draw(normal(3, 2), (96, 144))
    with_truth = value.draw(normal(3, 2), (96, 144), reference=5.0, span=(0, 8))
    for figure in (number, density, with_truth):
        assert figure.shape == (96, 144, 3) and figure.dtype == np.uint8 and figure.std() > 5
    assert not np.array_equal(density, with_truth)
    low, high = value.span([normal(3, 2), 40.0])  # type: ignore[misc]
    assert low < 0 and high == 40
    logarithmic = Scalar(scale="log")
    edges, centers = fit_bins(SAMPLES, 30, "log")
    assert logarithmic.draw(NumberDistribution(edges, centers, np.full(30, 1 / 30)), (96, 144)).std() > 5
