"""Which device a process uses. No GPU is needed: what torch says about GPUs is replaced."""

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from maskweave.errors import MaskweaveError
from maskweave.training import distributed
from maskweave.training.distributed import connect, local_device


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_device("auto") == local_device("cpu") == torch.device("cpu")
    with pytest.raises(MaskweaveError, match="device is cuda, but torch finds no CUDA device"):
        local_device("cuda")


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert local_device("auto") == torch.device("cuda", 0) and local_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device("auto") == local_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        MaskweaveError, match="process 2 of this machine has no GPU, because there are 2; start 2 processes"
    ):
        local_device("auto")
    assert local_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "backend", "patience"), [("cpu", "gloo", timedelta(days=7)), ("cuda", "nccl", None)]
)
@pytest.mark.parametrize("has_joined", [False, True])
def test_how_long_processes_wait_for_each_other(
    device: str, backend: str, patience: timedelta | None, has_joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week, since one may prepare data for days while the others wait; NCCL's own time for its products, which only run while all train."""
    made: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "local_device", lambda _: torch.device(device))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(dist, "is_initialized", lambda: has_joined)
    monkeypatch.setattr(dist, "init_process_group", lambda name, timeout: made.append((name, timeout)))
    monkeypatch.setattr(dist, "new_group", lambda backend, timeout: made.append((backend, timeout)) or "control")
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.atexit, "register", lambda function: made.append(function))
    distributed._join.cache_clear()
    try:
        found = connect()
    finally:
        distributed._join.cache_clear()
    joined = [] if has_joined else [(backend, patience), distributed.leave]
    assert made == [*joined, ("gloo", timedelta(days=7))]
    assert (found.rank, found.world, found.device.type) == (1, 2, device)
