"""Training a tokenizer: reconstruct the value from its codes, with a loss that depends on the value type.

Codebook use is monitored during training because other metrics show a collapsed codebook only late (https://arxiv.org/abs/1711.00937).

Dimension letters: B batch, C channels, K classes, V codes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.data.batches import ValueBatch
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.quantizers.base import count_ids
from maskweave.tokenizers.quantizers.collectives import all_reduce_sum
from maskweave.values.losses import mse

MEMORY = 0.98
"""Decay of the code counts per batch: use is measured over about the last fifty batches."""
WARM_UP = 200
"""Batches before low use counts as collapse."""
COLLAPSED = 0.05
"""Share of codes in use below which a codebook counts as collapsed."""


class TokenizerObjective(nn.Module):
    """Reconstruction loss plus quantizer loss.

    If unknown points are predicted, the cross-entropy of the validity logits is added. The metrics are `reconstruction`, `quantizer`, `perplexity` (exponential of the entropy of recent use: the effective number of codes)
    and `codebook_use` (share of codes seen in recent batches, 0 to 1).
    """

    counts: Tensor
    batches: Tensor

    def __init__(self, tokenizer: GridTokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        name, losses = tokenizer.spec.loss, tokenizer.modality.value.losses
        name = next(iter(losses)) if name == "auto" else name
        self.loss = tokenizer.modality.value.known_loss(mse if tokenizer.spec.diffusion is not None else losses[name])
        self.register_buffer("counts", torch.zeros(tokenizer.quantizer.entries))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, batch: ValueBatch) -> tuple[Tensor, dict[str, Tensor]]:
        output, target, quantized, validity = self.tokenizer(batch.values)
        weight = () if batch.weights is None else (batch.weights,)
        reconstruction = self.loss(output.float(), target, *weight)
        total, more = reconstruction + quantized.loss, {}
        if validity is not None:
            loss = F.binary_cross_entropy_with_logits(validity.float(), (~target.isnan()).float())
            total, more = total + loss, {"validity": loss.detach()}
        perplexity, use = self._use(quantized.ids)
        return total, {
            "reconstruction": reconstruction.detach(),
            **more,
            "quantizer": quantized.loss.detach(),
            "perplexity": perplexity,
            "codebook_use": use,
        }

    def warnings(self, metrics: Mapping[str, float | Tensor]) -> list[str]:
        """Returns warnings for the user, given the latest metrics."""
        use, size = float(metrics["codebook_use"]), self.tokenizer.quantizer.entries
        if int(self.batches) < WARM_UP or use >= COLLAPSED:
            return []
        return [
            f"{self.tokenizer.modality.name}: the codebook has collapsed, {use:.1%} of its {size} codes were in use lately; "
            "try another quantizer, fewer codes, or a lower learning rate"
        ]

    @torch.no_grad()
    def _use(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Perplexity and use over recent batches of all processes. All heads or levels of a latent are counted together."""
        quantizer = self.tokenizer.quantizer
        known = ids < quantizer.size  # the id behind them stands for unknown points
        entries = quantizer.entries_of(ids.clamp(max=quantizer.size - 1))
        counted = known[..., None].expand_as(entries) if entries.ndim > ids.ndim else known
        counts = count_ids(entries, len(self.counts), counted).to(self.counts)
        if self.training:
            (counts,) = all_reduce_sum(counts)
            self.counts.mul_(MEMORY).add_(counts)
            self.batches.add_(1)
            counts = self.counts
        share = counts / counts.sum().clamp_min(1)
        entropy = -(share * share.clamp_min(1e-12).log()).sum()
        return entropy.exp(), (counts > MEMORY**50).float().mean()
