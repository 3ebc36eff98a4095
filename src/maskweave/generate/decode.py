"""Decoding schemes as step functions over one loop. 4M (https://arxiv.org/abs/2312.06647), section 3.

- MaskGIT (https://arxiv.org/abs/2202.04200): predict all unknown tokens of a grid, keep the most confident, repeat.
- ROAR: predict a random part of the unknown tokens, keep them all, repeat. Halton: the same with evenly spread positions.
- Choose then sample (`entropy`, `margin`, `moment`): predict all unknown tokens, choose positions by their distributions, sample tokens there, repeat.
- Autoregressive: predict a sequence token by token; see `sequences.py`.

A step may also mask some of the generated tokens again. After every step of a grid, the known tokens are encoded again. Dimension letters: B samples, L positions, n predicted positions, V vocabulary.
"""

from collections.abc import Callable, Generator, Mapping

import numpy as np
import torch
from torch import Tensor

from maskweave.generate import orders
from maskweave.generate.engine import Engine
from maskweave.generate.guidance import passes
from maskweave.generate.sampling import Generators, confidence, gumbel, sample
from maskweave.generate.schedule import Schedule, Step
from maskweave.generate.sequences import write_sequence
from maskweave.generate.token_state import TokenState, TokenStates

MOST_SHARPNESS = 1e6
"""Largest power of the probabilities from which `moment` samples; at more, logits overflow."""


def run(
    engine: Engine,
    schedule: Schedule,
    given: TokenStates,
    made: dict[str, TokenState],
    generators: Generators,
    codebooks: Mapping[str, Tensor] | None = None,
    calibration: Mapping[str, float] | None = None,
    keep_probabilities: bool = False,
) -> Generator[int]:
    """Runs the steps of a schedule; yields the index (from 0) of each finished step, and also after each token of a sequence.

    Args:
        given: what is known; never changed.
        made: receives every target, partly known while it is being generated. A target that is already in it is completed.
        codebooks: (V, C) by target; those steps that ask for means of codebook vectors need it.
        calibration: temperature of the kept probabilities by target; it never changes what is sampled.
        keep_probabilities: of all targets, not only of those whose values have distributions.
    """
    B, engine = len(generators), engine.for_one_run()
    for target in schedule.targets:
        field = made.setdefault(target, TokenState.empty(B, engine.catalog[target].tokens))
        field.calibration = (calibration or {}).get(target, 1.0)
        by_rules = engine.catalog[target].value.tokenized_by == "rules"
        if field.probabilities is None and (by_rules or keep_probabilities):
            V = engine.catalog.vocabulary_size(target)
            field.probabilities = np.full((*field.mask.shape, V), np.nan, np.float32)
        if field.means is None and codebooks and target in codebooks:
            field.codebook = codebooks[target]
            field.means = np.full((*field.mask.shape, field.codebook.shape[1]), np.nan, np.float32)
        others = {**given, **{name: state for name, state in made.items() if schedule.joins(name)}}
        total, settled = engine.catalog[target].tokens, 0
        open_BL = ~field.mask
        open_B = open_BL.sum(axis=1)
        if any(step.remask_by == "confidence" for step in schedule.of(target)):
            field.confidence = np.ones(field.mask.shape)
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
            masked_BL = remasked(step, field, open_BL, total, count_B, generators)
            count_B = count_B + masked_BL.sum(axis=1)
            if count_B.any():
                STEPS[step.scheme](engine, step, {**others, target: field}, count_B, generators)
                field.forget(masked_BL)
            yield number
        field.fetch()
        field.device_ids = None


def rounded_share(open_B: np.ndarray, settled: int, total: int) -> np.ndarray:
    """Returns (B,) the share `settled / total` of each sample's unknown tokens, rounded."""
    return (2 * open_B * settled + total) // (2 * total)


