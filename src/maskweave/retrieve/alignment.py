"""Projects the pooled features of two modalities to where those of the same sample are close: regularized canonical correlation analysis.

Pooled features of each modality form a cluster of their own, and what a picture and its caption share is a small part of both. From pairs of one sample, the
directions that are correlated (https://doi.org/10.1093/biomet/28.3-4.321) are computed in closed form. Both sides are scaled by the square of the correlation, so
that directions that tell little count little (https://arxiv.org/abs/1212.4522, where the exponent is larger). How much the covariances are shrunk is chosen on a
fifth of the pairs, and so is whether to project at all.

Dimension letters: N pairs, D width of the features, P principal directions, K directions.
"""

from typing import NamedTuple

import numpy as np

SAMPLES = 2048
"""Samples that an alignment is fitted to, at most."""
LEAST = 100
"""PairSource without which there is none."""
SHRINKAGE = (0.003, 0.03, 0.3)
"""Shares of the mean variance that are added to all variances."""
PRINCIPAL = 512
"""Principal directions of the features that are used, at most."""
DIRECTIONS = 256
"""Most directions; those with the largest correlations are kept."""
FOLD = 5
"""One pair in so many is held out, to choose."""
AT = 10
"""Results among which a sample is to be found, for the recall that is told."""


class Projections(NamedTuple):
    """Of one kind of query and one view."""

    query: np.ndarray
    """(D, K), for centered features of the query's modality."""
    view: np.ndarray
    """(D, K), for those of the view's."""


class FittedPair(NamedTuple):
    """How well a modality finds a view before and after both are projected."""

    projections: Projections | None
    """None if they are not clearly better on the pairs that were held out, than without them and than chance: by two standard errors of the mean reciprocal rank."""
    pairs: int
    held: int
    """PairSource that were held out."""
    before: float
    """Recall at `AT` among them, by the cosine of centered features."""
    after: float
    """The same after the projection."""


def fit_projections(
    query_ND: np.ndarray,
    view_ND: np.ndarray,
    query_basis_DP: np.ndarray | None = None,
    view_basis_DP: np.ndarray | None = None,
) -> FittedPair | None:
    """Returns the projections that bring row i of both together; None for fewer than `LEAST` rows without infinite numbers or NaN.

    Args:
        query_basis_DP: of `principal`, computed here by default.
    """
    finite = np.isfinite(query_ND).all(axis=-1) & np.isfinite(view_ND).all(axis=-1) if len(query_ND) else []
    count = int(np.sum(finite))
    if count < LEAST:
        return None
    whole = [x[finite].astype(np.float64) for x in (query_ND, view_ND)]
    held = np.arange(count) % FOLD == 0
    plain = ranks_of(*(x[held] - x[~held].mean(axis=0) for x in whole))
    bases = [principal(x) if b is None else b for x, b in zip(whole, (query_basis_DP, view_basis_DP), strict=True)]
    reduced = [x @ basis for x, basis in zip(whole, bases, strict=True)]
    query, view = (x - x[~held].mean(axis=0) for x in reduced)
    found: list[tuple[float, float, np.ndarray]] = []
    for shrinkage in SHRINKAGE:
        made = _correlated(query[~held], view[~held], shrinkage)
        ranks = ranks_of(query[held] @ made.query, view[held] @ made.view)
        found.append((float((1 / ranks).mean()), shrinkage, ranks))
    _, shrinkage, ranks = max(found, key=lambda one: one[0])
    before, after = (float((r <= AT).mean()) for r in (plain, ranks))
    chance = (1 / np.arange(1, len(ranks) + 1)).mean()
    if not all(_is_clear(1 / ranks - other) for other in (1 / plain, chance)):
        return FittedPair(None, count, len(plain), before, before)
    query, view = (x - x.mean(axis=0) for x in reduced)
    final = _correlated(query, view, shrinkage)
    projections = Projections(*((b @ p).astype(np.float32) for b, p in zip(bases, final, strict=True)))
    return FittedPair(projections, count, len(plain), before, after)


def _is_clear(gains_N: np.ndarray) -> bool:
    """Returns whether the mean is above 0 by two standard errors."""
    return bool(gains_N.mean() > 2 * gains_N.std() / np.sqrt(len(gains_N)))


def principal(x_ND: np.ndarray) -> np.ndarray:
    """Returns (D, P), the directions of the largest variance; all if there are at most `PRINCIPAL`."""
    count, width = x_ND.shape
    if width <= PRINCIPAL:
        return np.eye(width)
    x_ND = x_ND - x_ND.mean(axis=0)
    if width <= count:
        return np.linalg.eigh(x_ND.T @ x_ND)[1][:, -PRINCIPAL:]
    squares, left = np.linalg.eigh(x_ND @ x_ND.T)
    kept = squares > squares.max() * 1e-9
    return (x_ND.T @ left[:, kept] / np.sqrt(squares[kept]))[:, -PRINCIPAL:]


def _correlated(query_NP: np.ndarray, view_NP: np.ndarray, shrinkage: float) -> Projections:
    whitening = [_whitening(x, shrinkage) for x in (query_NP, view_NP)]
    cross_PP = (query_NP @ whitening[0]).T @ (view_NP @ whitening[1]) / len(query_NP)
    # Singular vectors by the eigenvectors of the square: an SVD of such matrices does not always converge.
    squares, right = np.linalg.eigh(cross_PP.T @ cross_PP)
    squares, right = np.maximum(squares[::-1][:DIRECTIONS], 0), right[:, ::-1][:, :DIRECTIONS]
    # With correlations s: the left vectors are C r / s, so scaled by s² they are C r s.
    return Projections(whitening[0] @ (cross_PP @ right) * np.sqrt(squares), whitening[1] @ right * squares)


def _whitening(x_NP: np.ndarray, shrinkage: float) -> np.ndarray:
    """(P, P) map to uncorrelated directions of variance 1, or less where there is little variance."""
    variances, directions = np.linalg.eigh(x_NP.T @ x_NP / len(x_NP))
    return directions / np.sqrt(np.maximum(variances, 0) + shrinkage * max(float(variances.mean()), 1e-12))


def ranks_of(query_NK: np.ndarray, view_NK: np.ndarray) -> np.ndarray:
    """Returns for each row the rank of the same row of the view by cosine, from 1; ties count against it."""
    scores = unit(query_NK) @ unit(view_NK).T
    return (scores >= np.diag(scores)[:, None]).sum(axis=1)


def unit(x_NK: np.ndarray) -> np.ndarray:
    """Returns the rows with length 1; zeros stay."""
    return x_NK / np.maximum(np.linalg.norm(x_NK, axis=1, keepdims=True), 1e-12)
