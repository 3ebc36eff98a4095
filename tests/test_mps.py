"""The GPU of a Mac, with torch's calls replaced: none of this ran on such a machine."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.nn.weights import save_tensors
from maskweave.training import checkpoints
from maskweave.training.distributed import DistContext
from maskweave.training.layout import settle
from maskweave.training.settings import TrainSettings

MPS = torch.device("mps")


def test_a_run_there_is_one_process(tmp_path: Path) -> None:
    settings = TrainSettings(processes="auto", device="mps", batch_size=8)
    assert settle(settings, tmp_path, lambda _: pytest.fail("measured")) == dataclasses.replace(settings, processes=1)
    assert not [*tmp_path.iterdir()]


def test_its_random_numbers_are_kept_in_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, restored = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: kept)
    monkeypatch.setattr(torch.mps, "set_rng_state", restored.append)
    states = checkpoints._generators(MPS)
    assert states.keys() == {"cpu", "mps"}
    save_tensors({f"{name}.0": state for name, state in states.items()}, tmp_path / "random.safetensors")
    torch.rand(3)
    checkpoints._load_generators(tmp_path, DistContext(0, 1, MPS), step=1, seed=0)
    assert torch.equal(torch.get_rng_state(), states["cpu"])
    assert len(restored) == 1 and torch.equal(restored[0], kept)
    checkpoints._load_generators(tmp_path, DistContext(0, 1, torch.device("cpu")), step=1, seed=0)
    assert len(restored) == 1, "a run that goes on without it"
    save_tensors({"cpu.0": states["cpu"]}, tmp_path / "random.safetensors")
    checkpoints._load_generators(tmp_path, DistContext(0, 1, MPS), step=1, seed=0)
    assert len(restored) == 1, "a run that was started without it"


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has one")
def test_a_bundle_is_not_opened_where_there_is_none() -> None:
    with pytest.raises(
        MaskweaveError, match=r"^device 'mps': torch cannot use it here \(.*\); give another, such as cpu$"
    ):
        maskweave.load("scenes", device="mps")


def test_a_bundle_is_opened_there_with_all_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[int, Any] = {}
    empty, to = torch.empty, torch.nn.Module.to

    def here(*words: Any, **options: Any) -> Tensor:
        return empty(*words, **{**options, "device": "cpu"} if options.get("device") == "mps" else options)

    def note(network: torch.nn.Module, device: Any) -> torch.nn.Module:
        moved[id(network)] = device
        return to(network, "cpu")

    monkeypatch.setattr(torch, "empty", here)
    monkeypatch.setattr(torch.nn.Module, "to", note)
    bundle = maskweave.load("scenes", device="mps")
    networks = [part for part in (bundle.model, *bundle.tokenizers.values()) if isinstance(part, torch.nn.Module)]
    assert len(networks) > 5 and {moved.get(id(network)) for network in networks} == {"mps"}
    out = bundle.generate({"caption": "1 object: a red cube."}, ["depth"], seed=0)
    assert np.isfinite(out["depth"]).all()
