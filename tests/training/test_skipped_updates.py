"""Steps that cannot be taken: skipped, counted, and too many of them told."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Self

import pytest
import torch
from stub_training import BASE, Linear, StubBatch, StubBatches
from timeless import numbers
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.training.distributed import connect
from maskweave.training.loop import fit
from maskweave.training.metrics import read_metrics
from maskweave.training.optimizer import build_optimizer
from maskweave.training.preparing import prepare
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import NonFinite, Stepper
from maskweave.training.updates import Update

SETTINGS = TrainSettings(**{**BASE, "steps": 12, "accumulate": 1, "ema": 0.0, "log_every": 1, "skip_nonfinite": 2})


class Spoilt(StubBatches):
    """NaN in some batches."""

    def __init__(self, *bad: int):
        super().__init__()
        self.bad = bad

    def __getitem__(self, index: int) -> StubBatch:
        batch = super().__getitem__(index)
        if index in self.bad:
            batch.x[0, 0] = math.nan
        return batch


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Tensor] = []

    class Watched(Linear):
        def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(self.layer.weight.detach().clone())
            return super().forward(batch)

    fit(Watched(), Spoilt(3, 4, 7), SETTINGS, tmp_path / "whole")
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert [i for i, does in enumerate(changed) if not does] == [3, 4, 7]
    lines = read_metrics(tmp_path / "whole")
    assert [line["loss"] is None for line in lines] == [i in (3, 4, 7) for i in range(12)]
    assert "skipped/nonfinite" not in lines[2] and [line["skipped/nonfinite"] for line in lines[3:8]] == [1, 2, 2, 2, 3]
    told = capsys.readouterr().err
    assert "step 4: the loss is not finite, on a batch of sight, sound; the step was skipped" in told
    assert "step 5" not in told and "step 8: " in told, "the first of a row is told"
    half = dataclasses.replace(SETTINGS, steps=5, warmup=0.0, schedule="constant")
    for steps, folder in ((5, "parts"), (12, "parts"), (12, "at_once")):
        fit(Linear(), Spoilt(3, 4, 7), dataclasses.replace(half, steps=steps), tmp_path / folder)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "at_once"), "counts are resumed"


def test_no_spare_batch_spoils_other_steps() -> None:
    """What a process computes to keep up with the others must have a gradient of zero."""
    batches = Spoilt(1)
    state = prepare(Linear(), StubBatches(), SETTINGS, connect("cpu")).state
    stepper = Stepper(state, batches)
    spare, finite = stepper._spare, []
    for i in range(3):
        batch = batches[i]
        stepper(Update([batch], [{"samples": len(batch)}], {"samples": len(batch)}))
        loss = spare.loss(state.objective, batches, range(i, i + 1), torch.device("cpu"))
        loss.backward(torch.zeros_like(loss))
        finite.append(all(p.grad is not None and bool((p.grad == 0).all()) for p in state.objective.parameters()))
        state.optimizer.zero_grad()
    assert finite == [True] * 3 and state.skipped.nonfinite == 1


def test_more_in_a_row_stop_the_run(tmp_path: Path) -> None:
    words = r"step 7: the loss is not finite, on a batch of sight, sound; these were 3 in a row, and skip_nonfinite is 2; training stopped"
    with pytest.raises(NonFinite, match=words):
        fit(Linear(), Spoilt(1, 4, 5, 6, 9), SETTINGS, tmp_path / "whole")
    half = dataclasses.replace(SETTINGS, steps=6, warmup=0.0, schedule="constant")
    fit(Linear(), Spoilt(1, 4, 5, 6, 9), half, tmp_path / "parts")
    with pytest.raises(NonFinite, match="step 7"):  # the row goes on over a restart
        fit(Linear(), Spoilt(1, 4, 5, 6, 9), dataclasses.replace(half, steps=12), tmp_path / "parts")


def test_a_loss_that_is_not_finite_spoils_its_gradient(tmp_path: Path) -> None:
    class Shifted(Linear):
        def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
            loss, metrics = super().forward(batch)
            return loss + math.inf, metrics  # which alone leaves the gradient as it is

    with pytest.raises(NonFinite, match="step 1: the loss is not finite"):
        fit(Shifted(), StubBatches(), dataclasses.replace(SETTINGS, skip_nonfinite=0), tmp_path)


def test_the_optimizer_skips_by_itself_on_a_gpu() -> None:
    """As the loop asks for it there, without waiting; the fused kernel does the same on a CPU."""
    model = nn.Linear(3, 3)
    optimizer, _ = build_optimizer(model, SETTINGS)
    for bad in (0.0, 1.0, 0.0):
        before = [p.detach().clone() for p in model.parameters()]
        model(torch.ones(2, 3)).square().sum().backward()
        if bad:
            model.weight.grad[0, 0] = math.nan
        optimizer.found_inf = torch.tensor(bad)
        optimizer.step()
        optimizer.zero_grad()
        assert all(torch.equal(a, b) == bool(bad) for a, b in zip(before, model.parameters(), strict=True))
    assert all(state["step"] == 2 for state in optimizer.state.values())


@dataclasses.dataclass
class Part(StubBatch):
    """Samples of which the last `targets` can be learned from."""

    targets: int

    def to(self, device: torch.device | str) -> Self:
        return self


class Counting(Linear):
    """Averages over targets, which some batches lack."""

    def count(self, batch: Part) -> dict[str, int]:
        return {"targets/sight": batch.targets}

    def unused_parameters(self, totals: dict[str, float]) -> list[nn.Parameter]:
        return []

    def forward(self, batch: Part, totals: dict[str, float] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.targets, "a batch without targets costs no time with one process"
        error = self.layer(batch.x[-batch.targets :]) - batch.y[-batch.targets :]
        total = (totals or self.count(batch))["targets/sight"]
        return error.square().sum() / total, {"loss/sight": error.detach().square().mean()}


class Seldom(StubBatches):
    def __init__(self, *there: int):
        super().__init__(length=3)
        self.there = there

    def __getitem__(self, index: int) -> Part:
        batch = super().__getitem__(index)
        return Part(batch.x, batch.y, 1 + index % 4 if index in self.there else 0)


def test_updates_without_targets_are_skipped_and_counted(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=5, accumulate=2)
    fit(Counting(), Seldom(1, 4, 5, 9), settings, tmp_path, validation=Seldom(1))
    lines = [line for line in read_metrics(tmp_path) if line["split"] == "train"]
    assert [line["loss"] is not None for line in lines] == [True, False, True, False, True]
    assert lines[-1]["skipped/without_targets"] == 2
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["skipped"]["without_targets"] == 2


def test_a_training_without_targets_says_what_to_do(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=300, log_every=100)
    with pytest.raises(MaskweaveError, match=r"last 100 updates had no targets.*raise model\.masking\.target_tokens"):
        fit(Counting(), Seldom(), settings, tmp_path)


def test_a_validation_without_targets_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match=r"no held-out sample has targets.*raise model\.masking\.target_tokens"):
        fit(Counting(), Seldom(*range(12)), SETTINGS, tmp_path, validation=Seldom())
