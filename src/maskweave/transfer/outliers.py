"""Out-of-distribution detection from features.

Each score is high for samples similar to the training data and low for outliers: the maximum softmax of a linear probe (https://arxiv.org/abs/1610.02136),
minus the smallest Mahalanobis distance to a class (https://arxiv.org/abs/1807.03888), minus the distance to the k-th nearest sample
(https://arxiv.org/abs/2204.06507).

Dimension letters: S training samples, T samples to score, D width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.transfer.probe import CHUNK, NEIGHBORS, Labeled, LinearProbe

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
    """Returns the AUROC: the probability that an inlier scores higher than an outlier; 0.5 is chance.

    Raises:
        MaskweaveError: torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.classification import binary_auroc
    except ImportError as error:
        raise MaskweaveError("AUROC needs torchmetrics; install it with: pip install 'maskweave[eval]'") from error

    scores = torch.cat([inside_T, outside_T])
    # Use ranks: torchmetrics applies a sigmoid to scores outside 0 to 1, which could merge some of them.
    _, ranks = scores.unique(return_inverse=True)
    truth = torch.cat([torch.ones(len(inside_T)), torch.zeros(len(outside_T))]).long()
    return float(binary_auroc(ranks.double() / max(1, int(ranks.max())), truth))
