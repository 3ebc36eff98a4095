"""LoRA, https://arxiv.org/abs/2106.09685: a frozen linear layer learns a low-rank update, W + scale · B A.

A starts at random values and B at zero, so the layer's output does not change at first. After training the update is merged into the weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.nn.cpu import Linear
from maskweave.nn.layers import MLP, Attention


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank update. Its base weights keep their names and are frozen.

    Args:
        base: its weights are shared, not copied.
        rank: of the update.
        alpha: the update is multiplied by alpha / rank.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__(base.in_features, base.out_features, device="meta")
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
        """Returns a plain layer that computes the same."""
        plain = Linear(self.in_features, self.out_features, device="meta")
        plain.weight = nn.Parameter(self.weight + self.scale * self.lora_b @ self.lora_a)
        plain.bias = self.bias
        return plain.requires_grad_(True)


def add_lora(module: nn.Module, rank: int, alpha: float, mlp: bool = False) -> None:
    """Freezes `module` and adds a low-rank update to the linear layers of its attention, in place.

    Args:
        mlp: also to those of its MLPs.
    """
    module.requires_grad_(False)
    for part in list(module.modules()):
        if isinstance(part, Attention) or (mlp and isinstance(part, MLP)):
            for name, layer in list(part.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(part, name, LoRALinear(layer, rank, alpha))


def merge_lora(module: nn.Module) -> None:
    """Replaces all LoRA layers by plain layers with the merged weights, in place."""
    for part in list(module.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, LoRALinear):
                setattr(part, name, layer.merged())
