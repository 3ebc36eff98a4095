"""`processes: auto`: the layout is measured once, kept in the run folder, and changes no samples and no losses."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from stub_training import Linear, StubBatches

from maskweave.errors import MaskweaveError
from maskweave.families.fourm import FourMSettings
from maskweave.files import read_json
from maskweave.masking.fourm import MaskingConfig
from maskweave.training import layout
from maskweave.training.checkpoints import State
from maskweave.training.data_settings import DataSettings
from maskweave.training.layout import CoreLayout, layouts, seconds_per_update, settle, with_layout
from maskweave.training.loop import fit
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import claim, make_tokens, train_model
from maskweave.training.recipe import Recipe, TokenizersSettings
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import Stepper
from maskweave.training.tokenizers import train_tokenizers
from maskweave.training.updates import Update

AUTO = TrainSettings(batch_size=8, accumulate=2, processes="auto", device="cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("changed", "cores", "expected"),
    [
        ({}, 4, [(1, 4), (1, 1), (4, 1)]),
        ({}, 1, [(1, 1)]),
        ({"batch_size": 6}, 4, [(1, 4), (1, 1)]),
        ({"threads": 2}, 4, [(1, 2), (2, 2)]),
        ({"threads": 4}, 2, [(1, 4)]),
        ({"lazy_embeddings": True}, 4, [(1, 4), (1, 1)]),
    ],
    ids=[
        "four cores",
        "one core",
        "the batch has no four parts",
        "threads are given",
        "more than cores",
        "lazy tables",
    ],
)
def test_layouts_that_the_settings_allow(changed: dict, cores: int, expected: list) -> None:
    settings = dataclasses.replace(AUTO, **changed)
    found = layouts(settings, cores)
    assert found == expected
    assert layouts(settings, cores, multiple=settings.batch_size) == [one for one in expected if one[0] == 1]
    samples = {with_layout(settings, one).samples_per_step for one in found}
    assert samples == {settings.samples_per_step}, "an update has the same samples with each of them"


def test_auto_is_the_only_word() -> None:
    with pytest.raises(MaskweaveError, match="processes is 'many'"):
        TrainSettings(processes="many")  # type: ignore[arg-type]
    with pytest.raises(MaskweaveError, match="processes is 0; expected 1 or more, or auto"):
        TrainSettings(processes=0)


def test_the_fastest_is_chosen_and_kept(two_threads: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds, asked = {CoreLayout(1, 2): 0.5, CoreLayout(1, 1): 0.25, CoreLayout(2, 1): 0.125}, []

    def measure(settings: TrainSettings) -> float:
        asked.append(CoreLayout(settings.fixed_processes, settings.threads))
        return seconds.get(asked[-1], 1.0)

    found = settle(AUTO, tmp_path, measure)
    assert (found.processes, found.threads, found.batch_size, found.accumulate) == (2, 1, 4, 2)
    assert asked == [*seconds]
    assert (
        "train with 2 processes of 1 thread; samples per second: 1 process of 2 threads 32," in capsys.readouterr().out
    )
    assert read_json(tmp_path / layout.FILE)["samples_per_second"]["2 processes of 1 thread"] == 128
    seconds[CoreLayout(1, 1)] = 0.01
    assert settle(AUTO, tmp_path, measure) == found and len(asked) == 3, "a resumed run keeps it"
    torch.set_num_threads(3)
    assert settle(AUTO, tmp_path, measure).threads == 1 and len(asked) == 5, "another machine is measured again"


def test_nothing_is_measured_without_need(two_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(settings: TrainSettings) -> float:
        raise AssertionError("measured")

    fixed = dataclasses.replace(AUTO, processes=3)
    assert settle(fixed, tmp_path, measure) is fixed
    torch.set_num_threads(1)
    assert settle(AUTO, tmp_path, measure) == dataclasses.replace(AUTO, processes=1, threads=1)
    torch.set_num_threads(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert settle(AUTO, tmp_path, measure) == dataclasses.replace(AUTO, processes=1), "the launcher starts processes"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("changed", "used", "why"),
    [
        ({"batch_size": 64}, 8, ""),
        ({"batch_size": 12}, 6, "train on 6 of 8 GPUs, because 12 samples, train.batch_size, are not divided equally"),
        ({"batch_size": 67}, 1, "train on 1 of 8 GPUs"),
        ({"parallel": "none"}, 1, "train on 1 of 8 GPUs, because train.parallel is none"),
        ({"lazy_embeddings": True}, 1, "because train.lazy_embeddings is true"),
    ],
)
def test_each_gpu_has_a_process(
    changed: dict,
    used: int,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    settings = dataclasses.replace(AUTO, **{"device": "auto", **changed})
    found = settle(settings, tmp_path, lambda _: 1 / 0)
    assert (found.processes, found.samples_per_step) == (used, settings.samples_per_step)
    shown = capsys.readouterr().out
    assert why in shown if why else not shown


def test_a_compiled_training_is_not_measured(
    two_threads: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = settle(dataclasses.replace(AUTO, compile=True), tmp_path, lambda _: 1 / 0)
    assert (found.processes, found.threads) == (1, 2) and not [*tmp_path.iterdir()]
    assert "1 process of 2 threads; others are not measured, because train.compile is true" in capsys.readouterr().out


def test_the_steps_of_the_training_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SECONDS", 0.0)
    states: list[State] = []

    class Noting(Stepper):
        def __call__(self, update: Update) -> None:
            states.append(self.state)
            assert "forward" in vars(self.state.objective.blocks[0]), "activation checkpointing is on"
            super().__call__(update)

    class Stacked(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([self.layer])

    monkeypatch.setattr(layout, "Stepper", Noting)
    settings = dataclasses.replace(AUTO, activation_checkpointing="full", ema=0.5, precision="auto")
    seconds_per_update(Stacked(), StubBatches(), with_layout(settings, CoreLayout(1, 1)))
    assert len(states) > layout.WARM_UP and states[0].average is not None
    assert states[0].settings.precision in ("float32", "bf16")


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_gives_its_threads_back(fails: bool, tmp_path: Path) -> None:
    before, during = torch.get_num_threads(), set()

    class Watched(Linear):
        def forward(self, batch):
            during.add(torch.get_num_threads())
            return super().forward(batch) if not fails else 1 / 0

    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        fit(Watched(), StubBatches(), TrainSettings(steps=2, threads=before + 1, device="cpu"), tmp_path)
    assert during == {before + 1} and torch.get_num_threads() == before


def test_a_measurement_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layout, "SECONDS", 0.0)
    before = torch.get_num_threads()
    taken = []

    class Counted(StubBatches):
        def __getitem__(self, index: int):
            taken.append(index)
            return super().__getitem__(index)

    assert seconds_per_update(Linear(), Counted(), with_layout(AUTO, CoreLayout(1, before + 1))) > 0
    assert torch.get_num_threads() == before and not [*tmp_path.iterdir()]
    assert taken == [*range(2 * (layout.WARM_UP + layout.FEWEST))], "two batches for each update"


@pytest.mark.parametrize("several", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_measured_training_has_the_same_losses(
    several: bool, two_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not several:  # without new processes, which take seconds
        monkeypatch.setattr(layout, "layouts", lambda *_: [CoreLayout(1, 2), CoreLayout(1, 1)])
        monkeypatch.setattr(layout, "SECONDS", 0.0)
    losses = []
    for processes in (1, "auto"):
        train = TrainSettings(steps=3, batch_size=8, log_every=1, processes=processes, device="cpu")
        recipe = Recipe(
            modalities=["depth", "caption"],
            data=DataSettings(samples=32, validation=8),
            tokenizers=TokenizersSettings(samples=16, train=TrainSettings(steps=2, batch_size=8, checkpoint_every=0)),
            model=FourMSettings(masking=MaskingConfig(16, 16)),
            train=train,
        )
        folder = tmp_path / str(processes)
        catalog = claim(recipe, folder)
        train_tokenizers(recipe, catalog, folder)
        make_tokens(recipe, catalog, folder)
        train_model(recipe, catalog, folder)
        losses.append([line["loss"] for line in read_metrics(folder) if line["split"] == "train"])
    assert len(read_json(folder / layout.FILE)["samples_per_second"]) == (3 if several else 2)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    claim(recipe, folder)
    train_model(recipe, catalog, folder)  # is finished already
