"""The set loss of DETR (https://arxiv.org/abs/2005.12872): each true box is matched to one predicted box; the others should predict no object.

What the numbers of a box mean, and how far two boxes are apart, is the matter of their value type (`maskweave.values.detection`).
Dimension letters: B samples, Q predicted boxes, M true boxes at most, K classes, P numbers of a box.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.values.detection import Detected

CLASS_COST, BOX_COST, OVERLAP_COST = 1.0, 5.0, 2.0
"""Weights of the class, the distance and the generalized IoU, both for matching and in the loss."""
NO_OBJECT = 0.1
"""Class weight of queries without a match; it is low because most queries have none. Above `MANY_QUERIES`, they weigh as much as so many together."""
MANY_QUERIES = 20


class SetLoss:
    """Loss of the outputs of `BoxHead`, summed over its blocks. The metrics are those of the last block.

    Args:
        value: type of the boxes.
    """

    def __init__(self, value: Detected):
        self.value = value

    def __call__(self, output: Tensor, target_BMX: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            output: (depth, B, Q, K + 1 + P), the output of `BoxHead`.
            target_BMX: (B, M, 1 + P) class and numbers; class -1 is padding.

        Returns:
            The loss, and the metrics `loss/class`, `loss/box` and `loss/overlap`.
        """
        losses = [self._of_block(block, target_BMX) for block in output]
        total = torch.stack([sum(parts.values(), parts["loss/class"].new_zeros(())) for parts in losses]).sum()
        return total, {name: part.detach() for name, part in losses[-1].items()}

    def _of_block(self, output_BQX: Tensor, target_BMX: Tensor) -> dict[str, Tensor]:
        count = self.value.box_numbers
        logits, boxes = output_BQX[..., :-count], output_BQX[..., -count:]
        sample, query, item = match(logits.detach(), boxes.detach(), target_BMX, self.value)
        wanted = torch.full(logits.shape[:2], logits.shape[-1] - 1, device=logits.device)
        wanted[sample, query] = target_BMX[sample, item, 0].long()
        weight = logits.new_ones(logits.shape[-1])
        weight[-1] = NO_OBJECT * min(1, MANY_QUERIES / logits.shape[1])
        predicted, true = boxes[sample, query], target_BMX[sample, item, 1:]
        count = max(1, len(sample))
        overlap = self.value.box_overlap(predicted, true)
        return {
            "loss/class": CLASS_COST * F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight),
            "loss/box": BOX_COST * self.value.box_distance(predicted, true).sum() / count,
            "loss/overlap": OVERLAP_COST * (1 - overlap).sum() / count,
        }


def match(logits_BQK: Tensor, boxes_BQP: Tensor, target_BMX: Tensor, value: Detected) -> tuple[Tensor, Tensor, Tensor]:
    """Matches predicted to true boxes at the lowest total cost, by the Hungarian method.

    Returns:
        Sample, predicted box and true box of every pair, (n,) each. Every true box is in one pair, unless a sample has more than Q.

    Raises:
        MaskweaveError: SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MaskweaveError("learning boxes needs SciPy; install it with: pip install 'maskweave[eval]'") from error

    classes_BM, true_BMP = target_BMX[..., 0].long(), target_BMX[..., 1:].float()
    probability = logits_BQK.float().softmax(dim=-1)
    cost_BQM = -CLASS_COST * probability.gather(2, classes_BM.clamp(min=0)[:, None].expand(-1, logits_BQK.shape[1], -1))
    predicted_BQ1P, true_B1MP = boxes_BQP.float()[:, :, None], true_BMP[:, None]
    cost_BQM = cost_BQM + BOX_COST * value.box_distance(predicted_BQ1P, true_B1MP)
    overlap = value.box_overlap(predicted_BQ1P, true_B1MP)
    # One copy from the device for all samples; -1 marks padding in the last row.
    rows = torch.cat([cost_BQM - OVERLAP_COST * overlap, target_BMX[:, None, :, 0]], dim=1).cpu().numpy()
    pairs = []
    for b, row in enumerate(rows):
        real = np.flatnonzero(row[-1] >= 0)
        query, item = linear_sum_assignment(row[:-1, real])
        pairs.append(np.stack([np.full(len(query), b), query, real[item]]))
    found = torch.from_numpy(np.concatenate(pairs, axis=1)).to(target_BMX.device, non_blocking=True)
    return found[0], found[1], found[2]
