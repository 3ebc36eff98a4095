"""Masked multimodal modeling: predict the sampled target tokens. 4M (https://arxiv.org/abs/2312.06647), section 2.2."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.batch import TokenBatch
from maskweave.models.fourm import FourM
from maskweave.nn.linear_cross_entropy import Head, TokenLosses, by_chunks
from maskweave.objectives.cross_entropy import cross_entropy, smoothed_cross_entropy

Loss = Literal["mod", "token"]
NO_TARGETS = "the batch has no targets: raise model.masking.target_tokens, or use modalities that can be predicted"


class FourMObjective(nn.Module):
    """Cross-entropy of the targets.

    Args:
        loss: `mod` averages the means of the modalities, so modalities with many tokens do not dominate; `token` averages over all targets.
        smoothing: (R + 1,) weights of the ids around a target's, by modality; see `ValueType.target_smoothing`. Others have one right id.
        budgets: largest number of `inputs` and `targets` of a sample, to report how full they are; None: not reported.
    """

    def __init__(
        self,
        model: FourM,
        loss: Loss = "mod",
        smoothing: Mapping[str, np.ndarray] | None = None,
        budgets: Mapping[str, int] | None = None,
    ):
        super().__init__()
        self.model = model
        self.loss = loss
        self.budgets = dict(budgets or {})
        self._smoothed = {name: f"smoothing_{i}" for i, name in enumerate(smoothing or {})}
        for name, buffer in self._smoothed.items():
            self.register_buffer(buffer, torch.from_numpy((smoothing or {})[name]), persistent=False)

    def count(self, batch: TokenBatch) -> dict[str, int]:
        """Returns the numbers of input and target tokens of each modality, `inputs/NAME` and `targets/NAME`."""
        index = {"inputs": batch.inputs.index, "targets": batch.targets.index}
        return {f"{side}/{n}": len(index[side].get(n, ())) for side, names in self._sides().items() for n in names}

    def forward(self, batch: TokenBatch, totals: Mapping[str, float] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and, per modality, the mean cross-entropy (`loss/NAME`) and in evaluation mode the accuracy (`accuracy/NAME`).

        Args:
            totals: sums of `count` over all batches of an update. The loss is then this batch's share of the update's loss.

        Raises:
            MaskweaveError: the batch has no targets, and `totals` is not given.
        """
        if not batch.targets.index:
            if totals is None:
                raise MaskweaveError(NO_TARGETS)
            return batch.labels.new_zeros((), dtype=torch.float32), {}
        weights = self._weights(totals or self.count(batch))
        labels = batch.labels.flatten()
        shares: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        sizes = {name: len(index) for name, index in batch.targets.index.items()}

        def read(head: Head, names: list[str], slots: Tensor, rows_nD: Tensor) -> Tensor | TokenLosses:
            if names[0] in self._smoothed or not by_chunks(len(slots), head):
                return head(rows_nD)
            return head(rows_nD[: len(slots)], labels[slots], [(sizes[name], weights[name]) for name in names])

        for names, slots, found in self.model(batch, read).values():
            counts = [sizes[name] for name in names]
            losses_n, is_right_n, total = self._losses(names, found, labels[slots])
            parts = losses_n.split(counts)
            shares += (
                [weights[n] * part.sum() for n, part in zip(names, parts, strict=True)] if total is None else [total]
            )
            metrics |= {f"loss/{name}": part.detach().mean() for name, part in zip(names, parts, strict=True)}
            if is_right_n is not None:
                hits = is_right_n.float().split(counts)
                metrics |= {f"accuracy/{name}": part.mean() for name, part in zip(names, hits, strict=True)}
        return torch.stack(shares).sum(), metrics

    def _losses(
        self, names: list[str], found: Tensor | TokenLosses, answers_n: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns the losses (n,) of a head's predictions, in evaluation mode also which are right, and their weighted sum if it is known."""
        if isinstance(found, TokenLosses):
            return found.losses_n, None if self.training else found.is_right_n, found.total
        # Grids share their logits with no other modality.
        if kernel := self._smoothed.get(names[0]):
            losses_n = smoothed_cross_entropy(found, answers_n, self.get_buffer(kernel))
        else:
            losses_n = cross_entropy(found, answers_n)
        # Accuracies cost a tenth of a training step.
        return losses_n, None if self.training else found[: len(answers_n)].argmax(dim=-1) == answers_n, None

    def unused_parameters(self, totals: Mapping[str, float]) -> list[nn.Parameter]:
        """Returns the parameters that only modalities without tokens in an update would use."""
        there = {side: [n for n in names if totals[f"{side}/{n}"]] for side, names in self._sides().items()}
        used = {id(p) for p in self.model.parameters_of(**there)}
        return [p for p in self.model.parameters_of(**self._sides()) if id(p) not in used]

    def _sides(self) -> dict[str, list[str]]:
        return {"inputs": self.model.input_names, "targets": self.model.target_names}

    def _weights(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Weight of each target token, by modality."""
        targets = {name: n for name in self.model.target_names if (n := totals[f"targets/{name}"])}
        if self.loss == "mod":
            return {name: 1 / (n * len(targets)) for name, n in targets.items()}
        return dict.fromkeys(targets, 1 / sum(targets.values()))
