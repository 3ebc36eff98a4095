"""How a model is spread over processes so that it fits, and activation checkpointing."""

import contextlib
import math
from typing import Any

import pytest
import split_training
import torch
from torch import nn

from maskweave.errors import MaskweaveError
from maskweave.nn.costs import training_costs
from maskweave.nn.layers import Block
from maskweave.training.blocks import blocks_of, checkpoint_activations, is_kept
from maskweave.training.hardware import compile_blocks
from maskweave.training.memory import FITS, GATHERED_BYTES, STATE_BYTES, Needs, ParallelPlan, choose_plan, needs_of
from maskweave.training.recipe import TokenizersSettings
from maskweave.training.settings import TrainSettings

NEEDS = Needs(1000, 100, 50, False, {"none": 8000.0, "selective": 4000.0, "full": 1000.0})
DIVIDED = GATHERED_BYTES * (100 + 2 * 50)


def test_what_a_device_holds() -> None:
    assert NEEDS.state(1) == STATE_BYTES * 1000
    assert NEEDS.state(4) == STATE_BYTES * 250 + DIVIDED
    assert Needs(1000, 0, 0, True, {}).state(1) == (STATE_BYTES + 4) * 1000
    assert NEEDS.total(ParallelPlan("fsdp", 4, "full")) == STATE_BYTES * 250 + DIVIDED + 1000


@pytest.mark.parametrize(
    ("parallel", "checkpointing", "memory", "world", "per_machine", "found"),
    [
        ("auto", "none", math.inf, 1, 1, ParallelPlan("none", 1, "none")),
        ("fsdp", "full", 1.0, 1, 1, ParallelPlan("none", 1, "full")),
        ("auto", "auto", math.inf, 8, 8, ParallelPlan("ddp", 1, "none")),
        ("auto", "none", 24_000, 8, 4, ParallelPlan("ddp", 1, "none")),
        ("auto", "none", 23_999, 8, 4, ParallelPlan("hybrid", 4, "none")),
        ("auto", "none", 23_999, 8, 8, ParallelPlan("fsdp", 8, "none")),
        ("auto", "none", 13_599, 8, 4, ParallelPlan("fsdp", 8, "none")),
        ("auto", "auto", 11_000, 8, 4, ParallelPlan("hybrid", 4, "selective")),
        ("auto", "auto", 8_000, 8, 4, ParallelPlan("fsdp", 8, "selective")),
        ("auto", "auto", 7_000, 8, 4, ParallelPlan("hybrid", 4, "full")),
        ("auto", "auto", 1.0, 8, 4, ParallelPlan("fsdp", 8, "full")),
        ("ddp", "auto", 1.0, 8, 4, ParallelPlan("ddp", 1, "full")),
        ("hybrid", "none", 1.0, 8, 4, ParallelPlan("hybrid", 4, "none")),
        ("hybrid", "none", 1.0, 8, 8, ParallelPlan("fsdp", 8, "none")),
        ("hybrid", "none", 1.0, 8, 1, ParallelPlan("ddp", 1, "none")),
    ],
)
def test_the_first_layout_that_fits_is_chosen(
    parallel: Any, checkpointing: Any, memory: float, world: int, per_machine: int, found: ParallelPlan
) -> None:
    settings = TrainSettings(parallel=parallel, activation_checkpointing=checkpointing)
    assert choose_plan(NEEDS, settings, memory / FITS, world, per_machine) == found


def test_tokenizers_are_not_divided() -> None:
    assert TokenizersSettings(train=TrainSettings(activation_checkpointing="full")).train.parallel == "auto"
    with pytest.raises(MaskweaveError, match="train.parallel is fsdp, but a tokenizer is trained by one process"):
        TokenizersSettings(train=TrainSettings(parallel="fsdp"))


class Stack(nn.Module):
    """Blocks with dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(Block(16, 2, gated=True), nn.Dropout(0.2)) for _ in range(3))

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x_BND = block(x_BND)
        return x_BND.square().mean()


def gradients(model: nn.Module, context: contextlib.AbstractContextManager[None]) -> list[torch.Tensor]:
    torch.manual_seed(1)
    with context:
        loss = model(torch.randn(2, 5, 16))
        loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointed_activations_change_no_bit(mode: str) -> None:
    plain, less = Stack(), Stack()
    expected = gradients(plain, contextlib.nullcontext())
    found = gradients(less, checkpoint_activations(less, mode))
    assert len(found) == len(expected) > 20
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all("forward" not in vars(block) for block in less.blocks), "as before"


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("kind", ["mod", "m3ae"])
def test_trainings_with_checkpointed_activations_are_equal(kind: str, mode: str) -> None:
    found = []
    for how in ("none", mode):
        objective, batches = split_training.build(kind, 4)
        with checkpoint_activations(objective, how):
            for i in range(3):
                loss, _ = objective(batches[i])
                if loss.requires_grad:
                    loss.backward()
        found.append({name: p.grad for name, p in objective.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    assert all(torch.equal(g, found[1][name]) for name, g in found[0].items())


def test_less_is_kept() -> None:
    objective, batches = split_training.build("mod", 8)
    batch = next(batches[i] for i in range(9) if batches[i].targets.index)
    needs = needs_of(objective, batch, TrainSettings(batch_size=16), objective.count(batch))  # type: ignore[operator]
    kept = needs.activations
    assert kept["full"] < kept["selective"] < kept["none"]
    costs = training_costs(objective, batch, objective.count(batch))  # type: ignore[operator]
    assert kept["none"] == 2 * costs.activations, "for 16 samples instead of 8"
    blocks = [sum(p.numel() for p in block.parameters()) for block in blocks_of(objective)]
    assert (len(blocks), needs.largest_block) == (2, max(blocks))
    assert needs.outside == needs.parameters - sum(blocks) > 0


def test_what_selective_keeps_is_counted() -> None:
    """The inputs of the blocks and the outputs of their products: of a product alone, one of each."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 16, bias=False), nn.GELU(), nn.Tanh())])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](x)

    found = {}
    for mode in ("none", "selective", "full"):
        with checkpoint_activations(product := Product(), mode):
            found[mode] = training_costs(product, torch.ones(10, 8), keeps=is_kept if mode == "selective" else None)[1]
    assert found == {"none": 4 * 10 * (8 + 16 + 16), "selective": 4 * 10 * (8 + 16), "full": 4 * 10 * 8}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointed_blocks_are_compiled(mode: str) -> None:
    plain, less = Stack().eval(), Stack().eval()
    expected = gradients(plain, contextlib.nullcontext())
    compile_blocks(less)
    for a, b in zip(gradients(less, checkpoint_activations(less, mode)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
