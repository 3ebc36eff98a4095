"""Projects the pooled features of two modalities to where those of the same sample are close: regularized canonical correlation analysis.

Pooled features of each modality form a cluster of their own, and what a picture and its caption share is a small part of both. From pairs of one sample, the
directions that are correlated (https://doi.org/10.1093/biomet/28.3-4.321) are computed in closed form, each scaled by the square of its correlation, so that
directions that tell little count little (https://arxiv.org/abs/1212.4522, where the exponent is larger). How much the covariances are shrunk is chosen on a fifth of the pairs, and
so is whether to project at all.

Dimension letters: N pairs, D width of the features, K directions.
"""

from typing import NamedTuple

import numpy as np

SAMPLES = 2048
"""Samples that an alignment is fitted to, at most."""
LEAST = 50
"""Pairs without which there is none."""
SHRINKAGE = (0.003, 0.03, 0.3)
"""Shares of the mean variance that are added to all variances."""
PRINCIPAL = 512
"""Principal directions of the features that are used, at most."""
DIRECTIONS = 256
"""Most directions; those with the largest correlations are kept."""
FOLD = 5
"""One pair in so many is held out, to choose."""
AT = 10
"""The recall that is told is that at so many results."""


class Projections(NamedTuple):
    """Of one kind of query and one view."""

    query: np.ndarray
    """(D, K), for centered features of the query's modality."""
    view: np.ndarray
    """(D, K), for those of the view's."""


class FittedPair(NamedTuple):
    projections: Projections | None
    """None if no projection is better on the pairs that were held out."""
    pairs: int
    before: float
    """Recall at `AT` among the held-out pairs, by the cosine of centered features."""
    after: float
    """The same after the projection."""


def fit_projections(query_ND: np.ndarray, view_ND: np.ndarray) -> FittedPair | None:
    """Returns the projections that bring row i of both together; None for fewer than `LEAST` rows."""
    query_ND, view_ND = query_ND.astype(np.float64), view_ND.astype(np.float64)
    count = len(query_ND)
    if count < LEAST:
        return None
    held = np.arange(count) % FOLD == 0
    plain = ranks_of(*(x[held] - x[~held].mean(axis=0) for x in (query_ND, view_ND)))
    bases = [_principal(x - x.mean(axis=0)) for x in (query_ND, view_ND)]
    query, view = ((x - x.mean(axis=0)) @ basis for x, basis in zip((query_ND, view_ND), bases, strict=True))
    found: list[tuple[float, float, np.ndarray]] = []
    for shrinkage in SHRINKAGE:
        centers = query[~held].mean(axis=0), view[~held].mean(axis=0)
        made = _correlated(query[~held] - centers[0], view[~held] - centers[1], shrinkage)
        ranks = ranks_of((query[held] - centers[0]) @ made.query, (view[held] - centers[1]) @ made.view)
        found.append((float((1 / ranks).mean()), shrinkage, ranks))
    best, shrinkage, ranks = max(found, key=lambda one: one[0])
    before = float((plain <= AT).mean())
    if best <= (1 / plain).mean():
        return FittedPair(None, count, before, before)
    whole = zip(bases, _correlated(query, view, shrinkage), strict=True)
    return FittedPair(
        Projections(*((b @ p).astype(np.float32) for b, p in whole)), count, before, float((ranks <= AT).mean())
    )


def _principal(x_ND: np.ndarray) -> np.ndarray:
    """(D, K) directions of the largest variance; all if there are at most `PRINCIPAL`."""
    count, width = x_ND.shape
    if width <= PRINCIPAL:
        return np.eye(width)
    if width <= count:
        return np.linalg.eigh(x_ND.T @ x_ND)[1][:, -PRINCIPAL:]
    squares, left = np.linalg.eigh(x_ND @ x_ND.T)
    kept = squares > squares.max() * 1e-9
    return (x_ND.T @ left[:, kept] / np.sqrt(squares[kept]))[:, -PRINCIPAL:]


def _correlated(query_ND: np.ndarray, view_ND: np.ndarray, shrinkage: float) -> Projections:
    whitening = [_whitening(x, shrinkage) for x in (query_ND, view_ND)]
    cross_DD = (query_ND @ whitening[0]).T @ (view_ND @ whitening[1]) / len(query_ND)
    left, correlations, right = np.linalg.svd(cross_DD, full_matrices=False)
    scales = np.square(correlations[:DIRECTIONS])
    return Projections(whitening[0] @ left[:, :DIRECTIONS] * scales, whitening[1] @ right[:DIRECTIONS].T * scales)


def _whitening(x_ND: np.ndarray, shrinkage: float) -> np.ndarray:
    """(D, D) map to uncorrelated directions of variance 1, or less where there is little variance."""
    variances, directions = np.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
    return directions / np.sqrt(np.maximum(variances, 0) + shrinkage * max(float(variances.mean()), 1e-12))


def ranks_of(query_ND: np.ndarray, view_ND: np.ndarray) -> np.ndarray:
    """Returns for each row the rank of the same row of the view by cosine, from 1; ties count against it."""
    scores = unit(query_ND) @ unit(view_ND).T
    return (scores >= np.diag(scores)[:, None]).sum(axis=1)


def unit(x_ND: np.ndarray) -> np.ndarray:
    """Returns the rows with length 1; zeros stay."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)
