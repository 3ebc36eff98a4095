"""Training a tokenizer: reconstruct the value through its codes, by a loss that suits the value type.

Codebook use is watched all along, since a collapsed codebook (https://arxiv.org/abs/1711.00937 and many after it) shows late elsewhere.

Dimension letters: B batch, C channels, K classes, V codes.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.data.batches import ValueBatch
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.quantizers.collectives import all_reduce_sum

SMOOTH = 0.1
"""Smooth L1: errors below this, where the range is [-1, 1], count as squares."""
MEMORY = 0.98
"""Decay of the codes' counts, per batch: use is that of about the last fifty batches."""
WARM_UP = 200
"""Batches before a low use counts as collapse."""
COLLAPSED = 0.05


class TokenizerObjective(nn.Module):
    """Reconstruction loss plus the quantizer's own.

    The metrics are `reconstruction`, `quantizer`, `perplexity` (e to the entropy of recent use: about how many codes are in equal use) and
    `codebook_use` (share of the codes seen in recent batches, 0 to 1).
    """

    counts: Tensor
    batches: Tensor

    def __init__(self, tokenizer: GridTokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        loss = tokenizer.spec.loss
        self.kind = tokenizer.modality.losses[0] if loss == "auto" else loss
        self.register_buffer("counts", torch.zeros(tokenizer.vocabulary_size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, batch: ValueBatch) -> tuple[Tensor, dict[str, Tensor]]:
        output, target, quantized = self.tokenizer(batch.values)
        reconstruction = LOSSES[self.kind](output.float(), target)
        perplexity, use = self._use(quantized.ids)
        return reconstruction + quantized.loss, {
            "reconstruction": reconstruction.detach(),
            "quantizer": quantized.loss.detach(),
            "perplexity": perplexity,
            "codebook_use": use,
        }

    def warnings(self, metrics: Mapping[str, float | Tensor]) -> list[str]:
        """What somebody who watches the run should hear about, given its latest metrics."""
        use, size = float(metrics["codebook_use"]), self.tokenizer.vocabulary_size
        if int(self.batches) < WARM_UP or use >= COLLAPSED:
            return []
        return [
            f"{self.tokenizer.modality.name}: the codebook has collapsed, {use:.1%} of its {size} codes were in use lately; "
            "try another quantizer, fewer codes, or a lower learning rate"
        ]

    @torch.no_grad()
    def _use(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Perplexity and use over recent batches, of all processes; the heads of one latent count together."""
        counts = torch.bincount(ids.flatten(), minlength=len(self.counts)).to(self.counts)
        if self.training:
            (counts,) = all_reduce_sum(counts)
            self.counts.mul_(MEMORY).add_(counts)
            self.batches.add_(1)
            counts = self.counts
        share = counts / counts.sum().clamp_min(1)
        entropy = -(share * share.clamp_min(1e-12).log()).sum()
        return entropy.exp(), (counts > MEMORY**50).float().mean()


def cosine(output: Tensor, target: Tensor) -> Tensor:
    """1 - cos of the angle between directions, (B, 3, *size) each; those of the target have length 1."""
    length = output.square().sum(1).clamp_min(1e-12).sqrt()
    return 1 - ((output * target).sum(1) / length).mean()


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of (B, K, *size) with classes weighted by the inverse root of their frequency in the batch: small objects count."""
    frequency_K = torch.bincount(target.flatten(), minlength=logits.shape[1]).float() / target.numel()
    weight_K = frequency_K.clamp_min(1e-4).rsqrt()
    return F.cross_entropy(logits, target, weight=weight_K)


def balanced_binary(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with targets -1 and 1, the rarer side weighted by the fourth root of the ratio: full balance would thicken thin lines."""
    truth = (target > 0).float()
    share = truth.mean().clamp(1e-3, 1 - 1e-3)
    return F.binary_cross_entropy_with_logits(logits, truth, pos_weight=((1 - share) / share) ** 0.25)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "smooth_l1": lambda output, target: F.smooth_l1_loss(output, target, beta=SMOOTH),
    "cosine": cosine,
    "cross_entropy": balanced_cross_entropy,
    "binary": balanced_binary,
}
