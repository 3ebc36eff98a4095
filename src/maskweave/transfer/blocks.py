"""How much each block of features counts in a linear model, chosen in cross-validation: an encoder may know less than simple features of the inputs, or more.

The blocks are compared by kernel ridge regression, whose cost does not depend on the number of features.

Dimension letters: S samples, T samples to predict, F features, K numbers, G blocks.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from maskweave.nn.ridge import Filled, feature_scale, known_together, known_variance, some_numbers, usable_folds

SHARES = (0.0, 0.3, 1.0)
"""Scales of a block relative to the others that are tried."""
STRENGTHS = tuple(10.0**e for e in range(1, -7, -1))
"""Strengths of the ridge that are tried, relative to the mean square of a sample's features."""
MOST_SAMPLES = 400
FEW_PATTERNS = 8
"""Most groups of numbers, each known in other samples, that are fitted on their own; filling unknown numbers costs about as much as so many groups."""
BETTER = 0.98
"""A block is taken in only if it lowers the squared error below this share."""


def block_scales(x_SF: Tensor, y_SK: Tensor, folds: np.ndarray, blocks: Sequence[int]) -> Tensor:
    """Returns (F,) factors of standardized features, equal within a block; 0 for blocks that do not help. The sum of their squares is F.

    If nothing predicts clearly better than the mean, as with hardly more samples than classes, no block is left out.

    Args:
        y_SK: numbers to predict, NaN where unknown; for classes 1 at the class of the sample and 0 elsewhere.
        folds: (S,) fold of each sample; with fewer than two folds in use, every sample gets its own fold by turns.
        blocks: features of each block, the encoder's first; their sum is F.
    """
    if len(blocks) < 2:
        return torch.ones(x_SF.shape[1])
    some = np.linspace(0, len(x_SF) - 1, min(len(x_SF), MOST_SAMPLES)).round().astype(int)
    mean, std = feature_scale(x_SF[some])
    x = ((x_SF[some].double() - mean) / std).cpu()
    y = y_SK[some].double().cpu()
    folds = usable_folds(folds[some])
    used = torch.nonzero(~y.isnan().all(dim=0))[:, 0]
    used = used[some_numbers(len(used))]
    y = y[:, used] / known_variance(y[:, used]).sqrt()
    kernels = [part @ part.T / part.shape[1] for part in x.split(list(blocks), dim=1)]
    tried = [shares for shares in product(SHARES, repeat=len(blocks)) if max(shares) == 1]
    # The fewest and smallest blocks first, so that others must be clearly better, and the encoder's before any other.
    encoder = tuple(float(i == 0) for i in range(len(blocks)))
    tried.sort(key=lambda shares: (sum(s > 0 for s in shares), sum(shares), shares != encoder))
    best, least = tried[0], float("inf")
    for shares in tried:
        kernel = sum((share**2 * k for share, k in zip(shares, kernels, strict=True) if share), torch.zeros(()))
        if (error := _error(kernel, y, folds)) < BETTER * least or (error < least and _within(shares, best)):
            best, least = shares, error
    if least >= BETTER * _error(torch.zeros_like(kernels[0]), y, folds):  # that of the mean
        best = (1.0,) * len(blocks)
    scale_F = torch.cat([torch.full((n,), share / n**0.5) for n, share in zip(blocks, best, strict=True)])
    return scale_F * (len(scale_F) / scale_F.square().sum()).sqrt()


def _within(shares: Sequence[float], others: Sequence[float]) -> bool:
    """Whether no block is in use that the others lack."""
    return all(other > 0 or share == 0 for share, other in zip(shares, others, strict=True))


def _error(kernel_SS: Tensor, y_SK: Tensor, folds: np.ndarray) -> float:
    """Returns the least mean squared error in cross-validation over the strengths. Unknown numbers are skipped; in training they are filled, as in `Ridge`."""
    errors = torch.zeros(len(STRENGTHS), dtype=torch.float64)
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        kept = torch.nonzero(~out)[:, 0]
        for columns, rows, known in known_together(y_SK[kept], len(kept), FEW_PATTERNS):
            some = kept[rows]
            for i, found in enumerate(_predicted(kernel_SS[some][:, some], kernel_SS[out][:, some], known)):
                errors[i] += (found - y_SK[out][:, columns]).square().nansum()
    return float(errors.min())


def _predicted(among_SS: Tensor, across_TS: Tensor, y_SK: Tensor) -> Iterator[Tensor]:
    """Yields what kernel ridge regression with each strength predicts (T, K); 0 without samples.

    Args:
        among_SS, across_TS: the kernel among the samples, and of those to predict with them.
        y_SK: NaN where unknown; filled, as in `Ridge`.
    """
    if not len(y_SK):
        yield from [across_TS.new_zeros(len(across_TS), y_SK.shape[1])] * len(STRENGTHS)
        return
    filled = Filled(y_SK)
    mean_S = among_SS.mean(dim=0)
    centered = among_SS - mean_S - mean_S[:, None] + mean_S.mean()
    across_TS = across_TS - across_TS.mean(dim=1, keepdim=True) - mean_S + mean_S.mean()
    values_S, vectors = torch.linalg.eigh(centered)
    values_S = values_S.clamp_min(0)
    rotated = across_TS @ vectors
    typical = values_S.mean().clamp_min(1e-12)
    for strength in STRENGTHS:
        damped_S = values_S + strength * len(values_S) * typical
        filled.fit(vectors, values_S / damped_S)
        center_K = filled.numbers.mean(dim=0)
        projected = vectors.T @ (filled.numbers - center_K)
        yield rotated @ (projected / damped_S[:, None]) + center_K
