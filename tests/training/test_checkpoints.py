"""Checkpoints survive full disks and half-written files, and refuse models they do not fit."""

import errno
from pathlib import Path

import pytest
import safetensors.torch
import torch
from leftovers import left_aside
from safetensors import SafetensorError
from stub_training import BASE, Linear, StubBatches, train
from torch import nn

from maskweave.errors import FullDisk, MaskweaveError
from maskweave.nn.weights import load_tensors
from maskweave.training import checkpoints
from maskweave.training.checkpoint_files import latest
from maskweave.training.loop import fit
from maskweave.training.settings import TrainSettings

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
