"""Out-of-distribution detection from features.

Each score is high for samples similar to the training data and low for outliers: the maximum softmax of a linear probe (https://arxiv.org/abs/1610.02136),
minus the smallest Mahalanobis distance to a class (https://arxiv.org/abs/1807.03888), minus the distance to the k-th nearest sample
(https://arxiv.org/abs/2204.06507).

Dimension letters: S training samples, T samples to score, D width, K classes.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.transfer.probe import CHUNK, NEIGHBORS, Labeled, LinearProbe
from maskweave.values.bootstrap import Interval, bootstrap

SHRINKAGE = 1e-3
"""Shrinkage of the covariance towards a multiple of the identity, so that it is invertible."""


def maximum_softmax(probe: LinearProbe, features_TD: Tensor) -> Tensor:
    """Returns (T,): the highest probability of the probe."""
    return probe(features_TD).softmax(dim=1).amax(dim=1)


def mahalanobis(train: Labeled, features_TD: Tensor) -> Tensor:
    """Returns (T,): minus the squared Mahalanobis distance to the nearest class mean, with a covariance shared by the classes."""
    x_SD, y_TD = train.features.double(), features_TD.double()
    classes = train.labels.unique()
    means_KD = torch.stack([x_SD[train.labels == k].mean(dim=0) for k in classes])
    centered_SD = x_SD - means_KD[torch.searchsorted(classes, train.labels)]
    covariance = centered_SD.T @ centered_SD / len(x_SD)
    covariance += SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance)
    # After whitening, the Mahalanobis distance is Euclidean.
    y_TD, means_KD = (torch.linalg.solve_triangular(factor, t.T, upper=False).T for t in (y_TD, means_KD))
    return -torch.cdist(y_TD, means_KD).amin(dim=1).square().float()


def nearest(train: Labeled, features_TD: Tensor, k: int = NEIGHBORS) -> Tensor:
    """Returns (T,): minus the distance to the k-th nearest training sample, with features normalized to length 1."""
    known_SD = F.normalize(train.features, dim=1)
    parts = F.normalize(features_TD, dim=1).split(CHUNK)
    k = min(k, len(known_SD))
    return torch.cat([-torch.cdist(some, known_SD).topk(k, dim=1, largest=False).values[:, -1] for some in parts])


def outlier_scores(train: Labeled, num_classes: int, features_TD: Tensor) -> dict[str, Tensor]:
    """Returns the three scores (T,) by name."""
    return {
        "maximum softmax": maximum_softmax(LinearProbe.tuned(train, num_classes), features_TD),
        "Mahalanobis": mahalanobis(train, features_TD),
        f"{NEIGHBORS} nearest": nearest(train, features_TD),
    }


def area_under_curve(inside_T: Tensor, outside_T: Tensor) -> float:
    """Returns the AUROC: the probability that an inlier scores higher than an outlier, a tie counting half; 0.5 is chance."""
    return _area(*_ranks(inside_T, outside_T))


def area_interval(inside_T: Tensor, outside_T: Tensor, seed: int = 0) -> Interval:
    """Returns the 95% interval of the AUROC, by bootstrap over inliers and outliers."""
    inside, outside = _ranks(inside_T, outside_T)
    ranks, middle = np.concatenate([inside, outside]), len(inside)
    return bootstrap(lambda i: _area(ranks[i[i < middle]], ranks[i[i >= middle]]), len(ranks), seed)


def _ranks(inside_T: Tensor, outside_T: Tensor) -> list[np.ndarray]:
    """Returns the scores as whole numbers, from 0, in their order."""
    _, ranks = torch.cat([inside_T, outside_T]).unique(return_inverse=True)
    return np.split(ranks.numpy(), [len(inside_T)])


def _area(inside: np.ndarray, outside: np.ndarray) -> float:
    if not (len(inside) and len(outside)):
        return math.nan
    levels = int(max(inside.max(), outside.max())) + 1
    inliers, outliers = (np.bincount(ranks, minlength=levels).astype(np.float64) for ranks in (inside, outside))
    below = np.cumsum(outliers) - outliers / 2
    return float((inliers * below).sum() / (len(inside) * len(outside)))
