"""How a model is spread over processes so that it fits, and activation checkpointing."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import split_training
import torch
from stub_training import Linear, StubBatches
from torch import distributed, nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from maskweave.data.batches import ValueBatch
from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.nn.costs import training_costs
from maskweave.nn.layers import Block
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.training import parallel, preparing
from maskweave.training.blocks import blocks_of, checkpoint_activations, is_kept
from maskweave.training.checkpoints import model_tensors
from maskweave.training.distributed import DistContext, connect
from maskweave.training.hardware import compile_blocks
from maskweave.training.loop import fit
from maskweave.training.memory import (
    FITS,
    GATHERED_BLOCKS,
    GATHERED_BYTES,
    STATE_BYTES,
    Needs,
    ParallelPlan,
    choose_plan,
    needs_of,
)
from maskweave.training.parallel import devices_of
from maskweave.training.preparing import prepare
from maskweave.training.recipe import TokenizersSettings
from maskweave.training.settings import TrainSettings
from maskweave.training.shares import first_row, number_of_share
from maskweave.values.image import Image

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


def test_muon_has_whole_matrices() -> None:
    assert dataclasses.replace(NEEDS, by_muon=600).state(1) == STATE_BYTES * 1000 - 4 * 600
    settings = TrainSettings(optimizer="muon")
    assert choose_plan(NEEDS, settings, 1.0, 8, 4) == ParallelPlan("ddp", 1, "none")
    for divides in ("fsdp", "hybrid"):
        with pytest.raises(
            MaskweaveError, match=f"parallel is {divides}.*set optimizer to adamw, or parallel to ddp or auto"
        ):
            TrainSettings(optimizer="muon", parallel=divides)  # type: ignore[arg-type]
    objective, batches = split_training.build("m3ae", 8)
    muon, adamw = (
        needs_of(objective, batches[0], one, objective.count(batches[0]))  # type: ignore[operator]
        for one in (settings, TrainSettings())
    )
    assert adamw.by_muon == 0 < muon.by_muon < muon.parameters - muon.outside


def test_blocks_may_stay_gathered() -> None:
    objective = nn.Sequential(nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(5)))
    objective.forward = lambda batch: objective[0][0](batch).sum()  # type: ignore[method-assign,index,operator]
    for precision, weight in (("float32", 4), ("bf16", 2)):
        kept, freed = (
            needs_of(objective, torch.ones(2, 8), TrainSettings(precision=precision, reshard_after_forward=frees))  # type: ignore[arg-type]
            for frees in (False, True)
        )
        assert kept.state(4) - freed.state(4) == weight * 64 * (5 - GATHERED_BLOCKS), "two are gathered in any case"
        assert kept.state(1) == freed.state(1)


@pytest.mark.parametrize("per_machine", [None, "2"])
def test_hybrid_must_know_the_machines(per_machine: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gathers(DistContext):
        def gather(self, value: Any) -> list[Any]:
            return [value] * self.world

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    four = Gathers(0, 4, torch.device("cpu"))
    if per_machine:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", per_machine)
        assert devices_of(four, "hybrid") == (math.inf, 2)
        return
    with pytest.raises(MaskweaveError, match="LOCAL_WORLD_SIZE, the number of processes on each machine, is missing"):
        devices_of(four, "hybrid")
    assert devices_of(four, "fsdp") == devices_of(four, "auto") == (math.inf, 4)
    assert devices_of(Gathers(0, 1, torch.device("cpu")), "hybrid") == (math.inf, 1)


@pytest.mark.parametrize("counted", [True, False])
def test_auto_says_if_memory_could_not_be_estimated(
    counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Looks(Linear):
        def forward(self, batch: Any) -> Any:
            return super().forward(batch) if counted or batch.x.sum().item() < math.inf else None

    monkeypatch.setattr(parallel, "memory_of", lambda _: 80e9)
    settings = TrainSettings(steps=1, batch_size=8, device="cpu", activation_checkpointing="auto")
    fit(Looks(), StubBatches(), settings, tmp_path)
    told = "activation_checkpointing is none" + ("\n" if counted else ", because its memory could not be estimated\n")
    assert told in capsys.readouterr().err


def test_memory_is_counted_with_a_batch_that_has_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "memory_of", lambda _: 80e9)
    counted = []
    monkeypatch.setattr(preparing, "needs_of", lambda objective, batch, *_: counted.append(batch) or NEEDS)
    objective, batches = split_training.build("mod", 4)
    has = [bool(batches[i].targets.index) for i in range(8)]
    first = has.index(True)

    class Shifted:
        """Starts with batches without targets."""

        def __getitem__(self, index: int) -> Any:
            return batches[has.index(False) if index < 2 else first]

    settings = TrainSettings(batch_size=4, device="cpu", activation_checkpointing="auto")
    prepare(objective, Shifted(), settings, connect("cpu"))
    assert len(counted) == 1 and counted[0].targets.index


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


QUANTIZERS = [
    Quantizer("fsq", levels=(5, 4)),
    Quantizer("vq", codes=32, dim=8),
    Quantizer("vq", codes=32, dim=8, codebook="simvq"),
    Quantizer("lfq", codes=32),
    Quantizer("memcodes", codes=32, dim=8),
    Quantizer("residual", codes=16, dim=8),
    Quantizer("residual", over="fsq", levels=(5, 3)),
]


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: f"{q.type}-{q.codebook}-{q.over}")
def test_tokenizers_with_checkpointed_activations_are_equal(quantizer: Quantizer) -> None:
    """Also where the forward pass moves a codebook, which a second computation would move again."""
    assert {q.type for q in QUANTIZERS} == set(get_args(get_type_hints(Quantizer)["type"]))
    spec = TokenizerSpec(width=16, heads=2, depth=1, decoder_depth=1, quantizer=quantizer)
    modality = Modality("probe", 1, "grid", Image((16, 16), 3), grid=(4, 4), tokenizer=spec)
    found = []
    for mode in ("none", "full", "selective"):
        torch.manual_seed(0)
        objective = TokenizerObjective(GridTokenizer(modality)).train()
        optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
        values, losses = torch.Generator().manual_seed(1), []
        with checkpoint_activations(objective, mode):
            for _ in range(4):
                loss, _ = objective(ValueBatch("probe", torch.rand(4, 3, 16, 16, generator=values)))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
        found.append([*losses, *objective.state_dict().values()])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


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
    with checkpoint_activations(objective, "full"):
        less = training_costs(objective, batch, objective.count(batch)).activations  # type: ignore[operator]
    one_block = (costs.activations - less) / 2
    assert kept["full"] == pytest.approx(2 * (less + one_block)), "one block at a time has all of its own again"


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


class Computed(TorchDispatchMode):
    """Counts the operators that are computed: those that `selective` keeps, and one of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kept += is_kept(func)
        self.activations += func is torch.ops.aten.silu.default
        return func(*args, **(kwargs or {}))


