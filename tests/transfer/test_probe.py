"""Probes and outlier scores, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from maskweave.transfer import probe
from maskweave.transfer.outliers import (
    area_interval,
    area_under_curve,
    mahalanobis,
    maximum_softmax,
    nearest,
    outlier_scores,
)
from maskweave.transfer.probe import Labeled, LinearProbe, nearest_neighbors, share_right
from maskweave.values.bootstrap import interval, sample_counts

K, D = 4, 12


def data(seed: int, samples: int, spread: float = 1.5) -> Labeled:
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(99).normal(0, 1, (K, D))
    labels = rng.integers(0, K, samples)
    features = middles[labels] + rng.normal(0, spread, (samples, D)) * np.linspace(0.2, 3, D)
    return Labeled(torch.from_numpy(features).float(), torch.from_numpy(labels))


TRAIN, TEST = data(0, 300), data(1, 120)


def test_neighbors_are_scikit_learns() -> None:
    votes = nearest_neighbors(TRAIN, TEST.features, K)
    theirs = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(TRAIN.features.numpy(), TRAIN.labels.numpy())
    assert np.allclose(votes.numpy(), theirs.predict_proba(TEST.features.numpy()), atol=1e-4)
    assert torch.allclose(votes.sum(dim=1), torch.ones(len(votes)))


def test_few_neighbors_and_many_queries() -> None:
    few = Labeled(TRAIN.features[:5], torch.tensor([0, 1, 1, 2, 1]))
    assert nearest_neighbors(few, TEST.features.repeat(20, 1), K).shape == (2400, K)
    assert nearest_neighbors(few, few.features, K, k=1).argmax(dim=1).tolist() == few.labels.tolist()


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_the_linear_probe_is_scikit_learns(decay: float) -> None:
    fitted = LinearProbe.fit(TRAIN, K, decay)
    scaler = StandardScaler().fit(TRAIN.features.numpy())
    scaler.scale_ = TRAIN.features.std(dim=0).numpy()  # theirs divides by n, torch's by n - 1
    theirs = LogisticRegression(C=1 / (decay * len(TRAIN.labels)), tol=1e-8, max_iter=5000)
    train, test = (scaler.transform(part.features.numpy()).astype(np.float64) for part in (TRAIN, TEST))
    expected = theirs.fit(train, TRAIN.labels.numpy()).predict_proba(
        test
    )  # in float32 it stops too early on some machines
    assert np.allclose(fitted(TEST.features).softmax(dim=1).numpy(), expected, atol=2e-4)


def test_the_weight_decay_is_chosen_where_it_matters() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 80)
    wide = rng.normal(0, 1, (80, 200))  # more numbers than samples: without decay it learns them by heart
    wide[:, 0] += 5 * labels
    train = Labeled(torch.from_numpy(wide).float(), torch.from_numpy(labels))
    assert LinearProbe.tuned(train, 2).weight_decay > 1e-4
    easy = Labeled(train.features[:, :1] * 3, train.labels)
    assert share_right(LinearProbe.tuned(easy, 2)(easy.features), easy.labels) > 0.9


def test_much_work_is_not_cross_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, fit = [], LinearProbe.fit
    monkeypatch.setattr(LinearProbe, "fit", lambda *given, **more: fitted.append(1) or fit(*given, **more))
    train = TRAIN._replace(folds=np.arange(300) % 5)
    LinearProbe.tuned(train, K, [1.0, 0.1])
    assert len(fitted) == 5 * 2 + 1
    fitted.clear()
    monkeypatch.setattr(probe, "MOST_WORK", 300 * D * K - 1)
    LinearProbe.tuned(train, K, [1.0, 0.1])
    assert len(fitted) == 2 + 1, "one fifth is held out"


def test_auroc_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(-50, 20, 200).round(), rng.normal(-70, 30, 150).round()  # with ties, far from 0 to 1
    expected = roc_auc_score([1] * 200 + [0] * 150, np.concatenate([inside, outside]))
    found = area_under_curve(torch.from_numpy(inside), torch.from_numpy(outside))
    assert found == pytest.approx(expected, abs=1e-5)
    same = torch.ones(5)
    assert area_under_curve(same, same) == 0.5
    low, high = area_interval(torch.from_numpy(inside), torch.from_numpy(outside), 3)
    together = np.concatenate([inside, outside])
    scores = [
        roc_auc_score(np.repeat(np.arange(350) < 200, counts), np.repeat(together, counts))
        for counts in sample_counts(range(350), 3)
    ]
    assert (low, high) == pytest.approx(interval(scores)) and low < found < high


def test_mahalanobis_by_hand() -> None:
    x, y = TRAIN.features.double().numpy(), TEST.features.double().numpy()
    labels = TRAIN.labels.numpy()
    means = np.stack([x[labels == k].mean(axis=0) for k in range(K)])
    covariance = np.cov((x - means[labels]).T, bias=True)
    covariance += 1e-3 * np.diag(covariance).mean() * np.eye(D)
    offset = y[:, None] - means[None]
    expected = -np.einsum("tkd,de,tke->tk", offset, np.linalg.inv(covariance), offset).min(axis=1)
    assert np.allclose(mahalanobis(TRAIN, TEST.features).numpy(), expected, rtol=1e-3)
    gap = Labeled(TRAIN.features, TRAIN.labels * 2)  # classes that nobody has do no harm
    assert np.allclose(mahalanobis(gap, TEST.features).numpy(), expected, rtol=1e-3)


def test_outliers_score_lower() -> None:
    far = TEST.features + 12 * torch.eye(D)[0]
    scores = outlier_scores(TRAIN, K, torch.cat([TEST.features, far]))
    assert set(scores) == {"maximum softmax", "Mahalanobis", "20 nearest"}
    for name in ("Mahalanobis", "20 nearest"):
        inside, outside = scores[name].split(len(far))
        assert area_under_curve(inside, outside) > 0.9, name
    probability = maximum_softmax(LinearProbe.fit(TRAIN, K, 1e-2), TEST.features)
    assert probability.min() >= 1 / K and probability.max() <= 1
    unit = torch.nn.functional.normalize(TRAIN.features, dim=1)
    expected = -torch.cdist(unit[:1], unit).sort().values[0, 19]
    assert nearest(TRAIN, TRAIN.features[:1])[0].item() == pytest.approx(expected.item(), abs=1e-4)
