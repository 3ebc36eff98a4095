"""FLOPs and memory of a training step, counted on torch's meta device, which computes nothing."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

BACKWARD = 2
"""FLOPs of a backward pass relative to the forward pass."""
BF16_SHARE = 0.55
"""Memory of the activations in bf16 relative to float32. Inputs of norms and the residual stream stay in float32."""


class _Outputs(TorchDispatchMode):
    """Calls `keep` with the outputs of the operators that `keeps` names."""

    def __init__(self, keep: Callable[[Tensor], Tensor], keeps: Callable[[Any], bool]):
        super().__init__()
        self.keep, self.keeps = keep, keeps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if self.keeps(func):
            for t in found if isinstance(found, tuple) else (found,):
                if isinstance(t, Tensor):
                    self.keep(t)
        return found


class Costs(NamedTuple):
    """Costs of one batch in training."""

    flops: int
    """Of matrix products and attention, forward and backward; a multiplication and an addition are two."""
    activations: int
    """Bytes that the forward pass keeps for the backward pass, in float32."""


def training_costs(
    objective: nn.Module, batch: Any, *arguments: Any, keeps: Callable[[Any], bool] | None = None
) -> Costs:
    """Counts the costs of `objective(batch, *arguments)`. None of them is changed.

    Args:
        keeps: whether the outputs of an operator are kept, besides what autograd keeps; for selective activation checkpointing.
    """
    named = [*objective.named_parameters(), *objective.named_buffers()]
    tensors = {name: torch.empty_like(t, device="meta").requires_grad_(t.requires_grad) for name, t in named}
    own = {t.untyped_storage()._cdata for t in tensors.values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        kept[storage._cdata] = storage
        return t

    with (
        torch.compiler.set_stance("force_eager"),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        FlopCounterMode(display=False) as counter,
        _Outputs(keep, keeps) if keeps is not None else nullcontext(),
    ):
        functional_call(objective, tensors, (batch.to("meta"), *arguments))
    saved = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    return Costs((1 + BACKWARD) * counter.get_total_flops(), saved)
