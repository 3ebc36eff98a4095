"""The set loss of DETR (https://arxiv.org/abs/2005.12872): each true box is matched to one predicted box; the others should predict no object.

Boxes are given as center, width and height or as two corners, always from 0 to 1.
Dimension letters: B samples, Q predicted boxes, M true boxes at most, K classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskweave.errors import MaskweaveError

CLASS_COST, BOX_COST, OVERLAP_COST = 1.0, 5.0, 2.0
"""Weights of the class, the coordinate distance and the generalized IoU, both for matching and in the loss."""
NO_OBJECT = 0.1
"""Class weight of queries without a match; it is low because most queries have none."""


class SetLoss:
    """Loss of the outputs of `BoxHead`, summed over its blocks. The metrics are those of the last block."""

    def __call__(self, output: Tensor, target_BM5: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            output: (depth, B, Q, K + 1 + 4), the output of `BoxHead`.
            target_BM5: class and box; class -1 is padding.

        Returns:
            The loss, and the metrics `loss/class`, `loss/box` and `loss/overlap`.
        """
        losses = [self._of_block(block, target_BM5) for block in output]
        total = torch.stack([sum(parts.values(), parts["loss/class"].new_zeros(())) for parts in losses]).sum()
        return total, {name: part.detach() for name, part in losses[-1].items()}

    def _of_block(self, output_BQX: Tensor, target_BM5: Tensor) -> dict[str, Tensor]:
        logits, boxes = output_BQX[..., :-4], output_BQX[..., -4:]
        sample, query, item = match(logits.detach(), boxes.detach(), target_BM5)
        wanted = torch.full(logits.shape[:2], logits.shape[-1] - 1, device=logits.device)
        wanted[sample, query] = target_BM5[sample, item, 0].long()
        weight = logits.new_ones(logits.shape[-1])
        weight[-1] = NO_OBJECT
        predicted, true = boxes[sample, query], target_BM5[sample, item, 1:]
        count = max(1, len(sample))
        overlap = generalized_overlap(corners(predicted), corners(true))
        return {
            "loss/class": CLASS_COST * F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight),
            "loss/box": BOX_COST * (predicted - true).abs().sum() / count,
            "loss/overlap": OVERLAP_COST * (1 - overlap).sum() / count,
        }


def match(logits_BQK: Tensor, boxes_BQ4: Tensor, target_BM5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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

    classes_BM, true_BM4 = target_BM5[..., 0].long(), target_BM5[..., 1:].float()
    probability = logits_BQK.float().softmax(dim=-1)
    cost_BQM = -CLASS_COST * probability.gather(2, classes_BM.clamp(min=0)[:, None].expand(-1, logits_BQK.shape[1], -1))
    cost_BQM = cost_BQM + BOX_COST * torch.cdist(boxes_BQ4.float(), true_BM4, p=1)
    overlap = generalized_overlap(corners(boxes_BQ4)[:, :, None], corners(true_BM4)[:, None])
    # One copy from the device for all samples; -1 marks padding in the last row.
    rows = torch.cat([cost_BQM - OVERLAP_COST * overlap, target_BM5[:, None, :, 0]], dim=1).cpu().numpy()
    pairs = []
    for b, row in enumerate(rows):
        real = np.flatnonzero(row[-1] >= 0)
        query, item = linear_sum_assignment(row[:-1, real])
        pairs.append(np.stack([np.full(len(query), b), query, real[item]]))
    found = torch.from_numpy(np.concatenate(pairs, axis=1)).to(target_BM5.device, non_blocking=True)
    return found[0], found[1], found[2]


def corners(boxes: Tensor) -> Tensor:
    """Converts (…, 4) center, width and height to xmin, ymin, xmax, ymax."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def generalized_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Generalized intersection over union of boxes given as corners, from -1 to 1 (https://arxiv.org/abs/1902.09630)."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(dim=-1)

    inner = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    outer = area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - inner
    return inner / union.clamp(min=1e-9) - (outer - union) / outer.clamp(min=1e-9)