def test_selective_computes_again_what_is_cheap() -> None:
    found = {}
    for mode in ("none", "selective", "full"):
        with Computed() as found[mode]:
            gradients(stack := Stack(), checkpoint_activations(stack, mode))
    assert [one.activations for one in found.values()] == [3, 6, 6], "of each block, and again"
    assert 0 < found["none"].kept == found["selective"].kept < found["full"].kept, "no product and no attention"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointed_blocks_are_compiled(mode: str) -> None:
    plain, less = Stack().eval(), Stack().eval()
    expected = gradients(plain, contextlib.nullcontext())
    compile_blocks(less)
    for a, b in zip(gradients(less, checkpoint_activations(less, mode)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shards", "row", "writes"), [(4, 12, 3), (2, 8, None)])
def test_hybrid_divides_among_the_processes_of_a_machine(shards: int, row: int, writes: int | None) -> None:
    """As the last of four processes, on two machines with two shards, which has what the second one writes. Its messages are not sent. Always as the
    same one, because torch remembers its place."""
    distributed.init_process_group("fake", rank=3, world_size=4, store=FakeStore())
    try:
        divided = parallel.shard(Stack(), DistContext(3, 4, torch.device("cpu")), shards, TrainSettings())
        tensors = model_tensors(divided)
        found = {(first_row(t), *t.to_local().shape) for t in tensors.values() if t.shape == (16, 16)}  # type: ignore[arg-type]
        assert found == {(row, 16 // shards, 16)}
        assert number_of_share(tensors, is_main=False) == (writes, shards)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(("device", "kind", "searches"), [("cuda", "mod", False), ("cuda", "seldom", True)])
def test_ddp_searches_the_graph_where_unused_parameters_are_not_known(
    device: str, kind: str, searches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(parallel, "DistributedDataParallel", lambda _, **options: found.update(options))
    parallel.wrap(split_training.build(kind, 4)[0], DistContext(0, 2, torch.device(device, 0)))
    assert found["find_unused_parameters"] == searches and found["device_ids"] == [0]
    assert found["broadcast_buffers"] is False, "no message besides the gradients"
