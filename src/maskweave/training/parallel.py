"""How a model is spread over the processes of a training, applied from outside to single-device code.

`ddp`: each process has the whole model; gradients are averaged. `fsdp`: parameters, gradients and the optimizer's state are divided among the
processes, and the parameters of each block are gathered while it computes (FSDP2, https://arxiv.org/abs/2304.11277). `hybrid`: divided among the
processes of a machine, and equal on all machines, which sends less between them.

Under `fsdp` and `hybrid` all processes must call the sharded module equally often, forward and backward, because each call gathers parameters.
"""

import copy
import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from maskweave.errors import MaskweaveError
from maskweave.training.blocks import blocks_of
from maskweave.training.distributed import DistContext
from maskweave.training.hardware import memory_of
from maskweave.training.settings import TrainSettings


def devices_of(ranks: DistContext, parallel: str) -> tuple[float, int]:
    """Returns the bytes of the smallest memory of a process's device, and the number of processes on each machine. All processes must call it.

    Args:
        parallel: the setting. Only `hybrid` needs to be told the number; otherwise, all processes are on one machine if they are not.

    Raises:
        MaskweaveError: the machines have different numbers of processes, or `hybrid` was not told the number.
    """
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    memories, numbers = zip(*ranks.gather([memory_of(ranks.device), per_machine]), strict=True)
    if not all(numbers):
        if parallel == "hybrid" and ranks.world > 1:
            raise MaskweaveError(
                "train.parallel is hybrid, but the environment variable LOCAL_WORLD_SIZE, the number of processes on each machine, is missing; "
                "set it, as torchrun does, or set train.parallel to fsdp"
            )
        numbers = (ranks.world,)
    if len(set(numbers)) > 1:
        found = ", ".join(str(number) for number in sorted(set(numbers)))
        raise MaskweaveError(f"the machines have {found} processes of this training; start equally many on each")
    return min(memories), min(numbers[0], ranks.world)


def shard(objective: nn.Module, ranks: DistContext, shards: int, settings: TrainSettings) -> nn.Module:
    """Returns a copy of `objective` of whose parameters this process holds its share, and frees those of `objective`, which become empty ("meta").

    All processes must call it. The values are those of the first process.

    Args:
        shards: the parameters are divided among so many processes, one after another; if there are more, the next ones hold the same.

    Raises:
        MaskweaveError: torch is older than 2.13, and there are several processes.
    """
    can_differ = hasattr(FSDPModule, "set_reduce_scatter_unused_params")
    if not can_differ and ranks.world > 1:  # processes use different embeddings and heads
        raise MaskweaveError(
            f"torch is {torch.__version__}, but models can be divided (train.parallel fsdp or hybrid) with 2.13 or newer; upgrade torch, or set train.parallel to ddp"
        )
    parts = [*objective.parameters(), *objective.buffers()]
    ranks.broadcast(parts)
    sharded = copy.deepcopy(objective, {id(part): part for part in parts})  # other modules with the same tensors
    _replace_parameters(objective, lambda p: torch.empty_like(p, device="meta"))
    mesh = _mesh(ranks, shards)
    # Weights are gathered in bfloat16, while the residual stream stays in float32, as autocast has it. On a CPU, autocast has no norms of mixed types.
    halved = settings.precision == "bf16" and ranks.device.type == "cuda"
    policy = MixedPrecisionPolicy(torch.bfloat16 if halved else None, torch.float32, cast_forward_inputs=False)
    for block in blocks_of(sharded):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=settings.reshard_after_forward)
    # All others in one group, so that it does not matter which embeddings and heads a batch uses, and tied ones stay together.
    root = fully_shard(sharded, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    if can_differ:
        root.set_reduce_scatter_unused_params(True)
    return sharded


def unshard(sharded: nn.Module, objective: nn.Module) -> None:
    """Gives `objective` the values of the copy that `shard` made of it, in main memory. All processes must call it."""
    drop_gathered(sharded)
    names = {id(p): name for name, p in objective.named_parameters()}
    trained = dict(sharded.named_parameters())
    _replace_parameters(objective, lambda p: whole(trained[names[id(p)]].detach()).cpu())
    for (_, buffer), (_, trained_buffer) in zip(objective.named_buffers(), sharded.named_buffers(), strict=True):
        buffer.data = trained_buffer.data.cpu()


def _replace_parameters(module: nn.Module, replace: Callable[[nn.Parameter], Tensor]) -> None:
    """Replaces each parameter; one that several modules share stays shared."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            if id(p) not in made:
                made[id(p)] = nn.Parameter(replace(p), p.requires_grad)
            setattr(part, name, made[id(p)])


def _mesh(ranks: DistContext, shards: int) -> DeviceMesh:
    if shards == ranks.world:
        return init_device_mesh(ranks.device.type, (shards,), mesh_dim_names=("shard",))
    return init_device_mesh(ranks.device.type, (ranks.world // shards, shards), mesh_dim_names=("replicate", "shard"))


def is_sharded(module: nn.Module) -> bool:
    return isinstance(module, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor that may be divided among the processes as a whole. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def drop_gathered(module: nn.Module) -> None:
    """Frees gathered parameters that a forward pass without a backward pass has left, so that the next pass sees changes of the weights."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def wrap(objective: nn.Module, ranks: DistContext) -> nn.Module:
    """Returns a module to call instead of the objective in training; it averages gradients over the processes.

    Under `ddp`, parameters without a gradient in any process get zeros if the objective has a method `unused_parameters`, and None otherwise,
    which takes a search of the graph and a message more in each step; of a sharded objective they always get zeros. On a CPU the graph is always
    searched, as a resumed run must end equal bit for bit: without the search, DDP regroups the gradients after the first step, and so changes the
    order in which those of three or more processes are added. Buffers are equal at the start; after that the objective keeps them equal.
    """
    if ranks.world == 1 or is_sharded(objective):
        return objective
    declares = hasattr(objective, "unused_parameters")
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
    no_buffers: dict[str, Any] = {name: False}
    return DistributedDataParallel(
        _Connected(objective) if declares else _Detached(objective),
        device_ids=[ranks.device.index] if ranks.device.type == "cuda" else None,
        find_unused_parameters=not declares or ranks.device.type == "cpu",
        gradient_as_bucket_view=True,
        **no_buffers,
    )


def accumulating(wrapped: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Context of a batch's forward and backward pass. Before the last batch of an update, DDP does not average gradients; of a sharded module, each
    process always gets its share of the sum, because it has no memory for whole gradients, but `hybrid` averages them between machines at the end."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_all_reduce(is_last)
    elif isinstance(wrapped, DistributedDataParallel) and not is_last:
        return wrapped.no_sync()
    return nullcontext()


class _Detached(nn.Module):
    """The objective with detached metrics. Otherwise DDP would wait for gradients that never come."""

    def __init__(self, objective: nn.Module):
        super().__init__()
        self.objective = objective

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.objective(*arguments)
        return loss, {name: value.detach() for name, value in metrics.items()}


class _Connected(_Detached):
    """The objective with a loss that every parameter is connected to, so that DDP gets a gradient for each, if only an empty one."""

    def __init__(self, objective: nn.Module):
        super().__init__(objective)
        self.trained = [p for p in objective.parameters() if p.requires_grad]

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().forward(*arguments)
        return _Connect.apply(loss, *self.trained), metrics


class _Connect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (upstream[0], *[None] * ctx.parameters)
