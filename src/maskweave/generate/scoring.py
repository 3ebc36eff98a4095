"""Log-likelihood of a value given others, under the model.

Each token of a sequence is scored given the tokens before it. A grid has no order, so all its tokens are scored at once, given only the
inputs: the sum over its positions of log p(token | inputs), which ignores dependencies between tokens.

Dimension letters: B samples, L positions, n tokens, V vocabulary.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.generate.engine import Engine
from maskweave.generate.guidance import Pass, passes
from maskweave.generate.schedule import Step
from maskweave.generate.token_state import TokenState


class Score(NamedTuple):
    """Log-likelihood of one value, in nats."""

    total: float
    tokens: np.ndarray
    """(n,) log-likelihood of each token, row by row for a grid; they add up to the total."""


def check_scored(inputs: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]) -> None:
    """Raises:
    MaskweaveError: not a mapping of inputs and one of values for every sample, or values of different modalities.
    """
    for part in (inputs, values):
        if not isinstance(part, Sequence) or not all(isinstance(sample, Mapping) for sample in part):
            raise MaskweaveError(f"score: found {shown(part)}; expected a list of mappings of values by modality")
    if len(inputs) != len(values) or not values or any(set(v) != set(values[0]) for v in values):
        raise MaskweaveError(
            f"score: found {len(inputs)} inputs and {len(values)} values; expected both for every sample, with the same modalities in all values"
        )


def score_tokens(engine: Engine, given: Mapping[str, TokenState], target: str, truth: TokenState) -> list[Score]:
    """Scores one modality's tokens for every sample.

    Args:
        given: what is known; the target itself is ignored if it is included.
        truth: the tokens to score.
    """
    log_BL = np.zeros(truth.mask.shape)
    for asked_BL, logits_nV, ids_n in token_logits(engine, given, target, truth):
        chosen = torch.from_numpy(ids_n)[:, None].to(logits_nV.device)
        log_BL[asked_BL] = logits_nV.log_softmax(dim=-1).gather(1, chosen)[:, 0].cpu().numpy()
    return [
        Score(float(row[mask].sum()), row[mask].astype(np.float32))
        for row, mask in zip(log_BL, truth.mask, strict=True)
    ]


def token_logits(
    engine: Engine, given: Mapping[str, TokenState], target: str, truth: TokenState, step: Step | None = None
) -> Iterator[tuple[np.ndarray, Tensor, np.ndarray]]:
    """Yields positions (B, L), the logits (n, V) there and the true ids (n,): all tokens of a grid at once, those of a sequence one after another.

    Args:
        given: as in `score_tokens`.
        step: whose guidance the logits have; by default they have none.
    """
    assert truth.ids is not None
    others = {name: field for name, field in given.items() if name != target}
    if engine.catalog[target].kind == "sequence":
        yield from _sequence(engine, others, target, truth, step)
        return
    fields = {**others, target: TokenState.empty(*truth.mask.shape)}
    logits = engine.ask(fields, _passes(step, fields), target, truth.mask)
    yield truth.mask, logits, truth.ids[truth.mask]


def _passes(step: Step | None, names: Collection[str]) -> list[Pass]:
    return [Pass(1.0, frozenset(names))] if step is None else passes(step, names)


def _sequence(
    engine: Engine, others: Mapping[str, TokenState], target: str, truth: TokenState, step: Step | None
) -> Iterator[tuple[np.ndarray, Tensor, np.ndarray]]:
    """The logits of each token given the tokens before it; decoding starts with the first sentinel."""
    assert truth.ids is not None
    B = len(truth.mask)
    vocabulary = engine.catalog[target].vocabulary
    sentinel = engine.catalog.vocabularies[vocabulary].first_sentinel + 1
    frame = TokenState(np.ones((B, 1), bool), np.full((B, 1), sentinel))
    asked = _passes(step, (*others, target))
    longest = int(truth.mask.sum(axis=1).max(initial=0))
    reader = engine.reader({**others, target: frame}, [p.sees for p in asked], target, longest)
    read_B = frame.ids[:, 0]  # type: ignore[index]
    for n in range(longest):
        logits_BV = engine.read(reader, torch.from_numpy(read_B), asked)
        read_B = truth.ids[:, n]
        asked_BL = np.zeros(truth.mask.shape, bool)
        asked_BL[:, n] = truth.mask[:, n]
        there = torch.from_numpy(np.flatnonzero(truth.mask[:, n])).to(logits_BV.device)
        yield asked_BL, logits_BV[there], read_B[truth.mask[:, n]]
