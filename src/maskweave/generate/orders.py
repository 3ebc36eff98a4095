"""Orders: which positions of a grid come first. Pure functions of the grid, or of what the model predicts at each position.

- Halton (https://arxiv.org/abs/2503.17076, section 4): positions spread evenly over the grid, the same for every sample.
- Entropy: the least uncertain first, as in https://arxiv.org/abs/2505.24857.
- Margin: the largest difference between the two largest probabilities first (https://arxiv.org/abs/2502.06768, section 4).
- Moment: as MaskGIT, but the positions are chosen before the tokens are sampled (https://arxiv.org/abs/2510.04525).

Dimension letters: n positions, V vocabulary.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

BASES = (2, 3, 5)
"""Bases of the Halton sequence, by axis of the grid."""


@functools.cache
def halton_rank(grid: tuple[int, ...]) -> np.ndarray:
    """Returns (L,) the rank of each position of a grid of one to three axes, in the order in which the Halton sequence first reaches it.

    The first axis has base 2. Whether the paper's first base belongs to rows or to columns, and whether it starts at the first or a random element, has not been
    checked; a model trained with random masks does not depend on either.
    """
    rank = np.full(grid, -1)
    found = number = 0
    while found < rank.size:
        number += 1
        place = tuple(radical_inverse(number, base, size) for base, size in zip(BASES, grid, strict=False))
        if rank[place] < 0:
            rank[place] = found
            found += 1
    rank = rank.flatten()
    rank.flags.writeable = False
    return rank


def radical_inverse(number: int, base: int, cells: int) -> int:
    """Returns the cell, of `cells` that divide 0 to 1, with the digits of a number mirrored at the point: 6 = 110 in base 2 gives 0.011 = 0.375."""
    inverse, scale = 0, 1
    while number:
        number, digit = divmod(number, base)
        inverse, scale = inverse * base + digit, scale * base
    return inverse * cells // scale


def certainty(logits_nV: Tensor, choice_temperature: float) -> Tensor:
    """Returns (n,) minus the entropy of each position's distribution, in nats."""
    log_nV = logits_nV.float().log_softmax(dim=-1)
    return (log_nV.exp() * log_nV).nan_to_num(0).sum(dim=-1)


def margin(logits_nV: Tensor, choice_temperature: float) -> Tensor:
    """Returns (n,) the difference between the two largest probabilities of each position."""
    share_nV = logits_nV.float().softmax(dim=-1)
    if share_nV.shape[-1] == 1:
        return share_nV[:, 0]
    first, second = share_nV.topk(2, dim=-1).values.unbind(dim=-1)
    return first - second


def moment(logits_nV: Tensor, choice_temperature: float) -> Tensor:
    """Returns (n,) α log Σ p^(1 + 1/α) of each position, for choice temperature α; its limit for 0 is the largest log-probability.

    MaskGIT samples a token x at each position and adds α × Gumbel noise to log p(x). If few of many positions are kept, a position is kept in proportion to
    Σ p^(1 + 1/α), and its token then has the distribution p^(1 + 1/α) / Σ p^(1 + 1/α). This was derived from the abstract; it was not compared with the paper's
    algorithm, of which partial caching and the hybrid order are not implemented.
    """
    log_nV = logits_nV.float().log_softmax(dim=-1)
    if choice_temperature == 0:
        return log_nV.max(dim=-1).values
    return choice_temperature * (log_nV * sharpness(choice_temperature)).logsumexp(dim=-1)


def sharpness(choice_temperature: float) -> float:
    """Returns 1 + 1/α, the power of the probabilities from which `moment` samples tokens."""
    return 1 + 1 / choice_temperature if choice_temperature else math.inf


SCORES: Mapping[str, Callable[[Tensor, float], Tensor]] = {"entropy": certainty, "margin": margin, "moment": moment}
"""Score of each position by scheme; the highest come first."""


def choice_noise(counts_B: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Returns (n,) Gumbel noise; each sample uses its own generator, for `counts_B` positions."""
    noise = [g.standard_exponential(int(count)) for g, count in zip(generators, counts_B, strict=True)]
    return -np.log(np.maximum(np.concatenate(noise), np.finfo(float).tiny))


def first_positions(score_BL: np.ndarray, count_B: np.ndarray) -> np.ndarray:
    """Returns (B, L) which `count_B` positions of each sample have the highest scores; positions that cannot be chosen have -inf."""
    rank_BL = np.argsort(np.argsort(-score_BL, axis=1, kind="stable"), axis=1)
    return (rank_BL < count_B[:, None]) & (score_BL > -np.inf)