def remasked(
    step: Step, field: TokenState, open_BL: np.ndarray, total: int, count_B: np.ndarray, generators: Generators
) -> np.ndarray:
    """Returns (B, L) which generated tokens a step masks again, after its prediction, in which they are still known. ReMDM (https://arxiv.org/abs/2503.00307).

    Args:
        open_BL: what is being generated.
        total: tokens of the grid; a partly known sample masks a proportional share.
        count_B: by how much each sample's known tokens grow.
    """
    generated_BL = field.mask & open_BL
    if not step.remask:
        return np.zeros_like(generated_BL)
    left_B = (~field.mask).sum(axis=1) - count_B
    masked_B = np.minimum(rounded_share(open_BL.sum(axis=1), step.remask, total), generated_BL.sum(axis=1))
    masked_B = np.minimum(masked_B, left_B)
    score_BL = np.full(generated_BL.shape, -np.inf)
    candidates_BL = generated_BL & (masked_B > 0)[:, None]
    score_BL[candidates_BL] = orders.choice_noise(candidates_BL.sum(axis=1), generators)
    if step.remask_by == "confidence" and field.confidence is not None:
        score_BL -= (
            field.confidence
        )  # the largest of these are a weighted choice without replacement, by weights exp(-confidence)
    return orders.first_positions(score_BL, masked_B)


def maskgit_step(engine: Engine, step: Step, fields: TokenStates, count_B: np.ndarray, generators: Generators) -> None:
    """Predicts all unknown tokens and keeps the `count_B` most confident of each sample."""
    field = fields[step.target]
    asked_BL = ~field.mask & (count_B > 0)[:, None]
    logits_nV = engine.ask(fields, passes(step, fields), step.target, asked_BL)
    ids_n = _sample(step, logits_nV, asked_BL.sum(axis=1), generators)
    chosen_BL = _choose(step, confidence(logits_nV, ids_n), asked_BL, count_B, generators)
    _settle(field, asked_BL, chosen_BL, ids_n, logits_nV)


def choose_step(engine: Engine, step: Step, fields: TokenStates, count_B: np.ndarray, generators: Generators) -> None:
    """Predicts all unknown tokens, chooses `count_B` positions of each sample by their distributions, and samples tokens there."""
    field = fields[step.target]
    asked_BL = ~field.mask & (count_B > 0)[:, None]
    logits_nV = engine.ask(fields, passes(step, fields), step.target, asked_BL)
    score_n = orders.SCORES[step.scheme](logits_nV, step.choice_temperature)
    chosen_BL = _choose(step, score_n, asked_BL, count_B, generators)
    chosen_n = torch.from_numpy(np.flatnonzero(chosen_BL[asked_BL])).to(logits_nV.device)
    logits_nV = logits_nV[chosen_n]
    if step.scheme == "moment":
        # Where nothing is left to choose from, MaskGIT does not sharpen either.
        is_last_B = chosen_BL.sum(axis=1) == asked_BL.sum(axis=1)
        power_B = np.where(is_last_B, 1.0, min(orders.sharpness(step.choice_temperature), MOST_SHARPNESS))
        power_n = torch.from_numpy(np.repeat(power_B, chosen_BL.sum(axis=1))).to(logits_nV)
        ids_n = _sample(step, logits_nV * power_n[:, None], chosen_BL.sum(axis=1), generators)
    else:
        ids_n = _sample(step, logits_nV, chosen_BL.sum(axis=1), generators)
    _settle(field, chosen_BL, chosen_BL, ids_n, logits_nV)


def roar_step(engine: Engine, step: Step, fields: TokenStates, count_B: np.ndarray, generators: Generators) -> None:
    """Predicts `count_B` of each sample's unknown tokens, chosen at random."""
    field = fields[step.target]
    keys_BL = np.full(field.mask.shape, 2.0)
    for b in np.flatnonzero(count_B).tolist():
        keys_BL[b] = generators[b].random(field.mask.shape[1])
    _predict_first(engine, step, fields, keys_BL, count_B, generators)


