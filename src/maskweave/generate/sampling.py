"""From logits to tokens: temperature, top-k, top-p, and how sure the choice was. Pure functions of logits and noise.

Dimension letters: n tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.modality import Decoding


class Sampled(NamedTuple):
    ids: Tensor
    """(n,)"""
    confidence: Tensor
    """(n,) log-probability of each choice, before temperature and cuts."""


def sample(logits_nV: Tensor, noise_nV: Tensor, decoding: Decoding) -> Sampled:
    """Draw one token per row by the Gumbel maximum, so that the same noise always gives the same tokens.

    Args:
        noise_nV: standard Gumbel variates.
        decoding: temperature (0: the likeliest token), top_k and top_p.
    """
    logits_nV = logits_nV.float()
    log_probability = F.log_softmax(logits_nV, dim=-1)
    if decoding.temperature == 0:
        ids = logits_nV.argmax(dim=-1)
    else:
        kept = keep_likely(logits_nV / decoding.temperature, decoding.top_k, decoding.top_p)
        ids = (kept + noise_nV).argmax(dim=-1)
    return Sampled(ids, log_probability.gather(-1, ids[:, None])[:, 0])


def keep_likely(logits_nV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set all but the likeliest tokens to -inf: the `top_k` first (0: all), and the fewest that hold `top_p` of the probability."""
    if top_k and top_k < logits_nV.shape[-1]:
        least = logits_nV.topk(top_k, dim=-1).values[:, -1:]
        logits_nV = logits_nV.masked_fill(logits_nV < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits_nV.sort(dim=-1, descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
        beyond = before >= top_p
        beyond[:, 0] = False  # one token always stays
        dropped = torch.zeros_like(beyond).scatter(-1, order, beyond)
        logits_nV = logits_nV.masked_fill(dropped, -torch.inf)
    return logits_nV
