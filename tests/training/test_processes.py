"""Processes that train together: the same as more batches in one, and clear words when one dies."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from maskweave.errors import MaskweaveError
from maskweave.families.fourm import FourMSettings
from maskweave.masking.fourm import MaskingConfig
from maskweave.training import processes
from maskweave.training.data_settings import DataSettings
from maskweave.training.distributed import connect
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import claim, make_tokens, train_model
from maskweave.training.processes import run_together
from maskweave.training.recipe import Recipe, TokenizersSettings
from maskweave.training.settings import TrainSettings
from maskweave.training.tokenizers import train_tokenizers


def recipe_of(**train: int) -> Recipe:
    return Recipe(
        modalities=["rgb", "depth", "caption"],
        data=DataSettings(samples=32, validation=8),
        tokenizers=TokenizersSettings(samples=16, train=TrainSettings(steps=2, batch_size=8, checkpoint_every=0)),
        model=FourMSettings(masking=MaskingConfig(16, 16)),
        train=TrainSettings(log_every=1, learning_rate=1e-3, **train),
    )


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if line["split"] == "train"]


def test_two_processes_are_two_batches_and_resume_exactly(tmp_path: Path) -> None:
    runs = {
        "together": recipe_of(steps=3, batch_size=4, processes=2),
        "alone": recipe_of(steps=3, batch_size=4, accumulate=2),
    }
    for name, recipe in runs.items():
        catalog = claim(recipe, tmp_path / name)
        train_tokenizers(recipe, catalog, tmp_path / name)
        make_tokens(recipe, catalog, tmp_path / name)
        train_model(recipe, catalog, tmp_path / name)
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    assert "WORLD_SIZE" not in os.environ
    longer = recipe_of(steps=4, batch_size=4, processes=2)
    train_model(longer, catalog, tmp_path / "together")
    assert len(losses(tmp_path / "together")) == 4


@pytest.mark.slow  # test_splits.py has such batches in the fast set
def test_processes_whose_batches_lack_different_modalities(tmp_path: Path) -> None:
    source = DataSettings(source="python: own_sources:unpaired", validation=4, samples=0)
    for name, train in (("together", {"processes": 2}), ("alone", {"accumulate": 2})):
        recipe = replace(recipe_of(steps=6, batch_size=2, **train), data=source)
        catalog = claim(recipe, tmp_path / name)
        train_tokenizers(recipe, catalog, tmp_path / name)
        make_tokens(recipe, catalog, tmp_path / name)
        train_model(recipe, catalog, tmp_path / name)
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)


def fail_in(rank: int, how: str) -> int:
    """Body of two processes, of which one fails while the other waits for it in a collective."""
    context = connect("cpu")
    if context.rank == rank:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MaskweaveError("no such file")
    context.any(True)
    time.sleep(600)
    return 0


@pytest.mark.parametrize(("rank", "how"), [(1, "kill"), pytest.param(0, "error", marks=pytest.mark.slow)])
def test_a_worker_that_fails_ends_all_and_is_told(rank: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 1.0)
    monkeypatch.setenv(
        "TORCHELASTIC_USE_AGENT_STORE", "True"
    )  # workers that saw it would wait for a store that is not there
    expected = r"a worker process of this training run died \(exit code -9\)" if how == "kill" else "no such file"
    others = {*multiprocessing.active_children()}  # another test's readers may still be there
    with pytest.raises(MaskweaveError, match=expected):
        run_together(2, fail_in, rank, how)
    assert {*multiprocessing.active_children()} <= others


def test_workers_know_that_they_are_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, environment: dict[str, str]) -> None:
        raise RuntimeError(environment["LOCAL_WORLD_SIZE"] + environment["WORLD_SIZE"])

    monkeypatch.setattr(processes, "start", start)
    with pytest.raises(RuntimeError, match="33"):
        run_together(3, fail_in, 0, "error")
