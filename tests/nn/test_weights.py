"""Tensors to safetensors files and back, and files that are not what is expected."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from maskweave.errors import FullDisk, MaskweaveError
from maskweave.files import write_aside
from maskweave.nn import weights
from maskweave.nn.weights import (
    PassthroughTensors,
    load_passthrough,
    load_tensors,
    open_tensors,
    save_passthrough,
    save_tensors,
)


def tensors() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "c": torch.tensor(3.5)}


def zeros() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(t) for name, t in tensors().items()}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_tensors(tensors(), tmp_path / "x.safetensors")
    found = zeros()
    load_tensors(found, tmp_path / "x.safetensors")
    for name, expected in tensors().items():
        assert torch.equal(found[name], expected)


def test_shared_and_strided_memory_is_written_out(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    given = {"whole": whole, "again": whole, "row": whole[1], "turned": whole.T, "leaf": whole.requires_grad_()}
    save_tensors(given, tmp_path / "x.safetensors")
    found = {name: torch.zeros(t.shape) for name, t in given.items()}
    load_tensors(found, tmp_path / "x.safetensors")
    for name, expected in given.items():
        assert torch.equal(found[name], expected)


def test_another_architecture_is_refused_and_nothing_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(3, 2), "extra": torch.ones(1), "b": torch.tensor([1, 2])}, path)
    found = zeros()
    with pytest.raises(MaskweaveError) as caught:
        load_tensors(found, path)
    text = str(caught.value)
    assert f"{path} does not match the model's architecture" in text
    assert "missing in the file: c" in text
    assert "not in the model: extra" in text
    assert "of another shape: a (3, 2), expected (2, 3)" in text
    assert not any(t.any() for t in found.values())


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    save_tensors({}, tmp_path / "x.safetensors")
    with pytest.raises(MaskweaveError, match="w7 and 22 more"):
        load_tensors({f"w{n}": torch.zeros(1) for n in range(30)}, tmp_path / "x.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 60, 200])
def test_a_truncated_file_is_said_to_be_one(tmp_path: Path, keep) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MaskweaveError, match="x.safetensors: cannot be read as safetensors, probably truncated"):
        load_tensors({"a": torch.zeros(100)}, path)


def test_a_missing_file_and_a_foreign_one(tmp_path: Path) -> None:
    with (
        pytest.raises(MaskweaveError, match="nothing.safetensors: no such file"),
        open_tensors(tmp_path / "nothing.safetensors"),
    ):
        pass
    (tmp_path / "x.safetensors").write_text("certainly no tensors " * 100, encoding="utf-8")
    with pytest.raises(MaskweaveError, match="cannot be read as safetensors"), open_tensors(tmp_path / "x.safetensors"):
        pass


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_tensors(tensors(), tmp_path / "x")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(FullDisk), write_aside(tmp_path / "y") as aside:
        save_tensors(tensors(), aside)
    assert not (tmp_path / "y").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_other_failures_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tensors, path, metadata=None):
        raise SafetensorError("something else (os error 5)")

    monkeypatch.setattr(weights.safetensors.torch, "save_file", broken)
    with pytest.raises(SafetensorError):
        save_tensors(tensors(), tmp_path / "x")


@pytest.mark.parametrize(
    "notes",
    [None, {"other": "x"}, {"config": "{"}, {"config": "[1, 2]"}, {"config": "[{}, [1]]"}, {"config": '[{}, ["a"]]'}],
)
def test_what_only_passes_through_needs_its_notes(tmp_path: Path, notes: dict[str, str] | None) -> None:
    kept = PassthroughTensors({"size": 3}, tensors(), ("a", "b", "c"))
    save_passthrough(kept, tmp_path)
    found = load_passthrough(tmp_path)
    assert found is not None and found.config == kept.config and found.names == kept.names
    save_tensors(tensors(), tmp_path / "passthrough.safetensors", notes)
    with pytest.raises(MaskweaveError, match=r"passthrough.safetensors: the header has no valid 'config'"):
        load_passthrough(tmp_path)
    assert load_passthrough(tmp_path / "empty") is None


def test_names_that_no_file_has_are_refused() -> None:
    kept = PassthroughTensors({}, {"a": torch.zeros(1)}, ("a", "b"))
    assert kept.published({"b": torch.ones(1), "c": torch.ones(1)}).keys() == {"a", "b"}
    foreign = PassthroughTensors({}, {"a": torch.zeros(1)}, ("a", "b", "x" * 5000))
    with pytest.raises(MaskweaveError, match="lists tensors that neither it nor the model has: 'xxx") as caught:
        foreign.published({"b": torch.ones(1)})
    assert len(str(caught.value)) < 500
