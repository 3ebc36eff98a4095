"""Masked autoencoding: restore what is hidden of pictures and texts. M3AE (https://arxiv.org/abs/2205.14204), section 3."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.batch import MaskedBatch, MaskedTokens
from maskweave.data.hiding import MaskRatio
from maskweave.errors import MaskweaveError
from maskweave.model.m3ae import M3AE, M3AEConfig

NORMALISING_EPSILON = 1e-6


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


@dataclass(frozen=True)
class M3AESettings:
    """All that is set about masked autoencoding."""

    model: M3AEConfig = field(default_factory=M3AEConfig)
    mask_ratio: MaskRatio = field(default_factory=MaskRatio)
    loss_weight: LossWeight = field(default_factory=LossWeight)
    normalised_patches: bool = False
    """Restore each patch relative to its own mean and deviation, so that contrast counts more than brightness."""
    unpaired: float = 0.0
    """Share of samples whose modalities never appear together: each time one of them is shown alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.unpaired <= 1:
            raise MaskweaveError(f"unpaired must be a share from 0 to 1, found {self.unpaired}")


class M3AEObjective(nn.Module):
    """Mean squared error of hidden patches, cross-entropy of hidden tokens.

    Args:
        weight: of the modalities' losses in the sum.
        normalised_patches: restore each patch relative to its own mean and deviation.
    """

    def __init__(self, model: M3AE, weight: LossWeight | None = None, normalised_patches: bool = False):
        super().__init__()
        self.model = model
        self.weight = weight or LossWeight()
        self.normalised_patches = normalised_patches

    def forward(self, batch: MaskedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each modality's own (`loss/NAME`) and, outside training, share of tokens restored rightly (`accuracy/NAME`).

        A modality's loss is a mean over all hidden patches of the batch, or over its samples of the mean over their hidden tokens.

        Raises:
            MaskweaveError: nothing is hidden.
        """
        sums: dict[str, list[Tensor]] = {}
        counts: dict[str, int] = {}
        weights: dict[str, float] = {}
        hits: dict[str, list[Tensor]] = {}
        for group in batch.groups:
            decoded = self.model.decode(group.parts, self.model.encode(group.parts))
            for name, tokens in group.parts.items():
                if not len(tokens.targets):
                    continue
                # In 32 bits: a softmax over a large vocabulary overflows in 16.
                restored = self.model.heads[name](decoded[name].flatten(0, 1)[tokens.targets]).float()
                if tokens.content.ndim == 3:
                    total = self._errors(restored, tokens).sum()
                    count, weights[name] = len(restored), self.weight.patches
                else:
                    answers = tokens.content.flatten()[tokens.targets]
                    total = _sum_of_means(F.cross_entropy(restored, answers, reduction="none"), tokens)
                    count, weights[name] = len(tokens.content), self.weight.sequence
                    if not self.training:
                        hits.setdefault(name, []).append((restored.argmax(dim=-1) == answers).float())
                sums.setdefault(name, []).append(total)
                counts[name] = counts.get(name, 0) + count
        if not sums:
            raise MaskweaveError("nothing is hidden in the batch, so nothing can be learned: raise m3ae.mask_ratio")
        losses = {name: torch.stack(totals).sum() / counts[name] for name, totals in sums.items()}
        metrics = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        metrics |= {f"accuracy/{name}": torch.cat(found).mean() for name, found in hits.items()}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(), metrics

    def _errors(self, restored_nC: Tensor, tokens: MaskedTokens) -> Tensor:
        """(n,) mean squared error of each hidden patch."""
        wanted_nC = tokens.content.flatten(0, 1)[tokens.targets]
        if self.normalised_patches:
            mean, deviation = patch_statistics(wanted_nC)
            wanted_nC = (wanted_nC - mean) / deviation
        return (restored_nC - wanted_nC).square().mean(dim=1)


def patch_statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (…, C), each (…, 1), as MAE takes them (https://arxiv.org/abs/2111.06377)."""
    return rows.mean(dim=-1, keepdim=True), (rows.var(dim=-1, keepdim=True) + NORMALISING_EPSILON).sqrt()


def _sum_of_means(losses_n: Tensor, tokens: MaskedTokens) -> Tensor:
    """Sum over samples of the mean over their hidden tokens; 0 for a sample that hides none."""
    B, L = tokens.hidden.shape
    sample_n = tokens.targets // L
    hidden_B = losses_n.new_zeros(B).index_add(0, sample_n, torch.ones_like(losses_n))
    return (losses_n / hidden_B[sample_n]).sum()
