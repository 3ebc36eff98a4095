"""Fine-tuning: an encoder and a head learn to predict one target. 4M (https://arxiv.org/abs/2312.06647), section 4.

Layer-wise learning rate decay as in BEiT (https://arxiv.org/abs/2106.08254): the head has the full rate, and each earlier block a lower one.
"""

from collections.abc import Callable

from torch import Tensor, nn

from maskweave.masking.inputs import TransferBatch
from maskweave.models.encoder import Encoder

TaskLoss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


class TransferObjective(nn.Module):
    """Loss of the head's predictions.

    Args:
        loss: computes loss and metrics from the head's output and the batch's target.
        layer_decay: learning rate of each block relative to the block after it; 1: the same rate for all.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, loss: TaskLoss, layer_decay: float = 1.0):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.loss, self.layer_decay = loss, layer_decay

    def forward(self, batch: TransferBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(self.head(self.encoder(batch.inputs)._replace(raw=batch.raw)), batch.target)

    def rate_factors(self) -> dict[str, float]:
        """Returns the learning rate factor of each encoder parameter: 1 for the last norm and for new inputs, decay for the last block, decay²
        for the block before it, and so on down to the embeddings."""
        decay, blocks = self.layer_decay, self.encoder.blocks
        factor = {id(p): decay ** (len(blocks) - i) for i, block in enumerate(blocks) for p in block.parameters()}
        factor |= {id(p): 1.0 for p in self.encoder.model.encoder_norm.parameters()}
        factor |= {id(p): 1.0 for p in self.encoder.new_parameters()}
        lowest = decay ** (len(blocks) + 1)
        return {f"encoder.{name}": factor.get(id(p), lowest) for name, p in self.encoder.named_parameters()}
