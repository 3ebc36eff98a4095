"""Early stopping: patience, the best weights, exact resuming, and what is written down."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from stub_training import BASE, StubBatch, StubBatches, train
from timeless import numbers
from torch import Tensor, nn

from maskweave.config import build
from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.training.early_stopping import SPLIT, Best, EarlyStopping
from maskweave.training.loop import FitResult, fit
from maskweave.training.metrics import read_metrics
from maskweave.training.settings import TrainSettings

EARLY = EarlyStopping(patience=2)
SETTINGS = TrainSettings(
    **{**BASE, "steps": 60, "accumulate": 1, "ema": 0.0, "validate_every": 5, "keep": 1}, early_stopping=EARLY
)


class Scripted(nn.Module):
    """Its validation loss after step s is `losses[s // 5 - 1]`; the last one is repeated. Its weights change in every step."""

    steps: Tensor

    def __init__(self, losses: list[float]):
        super().__init__()
        self.losses = losses
        self.weight = nn.Parameter(torch.ones(6))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:
            self.steps += 1
            return (batch.x * self.weight - batch.y).square().mean(), {}
        i = min(int(self.steps) // 5, len(self.losses)) - 1
        return torch.tensor(self.losses[i]), {}


def run(folder: Path, losses: list[float], **changes: Any) -> tuple[FitResult, Scripted]:
    objective = Scripted(losses)
    settings = dataclasses.replace(SETTINGS, **changes)
    return fit(objective, StubBatches(), settings, folder, validation=StubBatches(length=1)), objective


def test_training_stops_and_keeps_the_best_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, objective = run(tmp_path, [3.0, 2.0, 2.5, 2.0, 1.0])
    assert (result.steps, result.best_step) == (20, 10) and int(objective.steps) == 10
    assert result.checkpoint.name == "step-00000020"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000020"]
    end = [line for line in read_metrics(tmp_path) if line["split"] == SPLIT]
    assert end == [{"step": 20, "split": SPLIT, "best_step": 10, "best_loss": 2.0, "waited": 2, "last_step": 60}]
    told = capsys.readouterr().err
    assert "stopped early at step 20 of 60" in told and "those of step 10, with validation loss 2" in told
    again, same = run(tmp_path, [3.0])
    assert again.resumed_from == again.steps == 20 and again.best_step == 10
    assert torch.equal(same.weight, objective.weight), "a finished run loads the best weights again"


def test_the_best_weights_are_kept_if_training_reaches_its_end(tmp_path: Path) -> None:
    result, objective = run(tmp_path, [3.0, 1.0, 2.0], steps=15)
    assert (result.steps, result.best_step, int(objective.steps)) == (15, 10, 10)


def test_a_small_improvement_does_not_count(tmp_path: Path) -> None:
    result, _ = run(tmp_path, [3.0, 2.95, 2.85, 1.0], early_stopping=EarlyStopping(patience=3, min_delta=0.1))
    assert result.best_step == 20 and result.steps == 35, "2.85 is 0.15 below the best, 2.95 is not 0.1 below it"


def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    result, objective = run(tmp_path, [math.nan, math.nan])
    assert (result.steps, result.best_step, int(objective.steps)) == (10, 0, 10), "without a best one, the last remain"


def test_more_patience_resumes_a_stopped_training(tmp_path: Path) -> None:
    losses = [3.0, 2.0, 2.5, 2.0, 1.0, 4.0]
    assert run(tmp_path, losses)[0].steps == 20
    longer, _ = run(tmp_path, losses, early_stopping=EarlyStopping(patience=3))
    assert (longer.resumed_from, longer.best_step, longer.steps) == (20, 25, 40)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("at", [1, 7, 12, 14])
def test_resuming_is_exact(at: int, ema: float, tmp_path: Path) -> None:
    """A process that stops anywhere comes to the same weights, best step and log."""
    losses, settings = [3.0, 2.0, 2.5, 2.0, 1.0], {"ema": ema, "checkpoint_every": 4}
    whole, expected = run(tmp_path / "whole", losses, **settings)

    class Stopped(Exception):
        pass

    class Breaking(StubBatches):
        def __getitem__(self, index: int) -> StubBatch:
            if index == at:
                raise Stopped
            return super().__getitem__(index)

    folder = tmp_path / "parts"
    with pytest.raises(Stopped):
        fit(
            Scripted(losses),
            Breaking(),
            dataclasses.replace(SETTINGS, **settings),
            folder,
            validation=StubBatches(length=1),
        )
    parts, objective = run(folder, losses, **settings)
    assert (parts.steps, parts.best_step) == (whole.steps, whole.best_step) == (20, 10)
    assert all(torch.equal(a, b) for a, b in zip(objective.parameters(), expected.parameters(), strict=True))
    assert numbers(tmp_path / "whole") == numbers(folder)


def test_the_average_of_the_best_step_is_kept(tmp_path: Path) -> None:
    early = train(tmp_path / "early", early_stopping=EarlyStopping(patience=9), validate_every=10, keep=1)
    assert early.best_step and (tmp_path / "early" / "checkpoints" / f"step-{early.best_step:08d}").is_dir()
    state = read_json(early.checkpoint / "state.json", limit=None)
    assert state["best"]["step"] == early.best_step


def test_a_training_without_early_stopping_is_unchanged(tmp_path: Path) -> None:
    result, objective = run(tmp_path, [3.0, 1.0, 2.0], early_stopping=None, steps=15)
    assert (result.best_step, int(objective.steps)) == (0, 15)
    assert all(line["split"] != SPLIT for line in read_metrics(tmp_path))


def test_checkpoints_of_earlier_versions_have_no_best() -> None:
    assert Best.from_state(None) == Best() and Best.from_state(Best().state()) == Best()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"early_stopping": {}}, "validate_every is 0; set it"),
        ({"early_stopping": {"patience": 0}, "validate_every": 5}, "patience must be 1 or more, found 0"),
        ({"early_stopping": {"min_delta": -1.0}, "validate_every": 5}, "min_delta must be a number of 0 or more"),
    ],
)
def test_settings_that_do_not_fit(content: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        build(TrainSettings, content, "recipe.yaml")


def test_no_validation_batches(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="early_stopping needs batches to validate on"):
        fit(Scripted([1.0]), StubBatches(), SETTINGS, tmp_path)
