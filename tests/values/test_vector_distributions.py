"""Distributions of vectors: small units, constant numbers, mixtures of close members."""

import numpy as np
import pytest

from maskweave.values.distribution import VectorDistribution
from maskweave.values.vector import Vector

VALUE = Vector(channels=2)
TRUTH = np.random.default_rng(0).normal([3, -1], [1, 0.2], (200, 2))


@pytest.mark.parametrize("unit", [1.0, 1e-20, 1e20])
def test_the_unit_does_not_matter(unit: float) -> None:
    nll = VALUE.metrics()["nll"]
    truth = list(TRUTH * unit)
    constant = nll.best_constant(truth)
    assert constant.std == pytest.approx(TRUTH.std(axis=0) * unit, rel=1e-6)
    wanted = (np.log(TRUTH.std(axis=0) * unit) + 0.5 * np.log(2 * np.pi) + 0.5).mean()
    assert nll.score([constant] * 200, truth) == pytest.approx(wanted, rel=1e-6)
    (found,) = VALUE.gaussian_answers(TRUTH[:1] * unit, np.full((1, 2), 0.1 * unit))
    assert found.std == pytest.approx(0.1 * unit)


def test_constant_numbers_have_a_finite_density() -> None:
    nll = VALUE.metrics()["nll"]
    truth = [np.array([0.0, 5e-9])] * 4
    constant = nll.best_constant(truth)
    assert (constant.std > 0).all() and constant.std[1] < 1e-16
    assert np.isfinite(nll.score([constant] * 4, truth))
    (found,) = VALUE.gaussian_answers(np.array([[0.0, 5e-9]]), np.zeros((1, 2)))
    assert np.isfinite(found.log_densities(np.array([0.0, 5e-9]))).all()


def test_mixtures_of_close_members_keep_their_spread() -> None:
    members = [VectorDistribution(np.array([m, 3.0]), np.array([1e-4, 1e-9])) for m in (1e6, 1e6 + 2e-4)]
    mixed = VectorDistribution.mixture(members)
    assert mixed.std == pytest.approx([np.sqrt(1e-8 + 1e-8), 1e-9], rel=1e-3)
