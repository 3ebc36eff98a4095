"""Loading batches: errors arrive as they are, and everything that goes to a GPU is page-locked."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, same, tiny, tiny_batch

from maskweave.data.batches import ValueBatch
from maskweave.data.reading import read
from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskRatio, mask_columns
from maskweave.training.distributed import connect
from maskweave.training.loading import _Loaded, load
from maskweave.training.one_copy import in_one_buffer, to_device

ON_HOST = ("samples", "numbers")
"""Of groups of samples; they do not move."""


def tensors(item) -> list[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        return [item]
    values = (
        item.values()
        if isinstance(item, dict)
        else item
        if isinstance(item, list)
        else [value for name, value in vars(item).items() if name not in ON_HOST]
        if hasattr(item, "__dict__")
        else ()
    )
    return [tensor for value in values for tensor in tensors(value)]


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    empty, pinned = torch.empty, []

    def page_locked(*size: int, pin_memory: bool = False, **options) -> torch.Tensor:
        return pinned.append(empty(*size, **options)) or pinned[-1] if pin_memory else empty(*size, **options)

    monkeypatch.setattr(torch, "empty", page_locked)
    pair = tiny().subset(["photo", "caption"])
    masked = mask_columns(
        random_columns(pair, 8, np.random.default_rng(0)), pair, MaskRatio(), np.random.default_rng(0)
    )
    for batch in (tiny_batch(tiny()), masked):
        pinned.clear()
        found = _Loaded(batch).pin_memory().item
        assert type(found) is type(batch) and len(tensors(batch)) > 5
        assert len(pinned) == 1, "one buffer for the whole batch"
        assert {t.untyped_storage().data_ptr() for t in tensors(found)} == {pinned[0].data_ptr()}
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(tensors(found), tensors(batch), strict=True)
        )
    assert found.groups[0].samples is masked.groups[0].samples


def test_a_batch_in_one_buffer_moves_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = in_one_buffer(tiny_batch(tiny()), pin=False)
    moved = to_device(batch, torch.device("meta"))
    assert all(
        a.device.type == "meta" and a.shape == b.shape for a, b in zip(tensors(moved), tensors(batch), strict=True)
    )
    # The buffer on another device of the same kind: all parts are found in it again.
    copies, to = [], torch.Tensor.to

    def copied(self: torch.Tensor, *where, **options) -> torch.Tensor:
        return copies.append(self) or self.clone() if self.dtype == torch.uint8 else to(self, *where, **options)

    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(torch.Tensor, "device", "another")
    moved = to_device(batch, torch.device("cpu"))
    assert len(copies) == 1 and all(torch.equal(a, b) for a, b in zip(tensors(moved), tensors(batch), strict=True))
    assert not {t.data_ptr() for t in tensors(moved)} & {t.data_ptr() for t in tensors(batch)}


def test_parts_of_one_tensor_are_moved_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(12.0).view(3, 4)
    batch = ValueBatch("x", x[:, :1], x[:, 1:])
    monkeypatch.setattr(torch.Tensor, "device", "another")
    moved = to_device(batch, torch.device("cpu"))
    assert torch.equal(moved.values, x[:, :1]) and moved.weights is not None and torch.equal(moved.weights, x[:, 1:])


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_arrive_as_they_are(workers: int) -> None:
    class Batches:
        def __getitem__(self, index: int):
            if index == 2:
                raise MaskweaveError("sample 2 is broken")
            return tiny_batch(tiny(), seed=index)

    stream = load(Batches(), range(4), workers, connect("cpu"))
    assert same(next(stream), tiny_batch(tiny(), seed=0))
    next(stream)
    with pytest.raises(MaskweaveError, match="^sample 2 is broken$"):
        next(stream)


def test_what_has_no_tensors_is_not_copied() -> None:
    item = {"names": ["a", "b"]}
    assert in_one_buffer(item, pin=False) is item


WORKER = """
import time
from maskweave.training.loading import _ignore_stops
_ignore_stops()
print("ready", flush=True)
time.sleep(120)
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers end otherwise here")
def test_a_worker_ends_with_its_parents_signal_alone() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    kill = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGTERM)"
    subprocess.run([sys.executable, "-c", kill, str(worker.pid)], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)  # a launcher's signal, which all processes get
    worker.terminate()
    assert worker.wait(60) == 0


class Launched:
    """Says in which process it is read, and what that process knows of a launcher. Batches and a source."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, str | int]:
        return {"process": os.getpid(), "world": os.environ.get("WORLD_SIZE", "")}

    def key(self, index: int) -> str:
        return str(index)


def test_processes_that_load_do_not_know_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = connect("cpu")
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "2")
    found = [*load(Launched(), range(2), 1, alone), *(one.sample for one in read(Launched(), range(2), 1))]  # type: ignore[arg-type]
    assert len(found) == 4 and os.getpid() not in {one["process"] for one in found}
    assert {one["world"] for one in found} == {""} and os.environ["WORLD_SIZE"] == "2"
