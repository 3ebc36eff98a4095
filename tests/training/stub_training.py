"""A small training with every kind of state, run by the tests here and in processes that they kill.

As a program: `python stub_training.py FOLDER [KEY=VALUE ...]`, with `TrainSettings` keys, `at=STEP` and `send=SIGNAL`.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from maskweave.training.loop import FitResult, fit
from maskweave.training.settings import TrainSettings

WIDTH = 6


@dataclasses.dataclass
class StubBatch:
    x: Tensor
    y: Tensor

    names = ("sight", "sound")

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.x.to(device), self.y.to(device))

    def __len__(self) -> int:
        return len(self.x)


class StubBatches:
    """A linear task; batch i depends on i alone."""

    def __init__(self, size: int = 8, length: int = 10**9):
        self.size, self.length = size, length

    def __getitem__(self, index: int) -> StubBatch:
        g = torch.Generator().manual_seed(index)
        x = torch.randn(self.size, WIDTH, generator=g)
        return StubBatch(x, x.flip(1) * 2)

    def __len__(self) -> int:
        return self.length


class Linear(nn.Module):
    """Nothing random."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(width, width)

    def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
        error = self.layer(batch.x) - batch.y
        return error.square().mean(), {"largest": error.abs().max()}


class Random(nn.Module):
    """Dropout, noise, and a buffer that follows the data as a quantizer's codebook does.

    Args:
        at: the process sends itself the signal `send` after so many batches.
    """

    def __init__(self, at: int = 0, send: int = 0):
        super().__init__()
        torch.manual_seed(1)
        self.left, self.send = at, send
        self.net = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, WIDTH))
        self.register_buffer("running", torch.zeros(WIDTH))

    def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.send)
            self.running.lerp_(batch.x.mean(0), 0.1)
        x = batch.x + 0.1 * torch.randn_like(batch.x) + self.running
        return (self.net(x) - batch.y).square().mean(), {"running": self.running.norm()}


def train(folder: Path, at: int = 0, send: int = 0, resume_command: str = "", **changes: object) -> FitResult:
    """Train; the process sends itself the signal `send` during step `at`."""
    settings = dataclasses.replace(TrainSettings(**BASE), **changes)
    objective, validation = Random(at * settings.accumulate, send), StubBatches(length=3)
    return fit(objective, StubBatches(), settings, folder, validation=validation, resume_command=resume_command)


BASE = {
    "steps": 60,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "log_every": 3,
    "validate_every": 20,
    "checkpoint_every": 10,
    "accumulate": 2,
    "ema": 0.9,
    "device": "cpu",
    "seed": 3,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = dict(item.split("=", 1) for item in sys.argv[2:])
    train(
        Path(sys.argv[1]),
        **{k: v if k == "resume_command" else int(v) for k, v in given.items()},
    )
