"""Processes that train together: the same as more batches in one, and clear words when one dies."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from maskweave.errors import MaskweaveError
from maskweave.families.fourm import FourMSettings
from maskweave.masking.fourm import MaskingConfig
from maskweave.training.data_settings import DataSettings
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import claim, make_tokens, train_model
from maskweave.training.processes import spawn_workers
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


def idle() -> None:
    time.sleep(60)


def test_a_companion_that_dies_is_told() -> None:
    others = {*multiprocessing.active_children()}  # another test's readers may still be there
    with (
        pytest.raises(MaskweaveError, match=r"a worker process of this training run died \(exit code -9\)"),
        spawn_workers(2, idle),
    ):
        (companion,) = {*multiprocessing.active_children()} - others
        assert companion.pid
        os.kill(companion.pid, signal.SIGKILL)
        companion.join()
        raise RuntimeError("Connection closed by peer")
