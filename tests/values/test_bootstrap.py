"""Intervals by bootstrap, against the textbook's interval of a mean, and in parts."""

import math

import numpy as np
import pytest

from maskweave.values.bootstrap import UNKNOWN, bootstrap, interval, metric_intervals, replicated, sample_counts
from maskweave.values.metrics import Metric, absolute_errors, mean, median
from maskweave.values.scalar import Scalar

MAE = Metric("MAE", "lower", absolute_errors, mean, median)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    errors = np.random.default_rng(0).gamma(2.0, 1.0, 500)
    statistics = [*MAE.each(errors, np.zeros(500))]
    low, high = metric_intervals(MAE, replicated(statistics, range(500), 0))["MAE"]
    half = 1.96 * errors.std() / math.sqrt(500)
    assert low == pytest.approx(errors.mean() - half, abs=0.3 * half)
    assert high == pytest.approx(errors.mean() + half, abs=0.3 * half)
    other = bootstrap(lambda indices: float(errors[indices].mean()), 500)
    assert other == pytest.approx((low, high), abs=1e-9)


def test_parts_add_up_to_the_whole() -> None:
    errors = np.random.default_rng(1).random(30)
    statistics = [*MAE.each(errors, np.zeros(30))]
    whole = replicated(statistics, range(30), 5)
    first, second = (replicated(statistics[a:b], range(a, b), 5) for a, b in ((0, 12), (12, 30)))
    assert whole is not None and first is not None and second is not None
    assert first + second == pytest.approx(whole)
    assert not np.array_equal(whole, replicated(statistics, range(30), 6))


def test_counts_have_a_mean_and_a_variance_of_one() -> None:
    counts = sample_counts(range(300), 2)
    assert counts.mean() == pytest.approx(1, abs=0.02) and counts.var() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(counts[:, 0], counts[:, 1])[0, 1]) < 0.25


def test_what_has_no_interval() -> None:
    assert replicated([], [], 0) is None and metric_intervals(MAE, None) == {}
    assert replicated([np.zeros(50_000)], [0], 0) is None, "too large"
    assert all(math.isnan(x) for x in (*interval([]), *UNKNOWN))
    assert interval([math.nan, 2.0, math.inf]) == (2.0, math.inf)


def test_replicates_without_any_sample_count_for_nothing() -> None:
    r2 = Scalar(range=(0, 1)).metrics()["r2"]
    sums = np.array([[0.0, 0, 0, 0], [0.5, 6.0, 14.0, 3.0], [1.0, 6.0, 14.0, 3.0]])
    ((low, high),) = metric_intervals(r2, sums).values()
    assert 0.5 <= low <= high <= 0.75  # squared deviations from the mean: 14 - 6² / 3 = 2
    assert metric_intervals(r2, sums[:1]) == {}
