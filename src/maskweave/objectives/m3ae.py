"""Masked autoencoding: restore what is masked of pictures and texts. M3AE (https://arxiv.org/abs/2205.14204), section 3."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskedBatch, MaskedTokens
from maskweave.models.m3ae import M3AE

NORMALIZING_EPSILON = 1e-6


@dataclass(frozen=True)
class LossWeight:
    """Weight of each modality's loss, by kind."""

    patches: float = 1.0
    """Of the mean squared error of raw values."""
    sequence: float = 0.5
    """Of the cross-entropy of text and whatever else is written as text."""

    def __post_init__(self) -> None:
        if not min(self.patches, self.sequence) >= 0 or self.patches + self.sequence <= 0:
            raise MaskweaveError(
                f"loss_weight must be 0 or more, and not 0 for both kinds, found {self.patches} and {self.sequence}"
            )


class M3AEObjective(nn.Module):
    """Mean squared error of masked patches, cross-entropy of masked tokens.

    Args:
        weight: of the modalities' losses in the sum.
        normalized_patches: restore each patch relative to its own mean and deviation.
    """

    def __init__(self, model: M3AE, weight: LossWeight | None = None, normalized_patches: bool = False):
        super().__init__()
        self.model = model
        self.weight = weight or LossWeight()
        self.normalized_patches = normalized_patches

    def forward(self, batch: MaskedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each modality's own (`loss/NAME`) and, outside training, share of tokens restored rightly (`accuracy/NAME`).

        A modality's loss is a mean over all masked patches of the batch, or over its samples of the mean over their masked tokens.

        Raises:
            MaskweaveError: nothing is masked.
        """
        groups = [group.parts for group in batch.groups]
        if not any(len(tokens.targets) for parts in groups for tokens in parts.values()):
            raise MaskweaveError("nothing is masked in the batch, so nothing can be learned: raise model.mask_ratio")
        hiding: dict[str, list[tuple[MaskedTokens, Tensor]]] = {}
        for parts, decoded in zip(groups, self.model.decode(groups), strict=True):
            for name, tokens in parts.items():
                if len(tokens.targets):
                    hiding.setdefault(name, []).append((tokens, decoded[name]))
        losses, metrics = [], {}
        for name, found in hiding.items():
            # In 32 bits: a softmax over a large vocabulary overflows in 16.
            restored = self.model.heads[name](torch.cat([_hidden(y, tokens) for tokens, y in found])).float()
            wanted = torch.cat([_hidden(tokens.content, tokens) for tokens, _ in found])
            if wanted.ndim == 2:
                loss, weight = self._errors(restored, wanted).mean(), self.weight.patches
            else:
                counts_n = torch.cat([_hidden_of_sample(tokens) for tokens, _ in found])
                each_n = F.cross_entropy(restored, wanted, reduction="none")
                loss, weight = (each_n / counts_n).sum() / sum(len(t.content) for t, _ in found), self.weight.sequence
                if not self.training:
                    metrics[f"accuracy/{name}"] = (restored.argmax(dim=-1) == wanted).float().mean()
            metrics[f"loss/{name}"] = loss.detach()
            losses.append(weight * loss)
        return torch.stack(losses).sum(), metrics

    def _errors(self, restored_nC: Tensor, wanted_nC: Tensor) -> Tensor:
        """(n,) mean squared error of each masked patch."""
        if self.normalized_patches:
            mean, deviation = patch_statistics(wanted_nC)
            wanted_nC = (wanted_nC - mean) / deviation
        return (restored_nC - wanted_nC).square().mean(dim=1)


def patch_statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (…, C), each (…, 1), as MAE takes them (https://arxiv.org/abs/2111.06377)."""
    return rows.mean(dim=-1, keepdim=True), (rows.var(dim=-1, keepdim=True) + NORMALIZING_EPSILON).sqrt()


def _hidden(x_BL: Tensor, tokens: MaskedTokens) -> Tensor:
    """(n, …) what `x_BL`, (B, L, …), has at the places to be restored."""
    return x_BL.flatten(0, 1)[tokens.targets]


def _hidden_of_sample(tokens: MaskedTokens) -> Tensor:
    """(n,) for each token to be restored: how many its sample has of them."""
    restored_BL = tokens.masked if tokens.present is None else tokens.masked & tokens.present
    return restored_BL.sum(dim=1)[tokens.targets // restored_BL.shape[1]]
