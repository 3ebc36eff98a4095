"""Ridge regression on raw features: their blocks, against scikit-learn, with unknown numbers, strengths by cross-validation, nearest numbers."""

import weakref

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as TheirRidge

from maskweave.nn import ridge
from maskweave.nn.ridge import MOST_PATTERNS, Ridge
from maskweave.transfer.blocks import block_scales
from maskweave.transfer.probe import Labeled, nearest_numbers


def test_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 90)) * np.linspace(0.1, 5, 90) + 3
    y = x[:, :2] @ rng.normal(size=(2, 2)) + rng.normal(size=(60, 2))
    folds = np.arange(60) % 5
    found = Ridge.fit(torch.from_numpy(x), torch.from_numpy(y), folds, [0.5])
    standardized = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = TheirRidge(alpha=0.5 * 60).fit(standardized, y)
    assert np.allclose(found(torch.from_numpy(x)).numpy(), theirs.predict(standardized), atol=1e-5)
    partly = y.copy()
    partly[:10, 0] = np.nan
    some = Ridge.fit(torch.from_numpy(x), torch.from_numpy(partly), folds, [0.5])
    own = TheirRidge(alpha=0.5 * 50).fit(standardized[10:], y[10:, 0])
    assert np.allclose(some(torch.from_numpy(x)).numpy()[:, 0], own.predict(standardized), atol=1e-4)
    assert np.allclose(some(torch.from_numpy(x)).numpy()[:, 1], theirs.predict(standardized)[:, 1], atol=1e-5)


def test_numbers_that_are_known_in_many_different_samples() -> None:
    """Beyond some number of patterns, unknown numbers are filled with predictions: each number is fitted to the samples that know it."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 4)) + 1
    y = 2 + x @ rng.normal(size=(4, MOST_PATTERNS + 10)) + 0.1 * rng.normal(size=(120, MOST_PATTERNS + 10))
    unknown = rng.random(y.shape) < np.linspace(0, 0.6, y.shape[1])
    x_SF, y_SK = torch.from_numpy(x), torch.from_numpy(np.where(unknown, np.nan, y))
    found = Ridge.fit(x_SF, y_SK, np.arange(120) % 5, [0.05])(x_SF).numpy()
    standardized = (x - x.mean(axis=0)) / x.std(axis=0)
    for k in range(0, y.shape[1], 7):
        known = ~unknown[:, k]
        theirs = TheirRidge(alpha=0.05 * 120).fit(standardized[known], y[known, k]).predict(standardized)
        assert np.allclose(found[:, k], theirs, atol=0.02)
    weak = Ridge.fit(x_SF, y_SK, np.arange(120) % 5)
    assert np.allclose(weak(x_SF).numpy(), y, atol=0.5) and float(weak.error.max()) < 0.15


def test_too_much_work_makes_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.normal(size=(50, 8)))
    y = torch.from_numpy(rng.normal(size=(50, 6)))
    y[torch.from_numpy(rng.random((50, 6)) < 0.3)] = torch.nan
    y[:, 5] = torch.nan
    filled = torch.where(y.isnan(), y.nanmean(dim=0).nan_to_num(), y)
    folds, decomposed = np.arange(50) % 5, []
    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda *given, **more: decomposed.append(1) or svd(*given, **more))
    own = Ridge.fit(x, y, folds, [0.1])
    assert len(decomposed) == 6 * 5 and bool((own.weight[5] == 0).all()), "each fold and all, each known number"
    decomposed.clear()
    monkeypatch.setattr(ridge, "MOST_WORK", 3 * 40 * 8 * 8)
    together = Ridge.fit(x, y, folds, [0.1])
    assert len(decomposed) == 6
    known = ~y[:, 0].isnan().numpy()
    standardized = (x - x.mean(dim=0)).numpy() / x.std(dim=0, correction=0).numpy()
    theirs = TheirRidge(alpha=0.1 * 50).fit(standardized[known], y[:, 0].numpy()[known])
    assert np.allclose(together.weight[0], theirs.coef_, atol=0.02) and bool((together.weight[5] == 0).all())
    decomposed.clear()
    Ridge.fit(x, filled, folds, [0.1])
    assert len(decomposed) == 6, "one group is never too much"


def test_thousands_of_numbers_need_little_memory() -> None:
    """The weights of one strength are held at a time: 2,000 numbers of 200 features in float64 are 3 MB, those of all strengths 67 MB."""
    rng = np.random.default_rng(6)
    x, y = torch.from_numpy(rng.normal(size=(40, 200))), torch.from_numpy(rng.normal(size=(40, 2000)))
    solved = ridge._solve(x, y, ridge.STRENGTHS)
    weight, _ = next(solved)
    seen = weakref.ref(weight)
    del weight
    next(solved)
    assert seen() is None


def test_the_strength_is_cross_validated() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(80, 200)))
    noise = Ridge.fit(x, torch.from_numpy(rng.normal(size=(80, 1))), np.arange(80) % 5)
    signal = Ridge.fit(x, 5 * x[:, :1], np.arange(80) % 5)
    assert noise.strength > 100 * signal.strength
    assert float(noise.error[0]) == pytest.approx(1, abs=0.25), "no better than the mean, and not much worse"


def test_useless_features_do_no_harm() -> None:
    """The first features are noise: with a penalty of their own, the error is that of the others alone."""
    rng = np.random.default_rng(2)
    noise, good = rng.normal(size=(100, 150)), rng.normal(size=(100, 5))
    y = torch.from_numpy(good @ rng.normal(size=(5, 1)) + 0.3 * rng.normal(size=(100, 1)))
    x, folds = torch.from_numpy(np.concatenate([noise, good], axis=1)), np.arange(100) % 5
    alone = Ridge.fit(x[:, 150:], y, folds)
    together, blind = Ridge.fit(x, y, folds, scale=block_scales(x, y, folds, [150, 5])), Ridge.fit(x, y, folds)
    assert float(together.error[0]) <= 1.01 * float(alone.error[0]) < 0.8 * float(blind.error[0])
    assert together.weight.shape == (1, 155)


def test_no_block_is_dropped_by_chance() -> None:
    """With one sample per class nothing can be predicted, so all blocks stay; of two that are equal, the encoder's."""
    rng = np.random.default_rng(4)
    x, folds = torch.from_numpy(rng.normal(size=(60, 30))), np.arange(60) % 5
    assert bool((block_scales(x, torch.eye(60), folds, [20, 7, 3]) > 0).all())
    twice = torch.cat([x[:, :6]] * 2, dim=1)
    assert block_scales(twice, x[:, :1], folds, [6, 6])[::6].tolist() == pytest.approx([2**0.5, 0])


def test_nearest_numbers_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([[10.0, 1.0], [20.0, torch.nan], [90.0, 5.0]]).double()
    found = nearest_numbers(Labeled(features, labels), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), k=1)
    assert found[0].tolist() == pytest.approx([10, 1]) and found[1].tolist() == pytest.approx([20, 3])
