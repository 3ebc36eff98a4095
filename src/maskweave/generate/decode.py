"""Decoding schemes as step functions over one loop. 4M (https://arxiv.org/abs/2312.06647), section 3.

- MaskGIT (https://arxiv.org/abs/2202.04200): predict all unknown tokens of a grid, keep the most confident, repeat.
- ROAR: predict a random part of the unknown tokens, keep them all, repeat.
- Autoregressive: predict a sequence token by token; see `sequences.py`.

After every step of a grid, the known tokens are encoded again. Dimension letters: B samples, L positions, n predicted positions, V vocabulary.
"""

from collections.abc import Callable, Generator, Mapping

import numpy as np
import torch
from torch import Tensor

from maskweave.generate.engine import Engine
from maskweave.generate.guidance import passes
from maskweave.generate.sampling import Generators, confidence, gumbel, sample
from maskweave.generate.schedule import Schedule, Step
from maskweave.generate.sequences import write_sequence
from maskweave.generate.token_state import TokenState, TokenStates


def run(
    engine: Engine,
    schedule: Schedule,
    given: TokenStates,
    made: dict[str, TokenState],
    generators: Generators,
    codebooks: Mapping[str, Tensor] | None = None,
) -> Generator[int]:
    """Runs the steps of a schedule; yields the index (from 0) of each finished step, and also after each token of a sequence.

    Args:
        given: what is known; never changed.
        made: receives every target, partly known while it is being generated. A target that is already in it is completed.
        codebooks: (V, C) by target; those steps that ask for means of codebook vectors need it.
    """
    B, engine = len(generators), engine.for_one_run()
    for target in schedule.targets:
        field = made.setdefault(target, TokenState.empty(B, engine.catalog[target].tokens))
        if field.probabilities is None and engine.catalog[target].value.tokenized_by == "rules":
            V = engine.catalog.vocabulary_size(target)
            field.probabilities = np.full((*field.mask.shape, V), np.nan, np.float32)
        if field.means is None and codebooks and target in codebooks:
            field.codebook = codebooks[target]
            field.means = np.full((*field.mask.shape, field.codebook.shape[1]), np.nan, np.float32)
        others = {**given, **(made if schedule.chain else {})}
        total, settled = engine.catalog[target].tokens, 0
        open_B = (~field.mask).sum(axis=1)
        if engine.keeps_ids and engine.catalog[target].kind == "grid":
            assert field.ids is not None
            field.device_ids = torch.from_numpy(field.ids).to(engine.device, copy=True)
        for number, step in enumerate(schedule.steps):
            if step.target != target:
                continue
            if step.scheme == "autoregressive":
                for _ in write_sequence(engine, step, others, field, generators):
                    yield number
                continue
            # In a partly known sample, the step settles a proportional share of its tokens.
            before, settled = settled, settled + step.tokens
            count_B = rounded_share(open_B, settled, total) - rounded_share(open_B, before, total)
            if count_B.any():
                STEPS[step.scheme](engine, step, {**others, target: field}, count_B, generators)
            yield number
        field.fetch()
        field.device_ids = None


def rounded_share(open_B: np.ndarray, settled: int, total: int) -> np.ndarray:
    """Returns (B,) the share `settled / total` of each sample's unknown tokens, rounded."""
    return (2 * open_B * settled + total) // (2 * total)


def maskgit_step(engine: Engine, step: Step, fields: TokenStates, count_B: np.ndarray, generators: Generators) -> None:
    """Predicts all unknown tokens and keeps the `count_B` most confident of each sample."""
    field = fields[step.target]
    asked_BL = ~field.mask & (count_B > 0)[:, None]
    ids_n, logits_nV = _predict(engine, step, fields, asked_BL, generators)
    confidence_BL = np.full(asked_BL.shape, -np.inf)
    confidence_BL[asked_BL] = confidence(logits_nV, ids_n).cpu().numpy()
    rank_BL = np.argsort(np.argsort(-confidence_BL, axis=1, kind="stable"), axis=1)
    _settle(field, asked_BL, asked_BL & (rank_BL < count_B[:, None]), ids_n, logits_nV)


def roar_step(engine: Engine, step: Step, fields: TokenStates, count_B: np.ndarray, generators: Generators) -> None:
    """Predicts `count_B` of each sample's unknown tokens, chosen at random."""
    field = fields[step.target]
    keys_BL = np.full(field.mask.shape, 2.0)
    for b in np.flatnonzero(count_B).tolist():
        keys_BL[b] = generators[b].random(field.mask.shape[1])
    keys_BL[field.mask] = 2.0
    asked_BL = ~field.mask & (keys_BL.argsort(axis=1).argsort(axis=1) < count_B[:, None])
    ids_n, logits_nV = _predict(engine, step, fields, asked_BL, generators)
    _settle(field, asked_BL, asked_BL, ids_n, logits_nV)


STEPS: Mapping[str, Callable[..., None]] = {"maskgit": maskgit_step, "roar": roar_step}


def _predict(
    engine: Engine, step: Step, fields: TokenStates, asked_BL: np.ndarray, generators: Generators
) -> tuple[Tensor, Tensor]:
    """Samples tokens (n,) at the asked positions of a grid, sample by sample; also returns the logits (n, V)."""
    logits_nV = engine.ask(fields, passes(step, fields), step.target, asked_BL)
    noise = None
    if step.temperature > 0:
        noise = gumbel(asked_BL.sum(axis=1), logits_nV.shape[1], generators, logits_nV.device)
    return sample(logits_nV, noise, step.temperature, step.top_k, step.top_p), logits_nV


def _settle(field: TokenState, asked_BL: np.ndarray, settled_BL: np.ndarray, ids_n: Tensor, logits_nV: Tensor) -> None:
    """Stores those of the predicted tokens (n,) that are settled, and their probabilities and means if the field has any."""
    assert field.ids is not None
    new = settled_BL[asked_BL]
    if field.device_ids is None:
        field.ids[settled_BL] = ids_n.cpu().numpy()[new]
    else:
        if not new.all():
            ids_n = ids_n[torch.from_numpy(np.flatnonzero(new)).to(ids_n.device, non_blocking=True)]
        places = torch.from_numpy(np.flatnonzero(settled_BL)).to(ids_n.device, non_blocking=True)
        field.device_ids.view(-1).index_copy_(0, places, ids_n)
    if field.probabilities is not None:
        field.probabilities[settled_BL] = logits_nV.float().softmax(dim=-1).cpu().numpy()[new]
    if field.codebook is not None and field.means is not None:
        known = len(field.codebook)  # the id behind them stands for unknown points
        share_nV = logits_nV[:, :known].float().softmax(dim=-1)
        field.means[settled_BL] = (share_nV @ field.codebook.to(share_nV.device)).cpu().numpy()[new]
    field.mask |= settled_BL
