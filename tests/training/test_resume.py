"""A run that is killed or stopped goes on exactly as the one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import stub_training
import torch
from safetensors.torch import load_file
from stub_training import train
from timeless import numbers

from maskweave.errors import MaskweaveError

PROGRAM = Path(stub_training.__file__)


def train_in_a_process(folder: Path, **given: object) -> subprocess.CompletedProcess[str]:
    words = [f"{key}={value}" for key, value in given.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), *words], stderr=subprocess.PIPE, text=True, env=environment
    )


def same_checkpoints(a: Path, b: Path) -> None:
    files = sorted(path.relative_to(a) for path in a.rglob("*.safetensors"))
    assert files and files == sorted(path.relative_to(b) for path in b.rglob("*.safetensors"))
    for file in files:
        one, other = load_file(a / file), load_file(b / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    result = train(folder)
    assert result.steps == 60 and result.resumed_from == 0
    assert result.metrics["validation/loss"] < 4
    return folder


def test_a_killed_run_goes_on_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    killed = train_in_a_process(tmp_path, at=35, send=int(signal.SIGKILL))
    assert killed.returncode == -signal.SIGKILL and numbers(tmp_path)[-1]["step"] == 33, "past the checkpoint at 30"
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 36, "spl')  # killed in the middle of a line
    result = train(tmp_path, workers=2)  # processes that prepare batches change nothing
    assert result.resumed_from == 30
    assert numbers(tmp_path) == numbers(uninterrupted)
    same_checkpoints(tmp_path / "checkpoints", uninterrupted / "checkpoints")
    assert [line["step"] for line in numbers(tmp_path) if line["split"] == "validation"] == [20, 40, 60]


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(uninterrupted: Path, tmp_path: Path) -> None:
    given = {"workers": 1, "resume_command": "maskweave-go-on"}
    stopped = train_in_a_process(tmp_path, at=7, send=int(signal.SIGINT), **given)
    errors = stopped.stderr
    assert stopped.returncode == 1
    assert "Interrupted" in errors and "resume with: maskweave-go-on" in errors
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert f"the checkpoint is {checkpoint}" in errors
    assert json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["step"] == 7
    assert "stopped after step 7 of 60" in errors and train(tmp_path).resumed_from == 7
    assert numbers(tmp_path) == numbers(uninterrupted)


def test_a_finished_run_returns_at_once_with_its_weights(uninterrupted: Path) -> None:
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    result = train(uninterrupted)
    assert result.resumed_from == result.steps == 60
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before
    assert result.metrics["validation/loss"] == numbers(uninterrupted)[-1]["loss"]


def test_another_order_of_samples_is_refused(uninterrupted: Path) -> None:
    words = (
        r"16 samples \(batch_size 8 × accumulate 2 × 1 processes\), those of this run 32 \(batch_size 16 × accumulate 2"
    )
    with pytest.raises(MaskweaveError, match=words):
        train(uninterrupted, batch_size=16, steps=70)
    with pytest.raises(MaskweaveError, match=r"the checkpoint is at step 60, but train.steps is 50"):
        train(uninterrupted, steps=50)


def test_a_longer_run_goes_on_and_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, steps=10)
    assert train(tmp_path, steps=20, learning_rate=1e-3).steps == 20
    errors = capsys.readouterr().err
    assert "steps was 10 before step 10 and is 20 from then on" in errors
    assert "learning_rate was 0.01 before step 10 and is 0.001 from then on" in errors
