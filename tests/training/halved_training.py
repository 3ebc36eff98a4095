"""A small training of 4M that stops halfway and goes on, for tests of optimizers."""

import dataclasses
from pathlib import Path

import torch
from tiny_catalog import tiny, tiny_batch

from maskweave.models.fourm import FourM, FourMConfig
from maskweave.objectives.fourm import FourMObjective
from maskweave.training.loop import fit
from maskweave.training.settings import TrainSettings


class Drawn:
    def __getitem__(self, index: int):
        return tiny_batch(tiny(), seed=index)


def whole_and_halves(settings: TrainSettings, folder: Path) -> tuple[FourM, FourM]:
    """Returns the models of six steps, and of three steps and three more."""

    def run(name: str, until: int) -> FourM:
        torch.manual_seed(0)
        model = FourM(tiny(), FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1))
        changed = dataclasses.replace(settings, steps=until, schedule="constant", warmup=0.0)
        fit(FourMObjective(model), Drawn(), changed, folder / name)
        return model

    whole = run("whole", 6)
    run("halves", 3)
    return whole, run("halves", 6)
