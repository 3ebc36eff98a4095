"""Checkpoints survive full disks and half-written files, and refuse models they do not fit."""

import errno
import json
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from leftovers import left_aside
from safetensors import SafetensorError
from stub_training import BASE, Linear, StubBatches, train
from timeless import numbers
from torch import nn

from maskweave.errors import FullDisk, MaskweaveError
from maskweave.nn.weights import load_tensors
from maskweave.training import checkpoints
from maskweave.training.checkpoint_files import Writing, latest
from maskweave.training.distributed import DistContext
from maskweave.training.loop import fit
from maskweave.training.settings import TrainSettings
from maskweave.training.shares import Share

SETTINGS = TrainSettings(**{**BASE, "steps": 20, "accumulate": 1})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "safetensors"],
)
def test_a_full_disk_keeps_the_previous_checkpoint(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = safetensors.torch.save_file, []

    def fill_up(tensors: dict[str, torch.Tensor], file: Path, metadata: None = None) -> None:
        calls.append(file)
        if len(calls) == 6:  # the second checkpoint's optimizer
            Path(file).write_bytes(b"half")
            raise fault
        write(tensors, file)

    monkeypatch.setattr(safetensors.torch, "save_file", fill_up)
    with pytest.raises(FullDisk, match=r"no space left .*step-00000020.*free some space"):
        train(tmp_path, steps=30)
    assert names(tmp_path) == ["step-00000010"]
    monkeypatch.undo()
    assert train(tmp_path, steps=30).resumed_from == 10


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    train(tmp_path, steps=45, keep=2)
    assert names(tmp_path) == ["step-00000040", "step-00000045"]
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-00000045"


def damage_truncated(path: Path) -> None:
    file = path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def damage_missing(path: Path) -> None:
    (path / "ema.safetensors").unlink()


def damage_state(path: Path) -> None:
    (path / "state.json").write_text('{"step": 20', encoding="utf-8")


@pytest.mark.parametrize("damage", [damage_truncated, damage_missing, damage_state])
def test_an_unreadable_checkpoint_is_skipped(damage, tmp_path: Path) -> None:
    train(tmp_path, steps=20)
    damage(tmp_path / "checkpoints" / "step-00000020")
    with pytest.warns(UserWarning, match="checkpoint skipped: .*step-00000020"):
        assert train(tmp_path, steps=20).resumed_from == 10
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-00000020"  # written again


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = left_aside(tmp_path / "checkpoints" / "step-00000010")
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    train(tmp_path, steps=10)
    assert names(tmp_path) == ["step-00000010"]
    assert latest(tmp_path / "elsewhere") is None


def test_another_architecture_is_refused_with_the_names(tmp_path: Path) -> None:
    fit(Linear(), StubBatches(), SETTINGS, tmp_path)

    class Other(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 5, bias=False)
            self.extra = nn.Linear(2, 2, bias=False)

    with pytest.raises(MaskweaveError) as caught:
        fit(Other(), StubBatches(), SETTINGS, tmp_path)
    text = str(caught.value)
    assert "missing in the file: extra.weight" in text
    assert "not in the model: layer.bias" in text
    assert "of another shape: layer.weight (6, 6), expected (5, 6)" in text


def test_shared_parameters_are_stored_once_and_stay_shared(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(checkpoints.model_tensors(model), file)
    expected = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.zero_()
    load_tensors(checkpoints.model_tensors(model), file)
    assert torch.equal(model[1].weight, expected) and model[1].weight is model[0].weight


def test_nothing_is_pickled(tmp_path: Path) -> None:
    train(tmp_path, steps=10)
    kinds = {path.suffix for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_an_asynchronous_checkpoint_has_the_weights_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "at_once", steps=20)
    write = Writing._write

    def late(writing: Writing, files: Any) -> None:
        time.sleep(0.3)  # the training goes on
        write(writing, files)

    monkeypatch.setattr(Writing, "_write", late)
    train(tmp_path / "late", steps=20, async_checkpoints=True)
    files = [path.relative_to(tmp_path / "late") for path in (tmp_path / "late").rglob("step-*/*.safetensors")]
    assert len(files) == 2 * 4
    assert all((tmp_path / "late" / file).read_bytes() == (tmp_path / "at_once" / file).read_bytes() for file in files)


class SecondFails(DistContext):
    """The first one of two processes, of which the second one cannot write its share."""

    def gather(self, value: Any) -> list[Any]:
        return [value, value if value else [True, "no space"]]


def test_a_share_that_another_process_cannot_write_keeps_the_checkpoint_away(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "step-00000010"
    mine = {"random.safetensors": Share({"a": torch.zeros(2)}, {})}
    writing = Writing(target, SecondFails(0, 2, torch.device("cpu")), mine, {"format": 1}, in_background=False)
    with pytest.raises(FullDisk, match=r"no space left while writing .*step-00000010; free some space"):
        writing.commit()
    assert [*target.parent.iterdir()] == []


def test_another_number_of_processes_keeps_the_metrics_between_two_logs(tmp_path: Path) -> None:
    """The checkpoint is turned into one of two processes, of which the second one has the metrics."""
    for name, steps in (("whole", 20), ("parts", 10)):
        train(tmp_path / name, steps=steps, log_every=20, schedule="constant", warmup=0.0)
    path = tmp_path / "parts" / "checkpoints" / "step-00000010" / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    (tmp_path / "parts" / "metrics.jsonl").unlink()
    assert state["world"] == 1 and state["meters"] == [[]], "the last step is logged"
    unlogged = tmp_path / "whole" / "checkpoints" / "step-00000010" / "state.json"
    meter = json.loads(unlogged.read_text(encoding="utf-8"))["meters"][0]
    state |= {"world": 2, "meters": [[], meter], "settings": {**state["settings"], "batch_size": 4}}
    path.write_text(json.dumps(state), encoding="utf-8")
    train(tmp_path / "parts", steps=20, log_every=20, schedule="constant", warmup=0.0)
    whole, parts = (
        [line for line in numbers(tmp_path / name) if line["split"] == "train"] for name in ("whole", "parts")
    )
    assert len(whole) == 1 and parts == whole


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_resumes_its_own_random_numbers(rank: int, tmp_path: Path) -> None:
    states = {f"cpu.{r}": torch.Generator().manual_seed(50 + r).get_state() for r in range(2)}
    safetensors.torch.save_file(states, tmp_path / "random.safetensors")
    with torch.random.fork_rng():
        for world, r in ((2, rank), (3, 2)):
            checkpoints._load_generators(tmp_path, DistContext(r, world, torch.device("cpu")), step=4, seed=1)
            found = torch.get_rng_state()
            assert torch.equal(
                found, states[f"cpu.{r}"] if r < 2 else torch.Generator().manual_seed(1 + 2 + 4 * 3).get_state()
            )
