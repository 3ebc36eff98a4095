"""The blocks of a model, to which compilation, activation checkpointing and sharding are applied one by one."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


def blocks_of(objective: nn.Module) -> list[nn.Module]:
    """Returns the members of the outermost module lists: parts of a model that are called one after another, once for each batch."""
    found: list[nn.Module] = []
    for child in objective.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found


@contextlib.contextmanager
def checkpoint_activations(objective: nn.Module, mode: str) -> Iterator[None]:
    """Context in which the blocks of `objective` keep less for the backward pass and compute the rest again (https://arxiv.org/abs/1604.06174).

    Losses and gradients are the same, bit for bit: the second computation has the random numbers of the first one. Blocks that may change buffers of
    their own, such as a level of a quantizer, are computed once: the second computation would see the changed ones.

    Args:
        mode: `full` keeps the inputs of each block; `selective` also keeps what is expensive to compute, the outputs of matrix products and of
            attention, and computes norms, activation functions and sums again; `none` keeps everything.
    """
    blocks = [block for block in blocks_of(objective) if not _has_state(block)] if mode != "none" else []
    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in blocks:
        # As an attribute of the instance, inside of hooks: names of parameters and the order of FSDP's hooks stay as they are.
        block.forward = partial(checkpoint, block.forward, **options)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _has_state(block: nn.Module) -> bool:
    """Whether there is anything but parameters that a checkpoint saves: buffers that training changes."""
    return len(block.state_dict()) > sum(1 for _ in block.named_parameters(remove_duplicate=False))


def is_kept(op: Any) -> bool:
    """Whether `selective` keeps the outputs of an operator of torch."""
    return op in _kept_operators()


def _policy(_: Any, op: Callable[..., Any], *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if is_kept(op) else CheckpointPolicy.PREFER_RECOMPUTE


@cache
def _kept_operators() -> set[Any]:
    names = [
        *("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product_flash_attention", "_scaled_dot_product_cudnn_attention"),
        *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention_for_cpu"),
        *("_scaled_dot_product_attention_math",),
    ]  # fmt: skip
    kept = {getattr(torch.ops.aten, name).default for name in names}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        kept.add(torch.ops.mkldnn._linear_pointwise.default)  # of `nn.cpu.Linear`
    return kept
