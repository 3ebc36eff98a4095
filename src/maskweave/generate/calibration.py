"""Calibration of predicted token distributions: one temperature per modality, chosen by the NLL of held-out samples.

Temperature scaling (https://arxiv.org/abs/1706.04599, section 4.2) divides the logits by one number, which leaves the order of the tokens as it is. The
distributions are those of the true tokens with the guidance of generation: of a grid, all at once given the inputs alone, as in its first step; of a sequence,
each given the tokens before it.

Dimension letters: n tokens, V vocabulary, K temperatures.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.config import whole_number
from maskweave.errors import MaskweaveError, shown
from maskweave.generate.engine import Engine
from maskweave.generate.request import Options, plan, read, twin
from maskweave.generate.scoring import token_logits
from maskweave.generate.token_state import token_states
from maskweave.tokenizers.base import Tokenizer

TEMPERATURES = np.geomspace(0.1, 10, 129)
"""Temperatures whose NLL is computed; between the best ones, a parabola is fitted over their logarithm."""


class Calibration(NamedTuple):
    """Result for one modality; NLL in nats per token."""

    temperature: float
    """Between the lowest and the highest of `TEMPERATURES`; at one of them, the model is no use for these inputs, or is certain of everything."""
    before: float
    """NLL at temperature 1."""
    after: float
    """NLL at `temperature`, as the parabola estimates it."""
    tokens: int


def calibrate(
    engine: Engine,
    tokenizers: Mapping[str, Tokenizer],
    samples: Sequence[Mapping[str, Any]],
    inputs: Sequence[str],
    targets: Sequence[str],
    batch_size: int,
    options: Options,
    unconditional: bool | None = None,
) -> dict[str, Calibration]:
    """Returns the calibration of each target.

    Args:
        options: `decoding` and `conditions`, which set the guidance.
        unconditional: as for `plan`.

    Raises:
        MaskweaveError: as `plan`; no sample has the inputs and a target, or a value does not fit its entry.
    """
    if not isinstance(samples, Sequence) or not all(isinstance(sample, Mapping) for sample in samples):
        raise MaskweaveError(f"samples: found {shown(samples)}; expected a list of mappings of values by modality")
    if isinstance(inputs, str) or not isinstance(inputs, Sequence) or not all(isinstance(n, str) for n in inputs):
        raise MaskweaveError(f"inputs: found {shown(inputs)}; expected a list of names")
    catalog, batch_size = engine.catalog, whole_number("batch_size", batch_size, 1)
    _, schedule = plan(catalog, inputs, targets, {**options, "chain": False}, unconditional)
    found = {}
    for requested in targets:
        target = twin(catalog, requested)
        name_of = {catalog[name].reads: name for name in inputs}
        usable = [s for s in samples if {*name_of, catalog[target].reads} <= {n for n in s if s[n] is not None}]
        if not usable:
            raise MaskweaveError(
                f"calibrate: none of {len(samples)} samples has {requested} and the inputs {', '.join(name_of)}; give samples that have them"
            )
        nll_K, tokens = np.zeros(len(TEMPERATURES)), 0
        for start in range(0, len(usable), batch_size):
            batch = usable[start : start + batch_size]
            given = [read({name: s[reads] for reads, name in name_of.items()}, catalog, tokenizers) for s in batch]
            truth = [read({target: s[catalog[target].reads]}, catalog, tokenizers) for s in batch]
            true = token_states(catalog, truth, tokenizers)[target]
            known = token_states(catalog, given, tokenizers)
            for _, logits_nV, ids_n in token_logits(engine, known, target, true, schedule.of(target)[0]):
                nll_K += _nll(logits_nV, ids_n)
                tokens += len(ids_n)
        if not tokens:
            raise MaskweaveError(f"calibrate: no token of {requested} is known in {len(usable)} samples")
        found[requested] = _best(nll_K / tokens, tokens)
    return found


def _nll(logits_nV: torch.Tensor, ids_n: np.ndarray) -> np.ndarray:
    """Returns (K,) the summed NLL of some tokens at each temperature."""
    logits_nV = logits_nV.double()
    chosen = logits_nV.gather(1, torch.from_numpy(ids_n)[:, None].to(logits_nV.device))[:, 0]
    return np.array([float(((logits_nV / t).logsumexp(dim=-1) - chosen / t).sum()) for t in TEMPERATURES])


def _best(nll_K: np.ndarray, tokens: int) -> Calibration:
    """Returns the temperature of the lowest NLL, by the parabola through the best of `TEMPERATURES` and its neighbors."""
    best, step = int(nll_K.argmin()), float(np.log(TEMPERATURES[1] / TEMPERATURES[0]))
    temperature, after = float(TEMPERATURES[best]), float(nll_K[best])
    if 0 < best < len(nll_K) - 1:
        left, middle, right = nll_K[best - 1 : best + 2]
        if (curve := left - 2 * middle + right) > 0:
            shift = (left - right) / (2 * curve)
            temperature *= float(np.exp(step * shift))
            after -= float((left - right) ** 2 / (8 * curve))
    return Calibration(temperature, float(nll_K[len(nll_K) // 2]), after, tokens)
