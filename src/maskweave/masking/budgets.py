"""How a sample's budget of tokens is split over its modalities.

`dirichlet_budgets` is 4M's (https://arxiv.org/abs/2312.06647, appendix). `first_budgets` and `target_numbers` are those of AION-1
(https://arxiv.org/abs/2510.17960, section 4), which leave little of the budget empty where modalities have very different lengths.

Dimension letters: B samples, M modalities, T tokens of all modalities of a sample.
"""

import numpy as np

from maskweave.masking.random import SampleRandom


def log_gamma(alpha_BM: np.ndarray, rng: SampleRandom) -> np.ndarray:
    """(B, M) logarithms of gamma variates, -inf where `alpha` is 0. Their normalized exponentials are a Dirichlet sample.

    Computed as G(α) = G(α + 1) · U^(1/α), so that small concentrations do not underflow.
    """
    with np.errstate(divide="ignore"):
        gamma_BM = rng.stream(0).standard_gamma(alpha_BM + 1.0)
        return np.log(gamma_BM) - rng.stream(1).standard_exponential(alpha_BM.shape[1]) / alpha_BM


def dirichlet_budgets(alpha_BM: np.ndarray, capacity_BM: np.ndarray, total: int, rng: SampleRandom) -> np.ndarray:
    """(B, M) tokens per modality: Dirichlet proportions of `total`, rounded down.

    The remaining tokens are assigned one by one. Then all are clipped to the capacity.
    """
    B, M = alpha_BM.shape
    alpha_BM = np.where(capacity_BM > 0, alpha_BM, 0.0)
    possible_B = np.asarray(alpha_BM.any(axis=1))
    draw_BM = np.where(possible_B[:, None], log_gamma(alpha_BM, rng.stream(0)), 0.0)
    share_BM = np.exp(draw_BM - draw_BM.max(axis=1, keepdims=True))
    budget_BM = np.floor(share_BM / share_BM.sum(axis=1, keepdims=True) * total).astype(np.int64) * possible_B[:, None]
    rest_B = (total - budget_BM.sum(axis=1)) * possible_B
    if rest_B.any():
        b = np.repeat(np.arange(B), rest_B)  # a new sample for each remaining token
        number = np.arange(len(b)) - np.repeat(np.cumsum(rest_B) - rest_B, rest_B)
        winner = log_gamma(alpha_BM[b], rng[b].stream(1 + number)).argmax(axis=1)
        budget_BM += np.bincount(b * M + winner, minlength=B * M).reshape(B, M)
    return np.minimum(budget_BM, capacity_BM)


def first_budgets(capacity_BM: np.ndarray, total: int, rng: SampleRandom) -> np.ndarray:
    """(B, M) tokens per modality: a random modality gets any number of tokens from 1 on, and tokens of all others fill the rest of `total`.

    Args:
        capacity_BM: number of tokens of each modality; 0 if it may not take part.
    """
    B, M = capacity_BM.shape
    first_B = np.where(capacity_BM > 0, rng.stream(0).random(M), -1.0).argmax(axis=1)
    most_B = np.minimum(capacity_BM[np.arange(B), first_B], total)
    of_first_B = np.ceil((1 - rng.stream(1).random(1)[:, 0]) * most_B).astype(np.int64)
    others_BM = np.where(np.arange(M) == first_B[:, None], 0, capacity_BM)
    budget_BM = fill(others_BM, total - of_first_B, rng.stream(2))
    budget_BM[np.arange(B), first_B] = of_first_B
    return budget_BM


def fill(capacity_BM: np.ndarray, total_B: np.ndarray, rng: SampleRandom) -> np.ndarray:
    """(B, M) tokens per modality if `total_B` tokens of a sample, or all that it has, are chosen at random among those of all modalities."""
    ends_BM = capacity_BM.cumsum(axis=1)
    T = int(ends_BM[:, -1].max(initial=0))
    if not T:
        return np.zeros_like(capacity_BM)
    keys_BT = rng.random(T)
    keys_BT[np.arange(T) >= ends_BM[:, -1:]] = 2.0  # padding is never chosen
    taken_B = np.minimum(total_B, ends_BM[:, -1])
    limit_B = np.concatenate([np.full((len(keys_BT), 1), -1.0), np.sort(keys_BT, axis=1)], axis=1)
    chosen_BT = keys_BT <= limit_B[np.arange(len(keys_BT)), taken_B][:, None]
    before_BT = np.concatenate([np.zeros((len(keys_BT), 1), np.int64), chosen_BT.cumsum(axis=1)], axis=1)
    return np.diff(np.take_along_axis(before_BT, ends_BM, axis=1), axis=1, prepend=0)


def target_numbers(beta: tuple[float, float], total: int, rng: SampleRandom) -> np.ndarray:
    """(B,) numbers of targets, 1 to `total`: a share of it from a Beta distribution, rounded up."""
    first_B, second_B = log_gamma(np.tile(np.array(beta, float), (len(rng), 1)), rng).T
    share_B = 1 / (1 + np.exp(np.clip(second_B - first_B, -700, 700)))
    return np.clip(np.ceil(share_B * total), 1, total).astype(np.int64)
