"""Processes that train together: the same as more batches in one, and clear words when one dies."""

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest
from launched import losses, weights

from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.families.fourm import FourMSettings
from maskweave.masking.fourm import MaskingConfig
from maskweave.training import processes
from maskweave.training.data_settings import DataSettings
from maskweave.training.distributed import connect
from maskweave.training.pipeline import claim, make_tokens, train_model
from maskweave.training.processes import run_together
from maskweave.training.recipe import Recipe, TokenizersSettings
from maskweave.training.settings import TrainSettings
from maskweave.training.tokenizers import train_tokenizers


def recipe_of(**train: int) -> Recipe:
    return Recipe(
        modalities=["rgb", "depth", "caption"],
        data=DataSettings(samples=32, validation=8),
        tokenizers=TokenizersSettings(samples=16, train=TrainSettings(steps=2, batch_size=8, checkpoint_every=0)),
        model=FourMSettings(masking=MaskingConfig(16, 16)),
        train=TrainSettings(log_every=1, learning_rate=1e-3, **train),
    )


START = processes.start


RECIPE = """\
modalities: [rgb, depth, caption]
data: {samples: 32, validation: 8}
tokenizers: {samples: 16, train: {steps: 2, batch_size: 8}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 16, target_tokens: 16}}
train: {steps: 20, batch_size: 4, log_every: 1, checkpoint_every: 4, validate_every: 10, processes: 2}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in two processes without faults."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for stage in ("tokenizer", "tokenize", "train"):
        assert main([stage, str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    return folder


def copied(whole: Path, run: Path) -> list[str]:
    """Copies what was made before the training, and returns the words of the training."""
    shutil.copytree(whole / "run", run, ignore=shutil.ignore_patterns("model", "checkpoints", "metrics.jsonl"))
    return ["train", str(whole / "recipe.yaml"), "--out", str(run)]


def test_two_processes_are_two_batches(whole: Path, tmp_path: Path) -> None:
    assert main([*copied(whole, tmp_path / "run"), "--train.processes", "1", "--train.accumulate", "2"]) == 0
    together, alone = losses(whole / "run"), losses(tmp_path / "run")
    assert len(together) == len(alone) == 20 and together[:4] == pytest.approx(alone[:4], rel=1e-4)
    assert "WORLD_SIZE" not in os.environ


@pytest.mark.slow  # test_splits.py has such batches in the fast set
def test_processes_whose_batches_lack_different_modalities(tmp_path: Path) -> None:
    source = DataSettings(source="python: own_sources:unpaired", validation=4, samples=0)
    for name, train in (("together", {"processes": 2}), ("alone", {"accumulate": 2})):
        recipe = replace(recipe_of(steps=6, batch_size=2, **train), data=source)
        catalog = claim(recipe, tmp_path / name)
        train_tokenizers(recipe, catalog, tmp_path / name)
        make_tokens(recipe, catalog, tmp_path / name)
        train_model(recipe, catalog, tmp_path / name)
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)


def fail_in(rank: int, how: str) -> int:
    """Body of two processes, of which one fails while the other waits for it in a collective."""
    context = connect("cpu")
    if context.rank == rank:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MaskweaveError("no such file")
    context.any(True)
    time.sleep(600)
    return 0


@pytest.mark.parametrize(("rank", "how"), [(1, "kill"), pytest.param(0, "error", marks=pytest.mark.slow)])
def test_a_worker_that_fails_ends_all_and_is_told(rank: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 1.0)
    monkeypatch.setenv(
        "TORCHELASTIC_USE_AGENT_STORE", "True"
    )  # workers that saw it would wait for a store that is not there
    expected = r"a worker process of this training run died \(exit code -9\)" if how == "kill" else "no such file"
    others = {*multiprocessing.active_children()}  # another test's readers may still be there
    with pytest.raises(MaskweaveError, match=expected):
        run_together(2, fail_in, rank, how)
    assert {*multiprocessing.active_children()} <= others


@pytest.mark.parametrize(
    ("rank", "step"),
    [(1, 9), *(pytest.param(r, step, marks=pytest.mark.slow) for r in (0, 1) for step in (-1, 0, 1, 10, 18))],
)
def test_a_killed_worker_loses_nothing(
    rank: int,
    step: int,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A worker of a real training is killed some time after a step; with step -1, some time after it has started."""
    run, started, killed = tmp_path / "run", list[SpawnProcess](), list[float]()
    words = copied(whole, run)

    def start(*arguments: Any, **options: Any) -> SpawnProcess:
        started.append(START(*arguments, **options))
        return started[-1]

    def kill() -> None:
        while len(started) < 2 or (step >= 0 and len(losses(run)) <= step - (step > 0)):
            time.sleep(0.005)
        time.sleep(random.Random(f"{rank} {step}").uniform(0, 4 if step < 0 else 0.03))
        os.kill(started[rank].pid or 0, signal.SIGKILL)
        killed.append(time.monotonic())

    monkeypatch.setattr(processes, "start", start)
    killer = threading.Thread(target=kill)
    killer.start()
    code = main(words)
    killer.join()
    assert code == 1 and time.monotonic() - killed[0] < processes.GRACE + 10
    assert not [process for process in started if process.is_alive()]
    said = capfd.readouterr().err
    assert "a worker process of this training run died (exit code -9)" in said and "Traceback" not in said
    assert not (run / "model").exists() and main(words) == 0
    assert weights(run) == weights(whole / "run") and losses(run) == losses(whole / "run")


def test_workers_know_that_they_are_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, environment: dict[str, str]) -> None:
        raise RuntimeError(environment["LOCAL_WORLD_SIZE"] + environment["WORLD_SIZE"])

    monkeypatch.setattr(processes, "start", start)
    with pytest.raises(RuntimeError, match="33"):
        run_together(3, fail_in, 0, "error")
