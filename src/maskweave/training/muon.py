"""Muon for the matrices of blocks, with AdamW for all other parameters.

Muon (https://kellerjordan.github.io/posts/muon/) takes the momentum of a matrix and replaces its singular values by about 1. Updates are scaled to
the size of AdamW's, so that learning rate and weight decay are those of AdamW (https://arxiv.org/abs/2502.16982). Same as `torch.optim.Muon`, but
matrices of one shape are computed together, and steps can be skipped on a GPU without waiting for it.

Dimension letters: K matrices, R rows, C columns.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.nn.cpu import has_bf16_instructions, this_processor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration."""
ITERATIONS = 5
SCALE = 0.2
"""Root mean square of AdamW's updates, relative to the learning rate."""
TOGETHER = 2**26
"""Most numbers of matrices that are computed together."""


def update(group: dict[str, Any], state: Any, gradients: dict[Tensor, Tensor], keep: Tensor | None) -> None:
    """Updates the matrices of a parameter group that have a gradient.

    Args:
        state: of the optimizer, by parameter.
        keep: bool scalar; where it is False, nothing changes. None: True.
    """
    for matrices in _of_one_shape([p for p in group["params"] if p in gradients]):
        for p in matrices:
            if "momentum_buffer" not in state[p]:
                # torch's AdamW wants a step in every state that it loads.
                state[p] |= {"momentum_buffer": torch.zeros_like(p), "step": torch.zeros((), device=p.device)}
        means, found = [state[p]["momentum_buffer"] for p in matrices], [gradients[p] for p in matrices]
        if keep is not None:
            found = [torch.where(keep, g, mean) for g, mean in zip(found, means, strict=True)]
        torch._foreach_add_([state[p]["step"] for p in matrices], 1)
        torch._foreach_lerp_(means, found, 1 - MOMENTUM)
        updates = orthogonalized(torch.stack(torch._foreach_lerp(found, means, MOMENTUM))).to(matrices[0].dtype)
        rate = group["lr"] if keep is None else group["lr"] * keep
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        torch._foreach_sub_(matrices, list((updates * (rate * SCALE * max(matrices[0].shape) ** 0.5)).unbind()))


def _of_one_shape(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for p in parameters:
        by_shape.setdefault(p.shape, []).append(p)
    for shape, found in by_shape.items():
        most = max(1, TOGETHER // shape.numel())
        yield from (found[start : start + most] for start in range(0, len(found), most))


def orthogonalized(matrices_KRC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Returns matrices with the same singular vectors and singular values of about 1, 0.7 to 1.2.

    Args:
        dtype: of the products; None: bfloat16 where it is fast, else float32.
    """
    if dtype is None:
        fast = matrices_KRC.device.type != "cpu" or has_bf16_instructions(this_processor())
        dtype = torch.bfloat16 if fast else torch.float32
    is_tall = matrices_KRC.shape[1] > matrices_KRC.shape[2]
    x = matrices_KRC.to(dtype)
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def matrices_of_blocks(objective: nn.Module) -> set[int]:
    """Returns the ids of the matrices in blocks, the members of module lists.

    Raises:
        MaskweaveError: parameters are sharded over processes.
    """
    blocks = [p for m in objective.modules() if isinstance(m, nn.ModuleList) for p in m.parameters()]
    if any(hasattr(p, "device_mesh") for p in blocks):
        raise MaskweaveError(
            "optimizer muon needs whole matrices, but the parameters are sharded over processes; set optimizer to adamw, or parallel to ddp"
        )
    return {id(p) for p in blocks if p.ndim == 2}
