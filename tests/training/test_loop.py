"""The one training loop, with stub objectives."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from stub_training import BASE, Linear, Random, StubBatch, StubBatches
from torch import Tensor, nn

from maskweave import progress as progress_module
from maskweave.config import build
from maskweave.errors import BadSample, MaskweaveError
from maskweave.nn.cpu import Processor
from maskweave.nn.weights import load_tensors
from maskweave.progress import progress
from maskweave.training.checkpoints import model_tensors
from maskweave.training.distributed import DistContext
from maskweave.training.loop import fit
from maskweave.training.metrics import Meter, read_metrics
from maskweave.training.optimizer import build_optimizer, learning_rate
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import NonFinite

SETTINGS = TrainSettings(**{**BASE, "steps": 40, "accumulate": 1, "ema": 0.0})


def test_the_loss_falls_and_is_written_down(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=200, learning_rate=5e-2, validate_every=100, clip=0.0)
    objective = Linear()
    result = fit(objective, StubBatches(), settings, tmp_path, validation=StubBatches(length=2))
    lines = read_metrics(tmp_path)
    first, last = (lines[i] for i in (0, -2))
    assert last["loss"] < 0.05 * first["loss"]
    assert (last["step"], last["split"]) == (200, "train")
    assert set(last) == {
        *("step", "split", "loss", "largest", "gradient_norm"),
        *("learning_rate", "samples_per_second", "seconds", "seconds_waiting_for_data", "memory_gib"),
    }
    assert last["samples_per_second"] > 0
    assert [(line["step"], line["split"]) for line in lines[-3:]] == [
        (198, "train"),
        (200, "train"),
        (200, "validation"),
    ]
    assert result.metrics["validation/loss"] == lines[-1]["loss"] < 0.05 * first["loss"]
    assert not objective.training
    assert list((tmp_path / "events").iterdir())


def test_accumulating_equals_a_bigger_batch(tmp_path: Path) -> None:
    class Halves(StubBatches):
        def __getitem__(self, index: int) -> StubBatch:
            whole, half = StubBatches()[index // 2], slice(4 * (index % 2), 4 * (index % 2) + 4)
            return StubBatch(whole.x[half], whole.y[half])

    whole, halves = Linear(), Linear()
    fit(whole, StubBatches(), SETTINGS, tmp_path / "whole")
    fit(halves, Halves(), dataclasses.replace(SETTINGS, accumulate=2), tmp_path / "halves")
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "halves")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_average_is_that_of_the_weights(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watched(Linear):
        def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(self.layer.weight.detach().clone())
            return super().forward(batch)

    settings = dataclasses.replace(SETTINGS, steps=30, ema=0.6)
    objective = Watched()
    result = fit(objective, StubBatches(), settings, tmp_path, validation=StubBatches(length=1))
    *weights, validated = seen
    raw = Linear()
    load_tensors(model_tensors(raw), result.checkpoint / "model.safetensors")
    expected = weights[0]
    for step, weight in enumerate([*weights[1:], raw.layer.weight.detach()], 1):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(objective.layer.weight.detach(), expected)
    assert torch.equal(validated, objective.layer.weight)
    assert not torch.allclose(raw.layer.weight, objective.layer.weight)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(bad: float, tmp_path: Path) -> None:
    class Spoilt(StubBatches):
        def __getitem__(self, index: int) -> StubBatch:
            batch = super().__getitem__(index)
            if index == 13:
                batch.x[0, 0] = bad
            return batch

    objective = Linear()
    with pytest.raises(NonFinite, match=r"step 14: the loss is not finite, on a batch of sight, sound;.*step-00000010"):
        fit(objective, Spoilt(), SETTINGS, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000010"]
    assert all(p.isfinite().all() for p in objective.parameters())
    with pytest.raises(NonFinite, match="step 14"):  # it resumes, and comes to the same batch
        fit(Linear(), Spoilt(), SETTINGS, tmp_path)


def test_a_non_finite_gradient_stops_too(tmp_path: Path) -> None:
    class Root(Linear):
        def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
            loss, _ = super().forward(batch)
            return loss + (self.layer.weight[0, 0] * 0).sqrt(), {}  # 0, with an infinite slope

    with pytest.raises(NonFinite, match=r"step 1: the gradient is not finite.*no checkpoint"):
        fit(Root(), StubBatches(), SETTINGS, tmp_path)


def test_each_warning_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Warning_(Linear):
        def warnings(self, metrics: dict[str, float]) -> list[str]:
            assert metrics["largest"] > 0
            return [f"only {metrics['largest']:.3f} of the codes are in use"]

    fit(Warning_(), StubBatches(), SETTINGS, tmp_path, title="stub")
    assert capsys.readouterr().err.count("of the codes are in use") == 1


def test_validating_does_not_change_the_training(tmp_path: Path) -> None:
    runs = []
    for name, every in (("seldom", 40), ("often", 3)):
        settings = dataclasses.replace(SETTINGS, validate_every=every, ema=0.5)
        fit(Random(), StubBatches(), settings, tmp_path / name, validation=StubBatches(length=2))
        runs.append([line["loss"] for line in read_metrics(tmp_path / name) if line["split"] == "train"])
    assert runs[0] == runs[1]


def test_bf16_trains_with_weights_in_float32(tmp_path: Path) -> None:
    kinds = set()

    class Watched(Linear):
        def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
            kinds.add(self.layer(batch.x).dtype)
            return super().forward(batch)

    objective = Watched()
    fit(objective, StubBatches(), dataclasses.replace(SETTINGS, precision="bf16"), tmp_path)
    assert kinds == {torch.bfloat16} and objective.layer.weight.dtype == torch.float32


def test_an_objective_in_evaluation_mode_is_trained_in_training_mode(tmp_path: Path) -> None:
    class Watched(Linear):
        modes: ClassVar[set[bool]] = set()

        def forward(self, batch):
            self.modes.add(self.training)
            return super().forward(batch)

    fit(Watched().eval(), StubBatches(), SETTINGS, tmp_path)
    assert Watched.modes == {True}


@pytest.mark.parametrize(("flags", "other"), [("avx512_bf16", "float32"), ("avx2", "bf16")])
def test_auto_precision_is_chosen_by_the_processor(
    flags: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("maskweave.training.preparing.this_processor", lambda: Processor(flags=frozenset({flags})))
    settings = dataclasses.replace(SETTINGS, precision="auto", device="cpu")
    fit(Linear(), StubBatches(), settings, tmp_path)
    fit(Linear(), StubBatches(), dataclasses.replace(settings, steps=50, precision=other), tmp_path)
    (chosen,) = {"bf16", "float32"} - {other}
    shown = capsys.readouterr().err
    assert f"precision is {chosen} on this device" in shown
    assert f"precision was '{chosen}' before step 40 and is {other}" in shown


def test_mendable_errors_of_workers_arrive_as_they_are(tmp_path: Path) -> None:
    class Broken(StubBatches):
        def __getitem__(self, index: int) -> StubBatch:
            raise BadSample("sample 7 has no sound")

    with pytest.raises(BadSample, match=r"^sample 7 has no sound$"):
        fit(Linear(), Broken(), dataclasses.replace(SETTINGS, workers=1), tmp_path)


def test_the_rate_is_a_function_of_the_step() -> None:
    settings = TrainSettings(steps=100, warmup=0.1, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[99] == pytest.approx(0.1)
    assert rates[10 + 89 // 2] == pytest.approx(0.55, abs=0.02)
    assert learning_rate(50, dataclasses.replace(settings, schedule="constant")) == 1.0
    assert learning_rate(0, dataclasses.replace(settings, steps=1)) == 1.0


def test_only_matrices_decay() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm, self.layer = nn.Embedding(4, 3), nn.LayerNorm(3), nn.Linear(3, 3)
            self.token, self.position_embedding = nn.Parameter(torch.zeros(1, 1, 3)), nn.Parameter(torch.zeros(4, 3))
            self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)

    optimizer, names = build_optimizer(Model(), TrainSettings())
    groups = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups == {0.0: 6, 0.05: 1}
    assert names[-1] == "layer.weight" and "frozen" not in names


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("steps", 0),
            ("learning_rate", 0.0),
            ("learning_rate", math.nan),
            ("warmup", 1.5),
            ("ema", 1.0),
            ("clip", -1.0),
        ),
        *(
            ("betas", (0.9, 1.0)),
            ("accumulate", 0),
            ("keep", 0),
            ("workers", -1),
            ("weight_decay", math.inf),
            ("seed", -1),
        ),
    ],
)
def test_impossible_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(MaskweaveError, match=rf"^recipe.yaml: 'train': {key} is .*; expected"):
        build(TrainSettings, {key: value}, "recipe.yaml", "train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="no CUDA device"):
        fit(Linear(), StubBatches(), dataclasses.replace(SETTINGS, device="cuda"), tmp_path)


def test_means_are_over_the_batches_that_have_the_metric() -> None:
    alone = DistContext(0, 1, torch.device("cpu"))
    meter, other = Meter(), Meter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    meter.add({"a": torch.tensor(2.0)})
    assert meter.means(alone) == {"a": 1.5, "b": 5.0}
    other.load([meter.state()], torch.device("cpu"))
    assert other.state() == meter.state()
    other.load([meter.state(), meter.state()], torch.device("cpu"))
    other.add({"a": torch.tensor(9.0)}, {"a": 2.0})
    other.add({"a": torch.tensor(math.nan)}, keep=torch.tensor(False))
    assert other.means(alone) == {"a": (2 * 3.0 + 18) / 6, "b": 5.0}
    old = [{"names": ["a"], "sums": [3.0], "count": 2}]
    other.load([old], torch.device("cpu"))
    assert other.means(alone) == {"a": 1.5}, "of an older checkpoint"


def test_progress_prints_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("counting", 3) as bar:
        bar.advance(loss=0.5)
        bar.advance(2, samples_per_second=7)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("counting: 1/3, loss 0.5, 0:00 elapsed, 0:00 left")
    assert last.startswith("counting: 3/3, loss 0.5, samples per second 7, 0:00 elapsed")


def test_progress_draws_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("drawing [x]", 3) as bar:
        bar.say("a message [y]")
        bar.advance(3, loss=0.25)
    shown = capsys.readouterr().err
    assert "drawing [x]" in shown and "a message [y]" in shown and "3/3" in shown and "loss 0.25" in shown
