"""Which device a process uses. No GPU is needed: what torch says about GPUs is replaced."""

import pytest
import torch

from maskweave.errors import MaskweaveError
from maskweave.training.distributed import local_device


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
