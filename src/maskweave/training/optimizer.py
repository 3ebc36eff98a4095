"""AdamW (https://arxiv.org/abs/1711.05101), alone or with Muon, the learning rate schedule, and the moving average of the weights."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from maskweave.training import muon
from maskweave.training.settings import TrainSettings

LARGE = 2048
"""Smallest number of rows of an embedding table that `lazy_embeddings` updates by row; for smaller tables it is no faster."""
_UNDECAYED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Returns the learning rate of the update after `step` updates: linear warm-up, then the schedule (half a cosine, or constant)."""
    warmup = round(settings.warmup * settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    share = min(1.0, (step - warmup) / max(1, settings.steps - 1 - warmup))
    final = settings.final_learning_rate
    return settings.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share)))


def trained(objective: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trainable parameters by name. A shared parameter is listed once, under its first name."""
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}


class AdamW(torch.optim.AdamW):
    """Fused AdamW. For sparse gradients it updates only the rows with a gradient and leaves the other rows and their moments unchanged."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        sparse = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.grad.is_sparse:
                    sparse.append((group, p, p.grad.coalesce()))
                    p.grad = None
        loss = super().step(closure)
        skips = getattr(self, "found_inf", None)  # as for torch's fused kernel
        if sparse and skips is not None and bool(skips):
            return loss
        for group, p, gradient in sparse:
            self._update_rows(group, p, gradient.indices()[0], gradient.values())
        return loss

    def _update_rows(self, group: dict[str, Any], p: Tensor, rows: Tensor, gradient: Tensor) -> None:
        state = self.state[p]
        if not state:
            state |= {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
        state["step"] += 1
        step, rate, (beta1, beta2) = state["step"].item(), group["lr"], group["betas"]
        mean = state["exp_avg"][rows].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"][rows].lerp_(gradient.square(), 1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        denominator = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        p[rows] = (
            p[rows].mul_(1 - rate * group["weight_decay"]).addcdiv_(mean, denominator, value=-rate / (1 - beta1**step))
        )


class MuonAdamW(AdamW):
    """Muon (`maskweave.training.muon`) for the groups with `muon: True`, AdamW for the others."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        groups = [group for group in self.param_groups if group["muon"]]
        gradients = {}
        for p in (p for group in groups for p in group["params"] if p.grad is not None):
            gradients[p], p.grad = p.grad, None
        loss = super().step(closure)
        skips = getattr(self, "found_inf", None)
        for group in groups:
            muon.update(group, self.state, gradients, None if skips is None else skips == 0)
        return loss


def gradient_parts(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Returns the gradients that are set; for sparse ones, their rows."""
    parts = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
            parts.append(p.grad.values())
        elif p.grad is not None:
            parts.append(p.grad)
    return parts


def clip_gradients(parts: list[Tensor], norm: Tensor, most: float, may_wait: bool = False) -> None:
    """Scales gradients of total norm `norm` to at most `most`, in place, like `nn.utils.clip_grad_norm_`.

    Args:
        may_wait: look at the norm and leave short gradients alone, because a product by 1 would read and write all of them. A GPU would be waited for.
    """
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    if not may_wait or scale != 1:
        torch._foreach_mul_(parts, scale)


def build_optimizer(objective: nn.Module, settings: TrainSettings) -> tuple[AdamW, list[str]]:
    """Returns AdamW over the trainable parameters, with Muon for the matrices of blocks if the settings ask for it, and the parameters' names in
    the optimizer's order.

    The objective may have a method `rate_factors() -> dict[str, float]`: learning rate factors of single parameters by name.

    Biases, norms, embeddings and vectors have no weight decay. A parameter counts as an embedding if its module is an embedding, if its name
    contains "embedding", or if its module lists it in `undecayed` (learned positions and tokens). It counts as a vector if at most one of its
    dimensions is longer than 1.
    """
    undecayed = {
        id(p) for module in objective.modules() if isinstance(module, _UNDECAYED) for p in module.parameters(False)
    }
    undecayed |= {
        id(getattr(module, name)) for module in objective.modules() for name in getattr(module, "undecayed", ())
    }
    factors: dict[str, float] = getattr(objective, "rate_factors", dict)()
    matrices = muon.matrices_of_blocks(objective) if settings.optimizer == "muon" else set()
    groups: dict[tuple[bool, float, bool], dict[str, nn.Parameter]] = {}
    for name, p in trained(objective).items():
        is_vector = sum(size > 1 for size in p.shape) < 2
        leaf = name.rpartition(".")[2]
        decays = not (is_vector or id(p) in undecayed or leaf.endswith("bias") or "embedding" in leaf)
        groups.setdefault((decays, factors.get(name, 1.0), decays and id(p) in matrices), {})[name] = p
    if settings.lazy_embeddings:
        _use_sparse_gradients(objective)
    optimizer = (MuonAdamW if settings.optimizer == "muon" else AdamW)(
        [
            {
                "params": list(group.values()),
                "weight_decay": settings.weight_decay if decays else 0.0,
                "rate_factor": factor,
                "muon": by_muon,
            }
            for (decays, factor, by_muon), group in sorted(groups.items())
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        fused=True,  # also on CPU: 2 to 7 times as fast as foreach at the sizes measured
    )
    return optimizer, [name for _, group in sorted(groups.items()) for name in group]


def _use_sparse_gradients(objective: nn.Module) -> None:
    """Turns on sparse gradients for large embedding tables that are not shared with a head or another table."""
    owners = Counter(id(p) for module in objective.modules() for p in module.parameters(recurse=False))
    for module in objective.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings >= LARGE and owners[id(module.weight)] == 1:
            module.sparse = True


class Average:
    """Exponential moving average of the trained parameters.

    The decay rises as (1 + step) / (10 + step) up to `decay`, so that the average does not keep the random initialization in short runs.
    Buffers are not averaged: quantizers keep their own averages in them.
    """

    def __init__(self, objective: nn.Module, decay: float):
        self.decay = decay
        self.live = trained(objective)
        self.mean = {name: p.detach().clone() for name, p in self.live.items()}

    def update(self, step: int) -> None:
        """Adds the weights after `step` updates to the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.mean.values()), list(self.live.values()), step)

    @torch.no_grad()
    def swap(self) -> None:
        """Swaps the average and the current weights, in place and one by one, so that wrappers keep their references."""
        for name, p in self.live.items():
            current: Tensor = p.detach().clone()
            p.copy_(self.mean[name])
            self.mean[name].copy_(current)
