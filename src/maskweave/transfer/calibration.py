"""Calibration of predicted standard deviations on training examples that are held out of the training.

On the examples that a model was trained on, its errors are smaller than on others, and so are the standard deviations that it learns. One factor for all
of them is chosen so that intervals of 90% hold at least 90% of the held-out numbers: split conformal prediction of errors relative to their predicted
standard deviations (https://arxiv.org/abs/2107.07511, section 2.3).
"""

import copy
import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import torch

from maskweave.data.split import hash_names
from maskweave.generate.engine import bulk_precision
from maskweave.models.sample_heads import NumberHead
from maskweave.objectives.transfer import TransferObjective
from maskweave.tokenizers.base import Tokenizer
from maskweave.transfer.data import Examples, TransferBatches
from maskweave.transfer.encoding import encoded_for_head
from maskweave.transfer.task import raw_names
from maskweave.values.distribution import INTERVAL

LEAST, ENOUGH, MOST = 10, 20, 1000
"""Examples without which nothing is calibrated; that are held out if they are at most a fifth of all; and that are enough for any data."""
LEAST_FACTOR = 1e-3
BATCH = 64


def hold_out(examples: Examples, share: float) -> tuple[Examples, Examples | None, str]:
    """Splits training examples into those to train on and those to calibrate on, by the hashes of their names or groups; None and a sentence if there are
    too few.

    Args:
        share: of the examples to calibrate on; 0: none.
    """
    if not share:
        return examples, None, ""
    total = len(examples)
    count = min(max(round(share * total), min(ENOUGH, total // 5)), MOST)
    if count < LEAST:
        reason = f"{total} training examples are too few to hold out {LEAST} of them"
        return examples, None, f"predicted standard deviations are not calibrated: {reason}"
    hashes = hash_names(examples.group(examples.key(i)) for i in range(total))
    held = hashes <= np.partition(hashes, count - 1)[count - 1]
    if held.sum() > total / 2:
        reason = f"the groups are so large that {held.sum()} of {total} training examples would be held out"
        return examples, None, f"predicted standard deviations are not calibrated: {reason}"
    parts = [copy.copy(examples), copy.copy(examples)]
    for part, chosen in zip(parts, (~held, held), strict=True):
        part.indices = [examples.indices[i] for i in np.flatnonzero(chosen).tolist()]
    return parts[0], parts[1], ""


@torch.no_grad()
def calibrate(objective: TransferObjective, examples: Examples, tokenizers: Mapping[str, Tokenizer]) -> str:
    """Scales the standard deviations that a head of form `gaussian` predicts, in place. Returns a sentence about it."""
    head = objective.head
    assert isinstance(head, NumberHead) and head.form == "gaussian" and head.out.bias is not None
    objective.eval()
    device = head.out.weight.device
    batches = TransferBatches(
        examples, tokenizers, objective.encoder.names, min(BATCH, len(examples)), shuffle=False, raw=raw_names(head)
    )  # fmt: skip
    relative = []
    for i in range(len(batches)):
        batch = batches[i].to(device)
        encoded = encoded_for_head(objective.encoder, batch.inputs, device, bulk_precision(device))
        output_BK2 = head(encoded._replace(raw=batch.raw)).double()
        wanted_BK = head.standardize(batch.target)
        # Not clamped, as the factor is added to what is not: deviations below the least one would stay below it.
        std_BK = output_BK2[..., 1].exp().clamp_min(torch.finfo(torch.float64).tiny)
        relative.append(((wanted_BK - output_BK2[..., 0]).abs() / std_BK)[~wanted_BK.isnan()].cpu())
    factor = spread_factor(torch.cat(relative).numpy())
    head.out.bias.view(head.numbers, 2)[:, 1] += math.log(factor)
    return f"predicted standard deviations are multiplied by {factor:.3g}, so that {INTERVAL:.0%} intervals hold {INTERVAL:.0%} of {len(examples)} training examples that were held out"


def spread_factor(relative_n: np.ndarray) -> float:
    """Returns the factor of standard deviations with which the central 90% interval of a normal distribution holds 90% of further numbers.

    Args:
        relative_n: absolute errors divided by the predicted standard deviations.
    """
    n = len(relative_n)
    if not n:
        return 1.0
    rank = min(math.ceil((n + 1) * INTERVAL), n)
    return max(float(np.sort(relative_n)[rank - 1]) / NormalDist().inv_cdf((1 + INTERVAL) / 2), LEAST_FACTOR)
