"""Masked multimodal modeling: predict the sampled target tokens. 4M (https://arxiv.org/abs/2312.06647), section 2.2."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.batch import TokenBatch
from maskweave.models.fourm import FourM
from maskweave.objectives.cross_entropy import cross_entropy, smoothed_cross_entropy

Loss = Literal["mod", "token"]


class FourMObjective(nn.Module):
    """Cross-entropy of the targets.

    Args:
        loss: `mod` averages the means of the modalities, so modalities with many tokens do not dominate; `token` averages over all targets.
        smoothing: (R + 1,) weights of the ids around a target's, by modality; see `ValueType.target_smoothing`. Others have one right id.
    """

    def __init__(self, model: FourM, loss: Loss = "mod", smoothing: Mapping[str, np.ndarray] | None = None):
        super().__init__()
        self.model = model
        self.loss = loss
        self._smoothed = {name: f"smoothing_{i}" for i, name in enumerate(smoothing or {})}
        for name, buffer in self._smoothed.items():
            self.register_buffer(buffer, torch.from_numpy((smoothing or {})[name]), persistent=False)

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
            # Grids share their logits with no other modality.
            if kernel := self._smoothed.get(names[0]):
                losses = smoothed_cross_entropy(logits, answers, self.get_buffer(kernel)).split(sizes)
            else:
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
