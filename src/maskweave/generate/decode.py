"""Decoding schemes as step functions over one loop. 4M (https://arxiv.org/abs/2312.06647), section 3.

- MaskGIT (https://arxiv.org/abs/2202.04200): predict all unknown tokens of a grid, keep the surest, repeat.
- ROAR: predict a random part of the unknown tokens, keep them all, repeat.
- Autoregressive: a sequence token by token, from the first sentinel to the next one.

After every step of a grid, what is known is encoded anew. Dimension letters: B samples, L places, n asked places, V vocabulary.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskweave.generate.known import Known
from maskweave.generate.sampling import Sampled, sample
from maskweave.modality import EOS, Decoding
from maskweave.model.fourm import FourM

Generators = Sequence[np.random.Generator]
"""One per sample, so that a sample's result does not depend on its neighbours in the batch."""


def generate_tokens(model: FourM, known: Known, target: str, decoding: Decoding, generators: Generators) -> None:
    """Generate one modality for all samples; on return `known` holds it."""
    if known.catalogue[target].kind == "sequence":
        _generate_sequence(model, known, target, decoding, generators)
    else:
        _generate_grid(model, known, target, decoding, generators)


def tokens_per_step(total: int, decoding: Decoding) -> list[int]:
    """How many tokens each step settles: MaskGIT by the cosine schedule, ROAR evenly. Steps that would settle none are left out."""
    steps = max(1, min(decoding.steps, total))
    if decoding.scheme == "maskgit":
        left = [math.floor(total * math.cos(math.pi / 2 * (s + 1) / steps)) for s in range(steps)]
    else:
        left = [round(total * (1 - (s + 1) / steps)) for s in range(steps)]
    left[-1] = 0
    counts = [before - after for before, after in zip([total, *left], left, strict=False)]
    return [count for count in counts if count > 0]


def _generate_grid(model: FourM, known: Known, target: str, decoding: Decoding, generators: Generators) -> None:
    if target not in known.mask:
        known.start(target)
    for count in tokens_per_step(known.catalogue[target].tokens, decoding):
        unknown_BL = ~known.mask[target]
        asked_BL = unknown_BL if decoding.scheme == "maskgit" else _random_subset(unknown_BL, count, generators)
        if not asked_BL.any():
            return
        chosen = _predict(model, known, target, asked_BL, decoding, generators)
        ids_BL, settled_BL = known.ids[target], asked_BL
        if decoding.scheme == "maskgit":
            confidence_BL = np.full(asked_BL.shape, -np.inf)
            confidence_BL[asked_BL] = chosen.confidence.cpu().numpy()
            rank_BL = np.argsort(np.argsort(-confidence_BL, axis=1, kind="stable"), axis=1)
            settled_BL = asked_BL & (rank_BL < count)
        new_BL = np.zeros_like(ids_BL)
        new_BL[asked_BL] = chosen.ids.cpu().numpy()
        ids_BL[settled_BL] = new_BL[settled_BL]
        known.mask[target] |= settled_BL


def _random_subset(unknown_BL: np.ndarray, count: int, generators: Generators) -> np.ndarray:
    keys_BL = np.stack([generator.random(unknown_BL.shape[1]) for generator in generators])
    keys_BL[~unknown_BL] = 2.0
    rank_BL = keys_BL.argsort(axis=1).argsort(axis=1)
    return unknown_BL & (rank_BL < count)


def _predict(
    model: FourM, known: Known, target: str, asked_BL: np.ndarray, decoding: Decoding, generators: Generators
) -> Sampled:
    """Sample the asked places of a grid, row by row."""
    device = next(model.parameters()).device
    inputs, rows = known.inputs()
    inputs, rows = inputs.to(device), {name: r.to(device) for name, r in rows.items()}
    slots = known.ask(target, asked_BL).to(device)
    y = model.decode(slots, model.encode(inputs, rows), inputs)
    ((_, _, logits_nV),) = model.logits(y, slots.index).values()
    noise = _gumbel(asked_BL.sum(axis=1), logits_nV, generators, decoding)
    return sample(logits_nV, noise, decoding)


def _generate_sequence(model: FourM, known: Known, target: str, decoding: Decoding, generators: Generators) -> None:
    """The first sentinel is an encoder input and the first token read; [EOS], any sentinel or the longest length ends a sample."""
    modality = known.catalogue[target]
    vocabulary = known.catalogue.vocabularies[modality.vocabulary]
    first = vocabulary.first_sentinel
    device = next(model.parameters()).device
    known.start(target)
    known.ids[target][:, 0], known.mask[target][:, 0] = first + 1, True
    inputs, rows = known.inputs()
    inputs, rows = inputs.to(device), {name: r.to(device) for name, r in rows.items()}
    encoded = model.encode(inputs, rows)

    B = known.samples
    read_Bn = np.full((B, 1), first + 1, np.int64)
    ended_B = np.zeros(B, bool)
    while read_Bn.shape[1] <= modality.max_tokens and not ended_B.all():
        slots = known.continue_sequence(target, read_Bn).to(device)
        y = model.decode(slots, encoded, inputs)
        going = np.flatnonzero(
            ~ended_B
        )  # those that ended take no more noise: how long others go on must not change what comes next
        last = slots.index[target].view(B, -1)[torch.from_numpy(going).to(device), -1]
        ((_, _, logits_nV),) = model.logits(y, {target: last}).values()
        noise = _gumbel((~ended_B).astype(int), logits_nV, generators, decoding)
        next_B = np.full(B, first)
        next_B[going] = sample(logits_nV, noise, decoding).ids.cpu().numpy()
        read_Bn = np.concatenate([read_Bn, next_B[:, None]], axis=1)
        ended_B |= (next_B >= first) & (next_B < first + vocabulary.sentinels) | (next_B == EOS)

    said_Bn = read_Bn[:, 1:]
    is_end = (said_Bn >= first) & (said_Bn < first + vocabulary.sentinels)
    spoken_Bn = ~is_end.cumsum(axis=1).astype(bool)
    n = said_Bn.shape[1]
    known.ids[target][:, :n], known.mask[target][:, :n] = said_Bn, spoken_Bn
    known.mask[target][:, n:] = False


def _gumbel(counts_B: np.ndarray, logits_nV: Tensor, generators: Generators, decoding: Decoding) -> Tensor:
    """Each sample's noise from its own generator, for as many rows as it asks for; none is drawn at temperature 0."""
    if decoding.temperature == 0:
        return logits_nV.new_zeros(())
    V = logits_nV.shape[1]
    uniform = np.concatenate(
        [g.random((int(c), V), dtype=np.float32) for g, c in zip(generators, counts_B, strict=True)]
    )
    tiny = np.finfo(np.float32).tiny
    noise = -np.log(-np.log(np.clip(uniform, tiny, 1 - 2**-24)))
    return torch.from_numpy(noise).to(logits_nV.device)