def halton_step(engine: Engine, step: Step, fields: TokenStates, count_B: np.ndarray, generators: Generators) -> None:
    """Predicts `count_B` of each sample's unknown tokens, the next ones in the order of the Halton sequence."""
    field = fields[step.target]
    keys_L = orders.halton_rank(engine.catalog[step.target].grid)
    _predict_first(engine, step, fields, np.tile(keys_L, (len(field.mask), 1)), count_B, generators)


STEPS: Mapping[str, Callable[..., None]] = {
    "maskgit": maskgit_step,
    "roar": roar_step,
    "halton": halton_step,
    **dict.fromkeys(orders.SCORES, choose_step),
}


def _predict_first(
    engine: Engine, step: Step, fields: TokenStates, keys_BL: np.ndarray, count_B: np.ndarray, generators: Generators
) -> None:
    """Predicts the `count_B` unknown tokens of each sample that have the smallest keys."""
    field = fields[step.target]
    asked_BL = orders.first_positions(np.where(field.mask, -np.inf, -keys_BL), count_B)
    logits_nV = engine.ask(fields, passes(step, fields), step.target, asked_BL)
    ids_n = _sample(step, logits_nV, asked_BL.sum(axis=1), generators)
    _settle(field, asked_BL, asked_BL, ids_n, logits_nV)


def _sample(step: Step, logits_nV: Tensor, counts_B: np.ndarray, generators: Generators) -> Tensor:
    """Samples tokens (n,), `counts_B` of each sample."""
    noise = None
    if step.temperature > 0:
        noise = gumbel(counts_B, logits_nV.shape[1], generators, logits_nV.device)
    return sample(logits_nV, noise, step.temperature, step.top_k, step.top_p)


def _choose(
    step: Step, score_n: Tensor, asked_BL: np.ndarray, count_B: np.ndarray, generators: Generators
) -> np.ndarray:
    """Returns (B, L) which `count_B` of the asked positions have the highest scores, with the noise of the step's choice temperature."""
    score_BL = np.full(asked_BL.shape, -np.inf)
    score_BL[asked_BL] = score_n.cpu().numpy()
    if step.choice_temperature > 0:
        score_BL[asked_BL] += step.choice_temperature * orders.choice_noise(asked_BL.sum(axis=1), generators)
    return orders.first_positions(score_BL, count_B)


def _settle(field: TokenState, asked_BL: np.ndarray, settled_BL: np.ndarray, ids_n: Tensor, logits_nV: Tensor) -> None:
    """Stores those of the predicted tokens (n,) that are settled, and their probabilities and means if the field has any."""
    assert field.ids is not None
    new, asked_ids_n = settled_BL[asked_BL], ids_n
    if field.device_ids is None:
        field.ids[settled_BL] = ids_n.cpu().numpy()[new]
    else:
        if not new.all():
            ids_n = ids_n[torch.from_numpy(np.flatnonzero(new)).to(ids_n.device, non_blocking=True)]
        places = torch.from_numpy(np.flatnonzero(settled_BL)).to(ids_n.device, non_blocking=True)
        field.device_ids.view(-1).index_copy_(0, places, ids_n)
    if field.probabilities is not None:
        field.probabilities[settled_BL] = (logits_nV.float() / field.calibration).softmax(dim=-1).cpu().numpy()[new]
    if field.codebook is not None and field.means is not None:
        known = len(field.codebook)  # the id behind them stands for unknown points
        share_nV = logits_nV[:, :known].float().softmax(dim=-1)
        field.means[settled_BL] = (share_nV @ field.codebook.to(share_nV.device)).cpu().numpy()[new]
    if field.confidence is not None:
        field.confidence[settled_BL] = confidence(logits_nV, asked_ids_n).exp().cpu().numpy()[new]
    field.mask |= settled_BL
