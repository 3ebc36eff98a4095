"""Rates of hardware, the pace of a training, skipped updates, early stopping and batches in one buffer, at their limits."""

import dataclasses
import math
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.training import hardware, pace
from maskweave.training.blocks import _has_state, blocks_of, checkpoint_activations, is_kept
from maskweave.training.early_stopping import Best, EarlyStopping
from maskweave.training.hardware import gpu_named, gpu_of, memory_of, peak_flops, torch_threads
from maskweave.training.one_copy import ALIGNMENT, in_one_buffer, to_device
from maskweave.training.pace import Pace, largest_product
from maskweave.training.skipped import Skipped
from maskweave.training.split_record import claim_splits


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA H200", "h200"), ("NVIDIA B200", "b200"), ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A10", "a10"), ("NVIDIA L40S", "l40s"), ("NVIDIA L4", "l4"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("NVIDIA GeForce RTX 3080", None), ("NVIDIA A1000", None),
    ],
)  # fmt: skip
def test_cards_are_known_by_the_words_of_their_names(card: str, name: str | None) -> None:
    assert gpu_of(card) == (None if name is None else gpu_named(name.upper()))


def test_rates_of_the_data_sheets() -> None:
    h100 = gpu_named("h100")
    assert (h100.peak("bf16"), h100.peak("float32"), h100.memory) == (989e12, 67e12, 80e9)
    with pytest.raises(MaskweaveError, match="unknown GPU 'x'; known: b200, h200, "):
        gpu_named("x")


