"""LoRA, https://arxiv.org/abs/2106.09685: a frozen linear layer learns a correction of low rank, W + scale · B A.

A starts at random and B at zero, so that nothing changes at first. Afterwards the correction is added to the weights for good.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.nn.cpu import Linear
from maskweave.nn.layers import MLP, Attention


class LoRALinear(nn.Linear):
    """A linear layer with a correction; its own weights keep their names and do not train.

    Args:
        base: taken over, not copied.
        rank: of the correction.
        alpha: the correction is multiplied by alpha / rank.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that computes the same."""
        plain = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = nn.Parameter(self.weight + self.scale * self.lora_b @ self.lora_a)
        plain.bias = self.bias
        return plain.requires_grad_(True)


def add_lora(module: nn.Module, rank: int, alpha: float, mlp: bool = False) -> None:
    """Freeze `module` and give the linear layers of its attention a correction, in place.

    Args:
        mlp: those of its MLPs too.
    """
    module.requires_grad_(False)
    for part in list(module.modules()):
        if isinstance(part, Attention) or (mlp and isinstance(part, MLP)):
            for name, layer in list(part.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(part, name, LoRALinear(layer, rank, alpha))


def merge_lora(module: nn.Module) -> None:
    """Put plain layers with the corrected weights in place of all corrections."""
    for part in list(module.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, LoRALinear):
                setattr(part, name, layer.merged())
