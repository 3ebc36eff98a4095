"""Masked multimodal modeling: predict the sampled target tokens. 4M (https://arxiv.org/abs/2312.06647), section 2.2."""

from typing import Literal

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.batch import TokenBatch
from maskweave.models.fourm import FourM
from maskweave.objectives.cross_entropy import cross_entropy

Loss = Literal["mod", "token"]


class FourMObjective(nn.Module):
    """Cross-entropy of the targets.

    Args:
        loss: `mod` averages the means of the modalities, so modalities with many tokens do not dominate; `token` averages over all targets.
    """

    def __init__(self, model: FourM, loss: Loss = "mod"):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and, per modality, the mean cross-entropy (`loss/NAME`) and in evaluation mode the accuracy (`accuracy/NAME`).

        Raises:
            MaskweaveError: the batch has no targets.
        """
        labels = batch.labels.flatten()
        means: list[Tensor] = []
        weights: list[int] = []
        metrics: dict[str, Tensor] = {}
        for names, slots, logits in self.model(batch).values():
            answers = labels[slots]
            sizes = [len(batch.targets.index[name]) for name in names]
            losses = cross_entropy(logits, answers).split(sizes)
            means += [part.mean() for part in losses]
            weights += sizes
            metrics |= {f"loss/{name}": part.detach().mean() for name, part in zip(names, losses, strict=True)}
            if not self.training:  # costs a tenth of a training step
                right = (logits.argmax(dim=-1) == answers).float().split(sizes)
                metrics |= {f"accuracy/{name}": hits.mean() for name, hits in zip(names, right, strict=True)}
        if not means:
            raise MaskweaveError(
                "the batch has no targets: raise model.masking.target_tokens, or use modalities that can be predicted"
            )
        stacked = torch.stack(means)
        if self.loss == "mod":
            return stacked.mean(), metrics
        share = stacked.new_tensor(weights)
        return (stacked * share).sum() / share.sum(), metrics