def test_the_fastest_of_several_products_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock says 2, 1 and 4 seconds for three products of 2 · 3 · 5 · 7 operations; the first one prepares."""
    seconds = iter([0.0, 0, 9, 11, 12, 20, 21, 22, 30, 34, 99])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(hardware, "MEASURED_SECONDS", 50.0)
    products: list[Any] = []
    monkeypatch.setattr(torch, "mm", lambda a, b: products.append((a.shape, b.shape, a.dtype)))
    assert peak_flops(torch.device("cpu"), "bf16", (3, 5, 7)) == 2 * 3 * 5 * 7 / 1
    assert products == [((3, 5), (5, 7), torch.bfloat16)] * 4


def test_threads_are_those_of_before() -> None:
    assert torch.get_num_threads() == 1
    with torch_threads(2):
        assert torch.get_num_threads() == 2
        with torch_threads(0):
            assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1 and memory_of(torch.device("cpu")) == math.inf


def test_the_product_with_the_most_weights() -> None:
    layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(6, 9), nn.ReLU())
    assert largest_product(layers) == (4, 8), "two of them have 64, more than 54"
    assert largest_product(nn.ReLU()) == (256, 256)


@dataclasses.dataclass
class Batch:
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)


class Counting(nn.Module):
    budgets = {"inputs": 10, "targets": 20}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def count(self, batch: Batch) -> dict[str, int]:
        return {}


def test_the_pace_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "training_costs", lambda *_: types.SimpleNamespace(flops=8e6))
    peaks: list[Any] = []
    monkeypatch.setattr(pace, "peak_flops", lambda device, precision, shape: peaks.append((precision, shape)) or 1e9)
    monkeypatch.setattr(pace, "peak_memory", lambda device: 3 * 2**29)
    ranks: Any = types.SimpleNamespace(is_main=True, world=2, device=torch.device("cpu"))
    measured = Pace(Counting(), ranks, "bf16")
    assert not measured.is_counted
    counts = {"samples": 4, "inputs/a": 12, "inputs/b": 8, "targets/a": 16, "other": 99}
    update: Any = types.SimpleNamespace(
        batches=[Batch(torch.zeros(4, 3))], counts=[counts], totals={**counts, "samples": 8}
    )
    measured.count(update)
    assert measured.is_counted and peaks == [("bf16", (36, 3, 5))]
    measured.add(update)
    measured.add(update)
    line = measured.metrics(seconds=4.0, waited=1.5)
    assert line == {
        "samples_per_second": 4.0, "tokens_per_second": 18.0, "share_of_peak": 16 / 4 / 2 * 8e6 / 4 / 1e9,
        "fill/inputs": 40 / (16 * 10), "fill/targets": 32 / (16 * 20), "seconds_waiting_for_data": 1.5, "memory_gib": 1.5,
    }  # fmt: skip
    assert measured.metrics(2.0, 2.0) == {
        "samples_per_second": 0.0, "seconds_waiting_for_data": 0.5, "memory_gib": 1.5, "share_of_peak": 0.0,
    }  # fmt: skip
    assert Pace(Counting(), types.SimpleNamespace(is_main=False), "bf16").is_counted  # type: ignore[arg-type]
    assert Pace(nn.Linear(1, 1), ranks, "bf16").is_counted


def test_updates_without_targets_end_a_training_after_100() -> None:
    skipped = Skipped()
    for _ in range(99):
        skipped.note_targets(False)
    skipped.note_targets(True)
    for _ in range(99):
        skipped.note_targets(False)
    with pytest.raises(MaskweaveError, match="the last 100 updates had no targets"):
        skipped.note_targets(False)
    for finite in (False, True, False, False):
        skipped.note_finite(finite)
    assert skipped.state() == {
        "without_targets": 199,
        "nonfinite": 3,
        "without_targets_in_a_row": 100,
        "nonfinite_in_a_row": 2,
    }
    assert (
        skipped.metrics() == {"skipped/without_targets": 199.0, "skipped/nonfinite": 3.0} and Skipped().metrics() == {}
    )


def test_the_best_validation() -> None:
    settings, best = EarlyStopping(patience=2, min_delta=0.5), Best()
    assert best.state() == {"step": 0, "loss": None, "waited": 0}
    found = [
        best.update(step, loss, settings) for step, loss in ((1, 3.0), (2, 2.5), (3, 2.4), (4, 2.0), (5, math.nan))
    ]
    assert found == [True, False, True, False, False] and best == Best(3, 2.4, 2)
    assert best.is_over(settings) and not best.is_over(EarlyStopping(patience=3)) and not best.is_over(None)
    assert Best.from_state(best.state()) == best and Best.from_state({"step": 3}) == Best(3)
    for wrong in ({"patience": 0}, {"min_delta": -0.1}, {"min_delta": math.inf}, {"min_delta": math.nan}):
        with pytest.raises(MaskweaveError):
            EarlyStopping(**wrong)  # type: ignore[arg-type]
    assert EarlyStopping(1, 0.0).patience == 1


@dataclasses.dataclass
class Mixed:
    a: Tensor
    parts: dict[str, Any]
    more: list[Any]
    name: str = "x"

    def to(self, device: torch.device) -> "Mixed":
        return dataclasses.replace(self, name="moved")


def test_a_batch_in_one_buffer() -> None:
    batch = Mixed(
        torch.arange(5),
        {"b": torch.ones(3, 2, dtype=torch.bool), "none": None},
        [torch.tensor(7.0), [torch.zeros(2, 0)]],
    )
    made = in_one_buffer(batch, pin=False)
    assert made.name == "x" and made.parts["none"] is None
    pairs = [
        (made.a, batch.a),
        (made.parts["b"], batch.parts["b"]),
        (made.more[0], batch.more[0]),
        (made.more[1][0], batch.more[1][0]),
    ]
    assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)
    places = [x.storage_offset() * x.itemsize for x, _ in pairs]
    assert places == [0, ALIGNMENT, 2 * ALIGNMENT, 3 * ALIGNMENT] and ALIGNMENT == 64
    assert len({x.untyped_storage().data_ptr() for x, _ in pairs}) == 1
    assert made.a.untyped_storage().nbytes() == 3 * ALIGNMENT
    wide = in_one_buffer([torch.zeros(65, dtype=torch.uint8), torch.ones(1)], pin=False)
    assert wide[1].storage_offset() * 4 == 128
    assert in_one_buffer({"x": 3}, pin=False) == {"x": 3}
    assert to_device(batch, torch.device("cpu")).name == "moved", "it is there already"
    there = to_device(made, torch.device("meta"))
    assert there.a.device.type == "meta" and there.a.shape == (5,) and there.name == "moved"


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.GELU()), nn.BatchNorm1d(4)])
        self.inner = nn.ModuleDict({"more": nn.ModuleList([nn.Linear(4, 4)])})

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in (*self.blocks, *self.inner["more"]):
            x = block(x)
        return x


@pytest.mark.parametrize("mode", ["full", "selective", "none"])
def test_blocks_are_computed_again_and_give_the_same(mode: str) -> None:
    torch.manual_seed(0)
    module, x = Blocks(), torch.randn(6, 4)
    assert blocks_of(module) == [*module.blocks, *module.inner["more"]]
    assert [_has_state(block) for block in blocks_of(module)] == [False, True, False]
    module(x).square().sum().backward()
    expected = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    with checkpoint_activations(module, mode):
        changed = ["forward" in vars(block) for block in blocks_of(module)]
        module(x).square().sum().backward()
    assert changed == ([True, False, True] if mode != "none" else [False] * 3)
    assert not any("forward" in vars(block) for block in blocks_of(module))
    found = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert is_kept(torch.ops.aten.addmm.default) and not is_kept(torch.ops.aten.gelu.default)


def test_splits_are_recorded_by_their_hash(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    claim_splits(run, {"data": {"split": {"file": str(tmp_path / "none")}}}, True)
    claim_splits(run, {}, True)
    assert not (run / "splits.json").exists()
    (tmp_path / "a").write_text("abc", encoding="utf-8")
    recipe = {"data": {"split": {"file": str(tmp_path / "a")}, "mix": {"x": {"split": None}}}}
    claim_splits(run, recipe, True)
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", from FIPS 180-2
    assert read_json(run / "splits.json") == {str(tmp_path / "a"): digest}
