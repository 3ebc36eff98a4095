"""A model that is divided among processes (FSDP2) learns as a whole one does, and its checkpoints fit any number of processes."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import split_training
import torch
from launched import torchrun, write_recipe
from safetensors import safe_open
from safetensors.torch import load_file
from split_training import train
from timeless import numbers
from torch.distributed.fsdp import FSDPModule

from maskweave.errors import MaskweaveError
from maskweave.training.checkpoint_files import read_state
from maskweave.training.distributed import DistContext
from maskweave.training.memory import choose_plan
from maskweave.training.metrics import read_metrics
from maskweave.training.parallel import shard
from maskweave.training.settings import TrainSettings

LEARNING = {
    "kind": "mod", "steps": 12, "learning_rate": 1e-2, "warmup": 0.0, "schedule": "constant", "clip": 1.0,
    "ema": 0.5, "checkpoint_every": 4, "validate_every": 4, "keep": 9,
}  # fmt: skip
ONE, TWO = {**LEARNING, "batch_size": 8}, {**LEARNING, "batch_size": 4}
FSDP = {**TWO, "parallel": "fsdp"}


def start(runs: list[dict[str, object]], processes: int = 2) -> "subprocess.CompletedProcess[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    return subprocess.run(
        [*launcher, split_training.__file__, json.dumps(runs, default=str)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings of one process, of two, and of first one and then two, and the reverse."""
    root = tmp_path_factory.mktemp("sharded")
    train(str(root / "one"), **ONE)
    train(str(root / "one_two"), **{**ONE, "steps": 8})
    saving = {"activation_checkpointing": "full", "async_checkpoints": True, "reshard_after_forward": False}
    done = start(
        [
            {"folder": root / "fsdp", **FSDP},
            {"folder": root / "saving", **FSDP, **saving},
            {"folder": root / "one_two", **FSDP},
            {"folder": root / "two_one", **FSDP, "steps": 8},
            {"folder": root / "two_ddp", **FSDP, "steps": 8},
            {"folder": root / "two_ddp", **TWO, "parallel": "ddp"},
        ]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    train(str(root / "two_one"), **ONE)
    return root


def losses(folder: Path) -> list[float]:
    """Of training and validation."""
    return [line["loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize("how", ["fsdp", "saving", "one_two", "two_one", "two_ddp"])
def test_the_losses_are_those_of_one_process(root: Path, how: str) -> None:
    one, other = losses(root / "one"), losses(root / how)
    assert len(one) == 12 + 3 and one[13] < one[0] - 0.1, "it learns, so that a wrong sample or mask would show"
    assert other == pytest.approx(one, abs=1e-4)


def test_the_average_is_validated(root: Path, tmp_path: Path) -> None:
    train(str(tmp_path), **{**ONE, "ema": 0.0})
    averaged, last = (
        [line["loss"] for line in read_metrics(folder) if line["split"] == "validation"]
        for folder in (root / "fsdp", tmp_path)
    )
    assert min(abs(a - b) for a, b in zip(averaged, last, strict=True)) > 1e-3


def test_less_memory_does_not_change_a_bit(root: Path) -> None:
    assert numbers(root / "saving") == numbers(root / "fsdp")


def test_each_process_writes_its_rows(root: Path) -> None:
    path = root / "fsdp" / "checkpoints" / "step-00000012"
    assert read_state(path)["shares"] == 2
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}, "nothing is pickled"
    sizes = [(path / f"model-0000{i}-of-00002.safetensors").stat().st_size for i in (1, 2)]
    whole = (root / "one" / "checkpoints" / path.name / "model.safetensors").stat().st_size
    assert max(sizes) < 0.75 * whole
    with safe_open(path / "ema-00002-of-00002.safetensors", "pt") as stored:
        rows = json.loads(stored.metadata()["rows"])
        assert rows["model.encoder.0.attention.q.weight"] == [8, 16]
        assert stored.get_slice("model.encoder.0.attention.q.weight").get_shape() == [8, 16]
    assert not list(root.rglob("*.partial"))


def test_a_checkpoint_without_a_share_is_skipped(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "fsdp", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-00000012" / "optimizer-00002-of-00002.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"checkpoint skipped: .*optimizer-00002-of-00002.safetensors: no such file"):
        train(str(tmp_path / "run"), **ONE)
    assert losses(tmp_path / "run") == pytest.approx(losses(root / "one"), abs=1e-4)


def test_several_processes_without_parallel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="parallel is none, but processes is 2"):
        train(str(tmp_path), **ONE, parallel="none", processes=2)
    with pytest.raises(MaskweaveError, match="train.parallel is none, but 2 processes train together; set it to auto"):
        choose_plan(None, TrainSettings(parallel="none"), math.inf, 2, 2)


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written(root: Path, tmp_path: Path) -> None:
    """Of one process, after some of its files, while the training goes on; then the first process, of all."""
    run = {"folder": tmp_path, **FSDP, "async_checkpoints": True}
    for rank, file in ((1, 4), (0, 1), (1, 2)):  # the fourth file is the first one of the second checkpoint
        done = start([{**run, "dies": [rank, file]}])
        assert f"exitcode  : {-signal.SIGKILL}" in done.stderr, done.stderr[-3000:]
        assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000004"]
    done = start([run])
    assert done.returncode == 0, done.stderr[-3000:]
    assert numbers(tmp_path) == numbers(root / "fsdp")
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(("processes", "parallel"), [(4, "hybrid"), pytest.param(3, "fsdp", marks=pytest.mark.slow)])
def test_more_processes(root: Path, tmp_path: Path, processes: int, parallel: str) -> None:
    """Two machines of two processes; and rows that three processes cannot divide evenly, some with no row at all."""
    size = {"batch_size": 24 // processes // 2, "accumulate": 2}
    runs = [
        {"folder": tmp_path / "run", **FSDP, **size, "parallel": parallel, "per_machine": 2 if processes == 4 else 3}
    ]
    done = start(runs, processes)
    assert done.returncode == 0, done.stderr[-3000:]
    train(str(tmp_path / "one"), **{**ONE, "batch_size": 24})
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    path = tmp_path / "run" / "checkpoints" / "step-00000012"
    assert read_state(path)["shares"] == (2 if parallel == "hybrid" else 3)
    shutil.rmtree(path)
    train(str(tmp_path / "run"), **{**ONE, "batch_size": 24})
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)


@pytest.mark.slow
def test_skipped_steps_early_stopping_and_bf16(tmp_path: Path) -> None:
    """What is not finite in one process is skipped by both; both keep the best weights; both compute in bf16."""
    damaged = {"kind": "damaged", "batch_size": 4, "steps": 9, "learning_rate": 1e-2, "clip": 1.0, "skip_nonfinite": 1}
    stopping = {**TWO, "learning_rate": 0.1, "steps": 40, "validate_every": 4, "early_stopping": {"patience": 2}}
    runs = {"damaged": damaged, "stopping": stopping, "bf16": {**TWO, "precision": "bf16"}}
    kinds = ("ddp", "fsdp")
    done = start([{**run, "folder": tmp_path / name / p, "parallel": p} for name, run in runs.items() for p in kinds])
    assert done.returncode == 0, done.stderr[-3000:]
    for name, close in (("damaged", 1e-5), ("stopping", 0.02), ("bf16", 0.05)):
        whole, divided = (read_metrics(tmp_path / name / parallel) for parallel in kinds)
        assert [line["step"] for line in divided] == [line["step"] for line in whole]
        for a, b in zip(whole, divided, strict=True):
            assert (a.get("loss"), a.get("best_step")) == pytest.approx((b.get("loss"), b.get("best_step")), abs=close)
    assert whole[-1]["step"] == 12 and read_metrics(tmp_path / "damaged" / "fsdp")[-2]["skipped/nonfinite"] == 1
    assert read_metrics(tmp_path / "stopping" / "fsdp")[-1]["step"] < 40, "stopped early"


@pytest.mark.slow
def test_a_run_and_a_transfer_of_a_divided_model(tmp_path: Path) -> None:
    """All stages; what comes out is a bundle like any other."""
    recipe = write_recipe(tmp_path)
    transfer = tmp_path / "transfer.yaml"
    data, options = "{source: scenes, samples: 16, validation: 8}", "{steps: 3, batch_size: 4, log_every: 1}"
    transfer.write_text(
        f"start: {tmp_path / 'fsdp'}\ninputs: [rgb]\ntarget: depth\ndata: {data}\nhead: {{width: 16}}\ntrain: {options}\n",
        encoding="utf-8",
    )
    for parallel in ("fsdp", "ddp"):
        for command, file, name in (("run", recipe, parallel), ("transfer", transfer, f"transfer-{parallel}")):
            words = [command, str(file), "--out", str(tmp_path / name), f"--train.parallel={parallel}"]
            _, err = (started := torchrun(2, *words)).communicate(timeout=600)
            assert started.returncode == 0, err
    for name in ("", "transfer-"):
        found = [losses(tmp_path / f"{name}{parallel}") for parallel in ("fsdp", "ddp")]
        assert len(found[0]) > 3 and found[0] == pytest.approx(found[1], abs=1e-4)
        rows = [
            json.loads((tmp_path / f"{name}{p}" / "evaluation.json").read_text(encoding="utf-8"))
            for p in ("fsdp", "ddp")
        ]
        assert len(rows[0]) == len(rows[1]) > 0
    one, two = (load_file(tmp_path / p / "model" / "model.safetensors") for p in ("fsdp", "ddp"))
    assert one.keys() == two.keys() and all(torch.allclose(t, two[n], atol=1e-3) for n, t in one.items())


def test_an_earlier_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FSDPModule, "set_reduce_scatter_unused_params")
    whole = torch.nn.Linear(2, 2)
    with pytest.raises(MaskweaveError, match=f"torch is {re.escape(torch.__version__)}.* 2.13 or newer.* to ddp"):
        shard(whole, DistContext(0, 2, torch.device("cpu")), 2, TrainSettings())
    assert not whole.weight.is_meta
