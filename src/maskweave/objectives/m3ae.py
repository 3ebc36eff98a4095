"""Masked autoencoding: reconstruct masked patches and text tokens. M3AE (https://arxiv.org/abs/2205.14204), section 3."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskedBatch, MaskedTokens
from maskweave.models.m3ae import M3AE

NORMALIZING_EPSILON = 1e-6
NOTHING_MASKED = "nothing is masked in the batch, so nothing can be learned: raise model.mask_ratio"


@dataclass(frozen=True)
class LossWeight:
    """Weight of each modality's loss, by kind."""

    patches: float = 1.0
    """Of the mean squared error of raw values."""
    sequence: float = 0.5
    """Of the cross-entropy of text and other sequences."""

    def __post_init__(self) -> None:
        if not min(self.patches, self.sequence) >= 0 or self.patches + self.sequence <= 0:
            raise MaskweaveError(
                f"loss_weight must be 0 or more, and not 0 for both kinds, found {self.patches} and {self.sequence}"
            )


class M3AEObjective(nn.Module):
    """Mean squared error of masked patches, cross-entropy of masked tokens.

    Args:
        weight: of the modalities' losses in the sum.
        normalized_patches: predict each patch relative to its own mean and standard deviation.
    """

    def __init__(self, model: M3AE, weight: LossWeight | None = None, normalized_patches: bool = False):
        super().__init__()
        self.model = model
        self.weight = weight or LossWeight()
        self.normalized_patches = normalized_patches

    def count(self, batch: MaskedBatch) -> dict[str, int]:
        """Returns for each modality the numbers of visible tokens `inputs/NAME`, of masked tokens `targets/NAME`, and of what its loss averages
        over, `loss/NAME`."""
        counts = {f"inputs/{name}": 0 for name in self.model.heads} | self._predicted(batch)
        for name, tokens in ((name, tokens) for group in batch.groups for name, tokens in group.parts.items()):
            visible = tokens.kept.numel() if tokens.visible is None else int(tokens.visible.sum())
            counts[f"inputs/{name}"] += visible
        return counts

    def _predicted(self, batch: MaskedBatch) -> dict[str, int]:
        """The counts of `targets` and `loss`, which follow from shapes, so that they do not wait for a GPU."""
        counts = {f"{what}/{name}": 0 for what in ("targets", "loss") for name in self.model.heads}
        for name, tokens in ((name, tokens) for group in batch.groups for name, tokens in group.parts.items()):
            counts[f"targets/{name}"] += len(tokens.targets)
            counts[f"loss/{name}"] += len(tokens.targets if tokens.content.ndim == 3 else tokens.content)
        return counts

    def forward(
        self, batch: MaskedBatch, totals: Mapping[str, float] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and, per modality, its loss (`loss/NAME`) and in evaluation mode the accuracy of tokens (`accuracy/NAME`).

        The loss of patches is the mean over all masked patches of the batch. The loss of sequences is the mean over the samples that have one
        of the mean over each sample's masked tokens.

        Args:
            totals: sums of `count` over all batches of an update. The loss is then this batch's share of the update's loss.

        Raises:
            MaskweaveError: nothing is masked, and `totals` is not given.
        """
        groups = [group.parts for group in batch.groups]
        if not any(len(tokens.targets) for parts in groups for tokens in parts.values()):
            if totals is None:
                raise MaskweaveError(NOTHING_MASKED)
            return torch.zeros((), device=self.model.class_token.device), {}
        counts = self._predicted(batch)
        by_name: dict[str, list[tuple[MaskedTokens, Tensor]]] = {}
        for parts, decoded in zip(groups, self.model.decode(groups), strict=True):
            for name, tokens in parts.items():
                if len(tokens.targets):
                    by_name.setdefault(name, []).append((tokens, decoded[name]))
        losses, metrics = [], {}
        for name, masked in by_name.items():
            # In float32: softmax over a large vocabulary overflows in 16 bits.
            restored = self.model.heads[name](torch.cat([_masked_rows(y, tokens) for tokens, y in masked])).float()
            target = torch.cat([_masked_rows(tokens.content, tokens) for tokens, _ in masked])
            if target.ndim == 2:
                total, weight = self._errors(restored, target).sum(), self.weight.patches
            else:
                counts_n = torch.cat([_masked_counts(tokens) for tokens, _ in masked])
                each_n = F.cross_entropy(restored, target, reduction="none")
                total, weight = (each_n / counts_n).sum(), self.weight.sequence
                if not self.training:
                    metrics[f"accuracy/{name}"] = (restored.argmax(dim=-1) == target).float().mean()
            metrics[f"loss/{name}"] = total.detach() / counts[f"loss/{name}"]
            losses.append(weight / (totals or counts)[f"loss/{name}"] * total)
        return torch.stack(losses).sum(), metrics

    def unused_parameters(self, totals: Mapping[str, float]) -> list[nn.Parameter]:
        """Returns the parameters that only modalities without tokens or masked tokens in an update would use."""
        there = {name: totals[f"inputs/{name}"] + totals[f"targets/{name}"] for name in self.model.heads}
        modules = [self.model.token_embedding[name] for name, tokens in there.items() if not tokens]
        modules += [self.model.heads[name] for name in there if not totals[f"targets/{name}"]]
        return [p for module in modules for p in module.parameters()]

    def _errors(self, restored_nC: Tensor, target_nC: Tensor) -> Tensor:
        """(n,) mean squared error of each masked patch."""
        if self.normalized_patches:
            mean, std = patch_statistics(target_nC)
            target_nC = (target_nC - mean) / std
        return (restored_nC - target_nC).square().mean(dim=1)


def patch_statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch (…, C), (…, 1) each, as in MAE (https://arxiv.org/abs/2111.06377)."""
    return rows.mean(dim=-1, keepdim=True), (rows.var(dim=-1, keepdim=True) + NORMALIZING_EPSILON).sqrt()


def _masked_rows(x_BL: Tensor, tokens: MaskedTokens) -> Tensor:
    """(n, …) the rows of `x_BL` (B, L, …) at the masked positions."""
    return x_BL.flatten(0, 1)[tokens.targets]


def _masked_counts(tokens: MaskedTokens) -> Tensor:
    """(n,) for each masked token, the number of masked tokens in its sample."""
    restored_BL = tokens.masked if tokens.present is None else tokens.masked & tokens.present
    return restored_BL.sum(dim=1)[tokens.targets // restored_BL.shape[1]]
