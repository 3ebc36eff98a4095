"""Samples tokens from logits: temperature, top-k, top-p, and confidence. Pure functions of logits and noise.

Dimension letters: B samples, n tokens, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Generators = Sequence[np.random.Generator]
"""One per sample, so that a sample's result does not depend on its neighbors in the batch."""

FIRST = 256
"""Number of likeliest tokens among which top-p searches first on a CPU: sorting the complete vocabulary takes as long as the model."""


def sample(
    logits_nV: Tensor, noise_nV: Tensor | None, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Samples one token per row (n,) by the Gumbel-max trick: the same noise always gives the same tokens.

    Args:
        noise_nV: standard Gumbel noise; not needed at temperature 0, which takes the likeliest token.
        top_k: as in `keep_likely`.
        top_p: as in `keep_likely`.
    """
    logits_nV = logits_nV.float()
    if temperature == 0:
        return logits_nV.argmax(dim=-1)
    assert noise_nV is not None
    return (keep_likely(logits_nV / temperature, top_k, top_p) + noise_nV).argmax(dim=-1)


def confidence(logits_nV: Tensor, ids_n: Tensor) -> Tensor:
    """Returns the log-probability (n,) of each chosen token, before temperature, top-k and top-p."""
    logits_nV = logits_nV.float()
    return logits_nV.gather(-1, ids_n[:, None])[:, 0] - logits_nV.logsumexp(dim=-1)


def gumbel(counts_B: np.ndarray, vocabulary: int, generators: Generators, device: torch.device) -> Tensor:
    """Returns Gumbel noise (n, V); each sample uses its own generator, for `counts_B` tokens. On a GPU, the generators give seeds for noise made there."""
    if device.type == "cuda":
        return _gumbel_there(counts_B, vocabulary, generators, device)
    noise = [
        g.standard_exponential((int(count), vocabulary), dtype=np.float32)
        for g, count in zip(generators, counts_B, strict=True)
    ]
    return _gumbel_of(torch.from_numpy(np.concatenate(noise)).to(device))


def _gumbel_there(counts_B: np.ndarray, vocabulary: int, generators: Generators, device: torch.device) -> Tensor:
    """Makes the noise on the device: copying it there would take longer than the model."""
    exponential, there = torch.empty(int(counts_B.sum()), vocabulary, device=device), torch.Generator(device)
    for rows, own in zip(exponential.split(counts_B.tolist()), generators, strict=True):
        if len(rows):
            rows.exponential_(generator=there.manual_seed(int(own.integers(2**63))))
    return _gumbel_of(exponential)


def _gumbel_of(exponential: Tensor) -> Tensor:
    """Converts exponential to Gumbel variates, in place."""
    return exponential.clamp_(min=torch.finfo(torch.float32).tiny).log_().neg_()


def keep_likely(logits_nV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Sets all but the likeliest tokens to -inf. Keeps the `top_k` first (0: all), and the fewest whose probabilities add up to `top_p`."""
    if top_k and top_k < logits_nV.shape[-1]:
        least = logits_nV.topk(top_k, dim=-1).values[:, -1:]
        logits_nV = logits_nV.masked_fill(logits_nV < least, -torch.inf)
    if top_p < 1:
        first = FIRST if logits_nV.device.type == "cpu" else logits_nV.shape[-1]  # so that the host need not wait
        logits_nV = logits_nV.masked_fill(~_nucleus(F.softmax(logits_nV, dim=-1), top_p, first), -torch.inf)
    return logits_nV


def _nucleus(share_nV: Tensor, top_p: float, first: int) -> Tensor:
    """Mask of the fewest tokens whose probabilities add up to `top_p`; searches the `first` likeliest, and all tokens only if needed."""
    likeliest, order = share_nV.topk(min(first, share_nV.shape[-1]), dim=-1)
    before = likeliest.cumsum(dim=-1) - likeliest
    kept = torch.zeros_like(share_nV, dtype=torch.bool).scatter(-1, order, before < top_p)
    if first < share_nV.shape[-1]:
        short = (before + likeliest)[:, -1] < top_p
        if short.any():
            kept[short] = _nucleus(share_nV[short], top_p, share_nV.shape[-1])
    return kept
