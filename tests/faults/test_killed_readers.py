"""A process that reads samples dies: one message says so, and the same command resumes to the same run."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launched import stored, weights
from torch.utils.data import get_worker_info

from maskweave.cli.main import main
from maskweave.data import reading
from maskweave.data.reading import read
from maskweave.errors import MaskweaveError
from maskweave.training import loading
from maskweave.training.distributed import connect
from maskweave.training.loading import load


class Source:
    """Samples of which one ends the process that reads it, the first time."""

    names = ("x",)

    def __init__(self, mark: Path, at: int, end: Callable[[], None], floats: int):
        self.mark, self.at, self.end, self.floats = mark, at, end, floats

    def __len__(self) -> int:
        return 200

    def key(self, i: int) -> str:
        return str(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i == self.at and not self.mark.exists():
            self.mark.touch()
            self.end()
        return {"x": np.full(self.floats, i, np.float32)}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def numbers(source: Source, workers: int) -> list[int]:
    return [int(one.sample["x"][0]) for one in read(source, range(200), workers)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("floats", [1, 10_000])  # with many, a message of the process breaks off
def test_a_process_that_reads_samples_dies(floats: int, workers: int, tmp_path: Path) -> None:
    others = {*multiprocessing.active_children()}
    for seed in range(3):
        at, start = random.Random(f"{seed} {workers}").randrange(200), time.monotonic()
        source = Source(tmp_path / str(seed), at, kill, floats)
        with pytest.raises(MaskweaveError, match=r"^a process that reads samples died \(exit code -9\); .* to resume$"):
            numbers(source, workers)
        assert time.monotonic() - start < 4, "it is noticed at once"
        assert {*multiprocessing.active_children()} <= others
        assert numbers(source, workers) == [*range(200)]


@pytest.mark.parametrize("code", [0, 3])
def test_a_process_that_reads_samples_ends_by_itself(code: int, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match=rf"died \(exit code {code}\); run the same command again to resume"):
        numbers(Source(tmp_path / "mark", 70, lambda: os._exit(code), 1), 2)


def test_an_error_of_the_reader_stays_itself(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("DataLoader worker (pid 1) is of the reader")

    with pytest.raises(RuntimeError, match="is of the reader"):
        numbers(Source(tmp_path / "mark", 70, fail, 1), 1)


def test_a_process_that_dies_while_others_work_is_told_with_the_next_batch() -> None:
    class Batches:
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor(os.getpid())

    before = signal.getsignal(signal.SIGCHLD)
    stream = load(Batches(), range(100), 1, connect("cpu"))
    os.kill(int(next(stream)), signal.SIGKILL)
    for _ in range(20):
        time.sleep(0.01)  # torch would raise here
    with pytest.raises(MaskweaveError, match=r"died \(exit code -9\)"):
        next(stream)
    assert before == signal.SIG_DFL or signal.getsignal(signal.SIGCHLD) == before


def killed_at(monkeypatch: pytest.MonkeyPatch, mark: Path, at: int) -> None:
    """One of the processes that read is killed at an item, the first time that it comes."""
    for cls in (reading._Safe, loading._Loading):
        get = cls.__getitem__

        def item(self: Any, index: int, get: Any = get) -> Any:
            if get_worker_info() is not None and index == at and not mark.exists():
                mark.touch()
                kill()
            return get(self, index)

        monkeypatch.setattr(cls, "__getitem__", item)


STAGES = {
    "tokenizer": ("tokenizers", "tokenizers.train.workers", 4),
    "tokenize": ("tokens", "data.workers", 48),
    "train": ("model", "train.workers", 40),
}
"""What a command makes, its option, and how many items its processes read."""


@pytest.mark.parametrize(
    ("stage", "workers", "seed"),
    [
        pytest.param(stage, workers, seed, marks=[] if (stage, workers, seed) == ("train", 2, 0) else pytest.mark.slow)
        for stage in STAGES
        for workers in (1, 2)
        for seed in range(4)
    ],
)
def test_a_stage_resumes(
    stage: str, workers: int, seed: int, tiny_recipe: Path, tiny_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    made, option, length = STAGES[stage]
    run, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(
        tiny_run, run, ignore=shutil.ignore_patterns(made, *["checkpoints", "metrics.jsonl"] * (made == "model"))
    )
    killed_at(monkeypatch, mark, random.Random(f"{stage} {workers} {seed}").randrange(length))
    words = [stage, str(tiny_recipe), "--out", str(run), f"--{option}", str(workers)]
    assert main(words) == 1 and mark.exists()
    said = capfd.readouterr().err
    assert "a process that reads samples died (exit code -9)" in said and said.count("again to resume") == 1
    assert "Traceback" not in said and "DataLoader" not in said
    assert main(words) == 0
    assert stored(run) == stored(tiny_run) and weights(run) == weights(tiny_run)
