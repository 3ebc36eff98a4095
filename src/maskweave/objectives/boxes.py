"""The set loss of DETR (https://arxiv.org/abs/2005.12872): each true box is matched to one predicted box; the others should predict no object.

Boxes are given as center, width and height or as two corners, always from 0 to 1.
Dimension letters: B samples, Q predicted boxes, M true boxes at most, K classes.
"""

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

    probability = logits_BQK.float().softmax(dim=-1)
    pairs = []
    for b, target_M5 in enumerate(target_BM5):
        real = (target_M5[:, 0] >= 0).nonzero()[:, 0]
        target = target_M5[real]
        cost = -CLASS_COST * probability[b][:, target[:, 0].long()]
        cost = cost + BOX_COST * torch.cdist(boxes_BQ4[b].float(), target[:, 1:].float(), p=1)
        overlap = generalized_overlap(corners(boxes_BQ4[b])[:, None], corners(target[:, 1:])[None])
        query, item = linear_sum_assignment((cost - OVERLAP_COST * overlap).cpu().numpy())
        sample = torch.full((len(query),), b)
        pairs.append(torch.stack([sample, torch.from_numpy(query), real.cpu()[torch.from_numpy(item)]]))
    sample, query, item = torch.cat(pairs, dim=1).to(target_BM5.device)
    return sample, query, item


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
