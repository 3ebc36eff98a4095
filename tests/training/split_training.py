"""Trainings whose updates can be split over batches and processes.

As a program, on every process: `python split_training.py 'JSON list of arguments of train'`.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program

from safetensors.torch import save_file
from stub_training import Linear, StubBatch, StubBatches
from tiny_catalog import random_columns, tiny
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskweave.config import build as build_settings
from maskweave.data.columns import Column
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches
from maskweave.masking.m3ae import NOTHING, MaskedBatches, MaskRatio
from maskweave.models.contrastive import Contrastive, ContrastiveConfig
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.objectives.contrastive import ContrastiveObjective
from maskweave.objectives.fourm import FourMObjective
from maskweave.objectives.m3ae import M3AEObjective
from maskweave.training import checkpoint_files, parallel, preparing
from maskweave.training.checkpoints import State
from maskweave.training.distributed import connect, leave
from maskweave.training.loop import fit
from maskweave.training.optimizer import AdamW
from maskweave.training.parallel import whole
from maskweave.training.settings import TrainSettings

NOT_FINITE = 5
"""Number of the batch of kind "damaged" that is not finite."""
KINDS = ("mod", "token", "tied", "m3ae", "contrastive", "seldom")
CATALOG = tiny()


class Held:
    """Tokens in memory. By default, modalities are missing at random in half of the samples that have any, and six in ten samples are empty."""

    counts, weights, windows, samples = (150,), (1.0,), (None,), 150

    def __init__(self, names: list[str], missing: float = 0.5, full: float = 0.4):
        self.catalog = CATALOG.subset(names)
        self.all = random_columns(self.catalog, self.samples, np.random.default_rng(3), missing=missing, fewest=2)
        there = np.random.default_rng(4).random(self.samples) < full
        for name, c in self.all.items():
            length = None if c.length is None else c.length * there
            self.all[name] = c._replace(present=c.present & there, length=length)

    def __len__(self) -> int:
        return self.samples

    def columns(self, indices: np.ndarray) -> dict[str, Column]:
        return {name: c.keep(indices) for name, c in self.all.items()}


class Seldom(Linear):
    """A part of it takes no part in some batches, and the objective does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.seldom = nn.Linear(6, 6)

    def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().forward(batch)
        if batch.x[0, 0] > 0:
            metrics["seldom"] = (self.seldom(batch.x) - batch.y).square().mean()
            loss = loss + metrics["seldom"]
        return loss, metrics


class Damaged(StubBatches):
    """One of them is not finite."""

    def __getitem__(self, index: int) -> StubBatch:
        batch = super().__getitem__(index)
        return StubBatch(batch.x * torch.nan, batch.y) if index == NOT_FINITE else batch


def build(kind: str, batch_size: int, shuffle: bool = True) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    if kind == "seldom":
        return Seldom(), StubBatches(batch_size, length=4)
    if kind == "damaged":
        return Linear(), Damaged(batch_size) if shuffle else StubBatches(batch_size, length=3)
    if kind == "m3ae":
        data = Held(["photo", "caption"])
        config = M3AEConfig(width=16, depth=1, heads=2, decoder_width=12, decoder_depth=1, decoder_heads=2)
        return M3AEObjective(M3AE(data.catalog, config)), MaskedBatches(
            data, MaskRatio(), batch_size, seed=1, shuffle=shuffle
        )  # type: ignore[arg-type]
    if kind == "contrastive":
        data = Held(["photo", "caption"], missing=0.2, full=0.8)
        model = Contrastive(data.catalog, ContrastiveConfig(width=16, depth=1, heads=2))
        return ContrastiveObjective(model, group_size=2), MaskedBatches(
            data, NOTHING, batch_size, seed=1, shuffle=shuffle
        )  # type: ignore[arg-type]
    data = Held(list(CATALOG))
    model = FourM(CATALOG, FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, tied=kind == "tied"))
    batches = TokenBatches(data, MaskSampler(CATALOG, MaskingConfig(12, 12)), batch_size, seed=1, shuffle=shuffle)  # type: ignore[arg-type]
    return FourMObjective(model, "token" if kind == "token" else "mod", budgets={"inputs": 12, "targets": 12}), batches  # type: ignore[arg-type]


class Unsearched(DistributedDataParallel):
    """Does not search the graph for unused parameters, on a CPU either."""

    def __init__(self, *arguments: Any, find_unused_parameters: bool, **options: Any):
        super().__init__(*arguments, find_unused_parameters=False, **options)


def die_in_checkpoint(rank: int, file: int) -> None:
    """From now on, a process is killed when it has written so many files of checkpoints."""
    written = []

    def kill(path: Path) -> None:
        written.append(path)
        if len(written) == file and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint_files.make_durable = kill  # type: ignore[assignment]


def train(folder: str, kind: str, batch_size: int, accumulate: int = 1, **changes: object) -> None:
    """Trains and writes the gradient of every update to `folder/gradients.safetensors`, and Python's collective calls to `folder/calls-RANK.json`."""
    objective, batches = build(kind, batch_size)
    _, held_out = build(kind, batch_size, shuffle=False)
    given = {"steps": 12, "log_every": 1, "learning_rate": 1e-12, "clip": 0.0, "device": "cpu", **changes}
    gradients: dict[str, Tensor] = {}
    step = AdamW.step

    def recording(optimizer: AdamW, closure: object = None) -> object:
        number = len({name.partition("/")[0] for name in gradients})
        names = {id(p): name for name, p in states[-1].objective.named_parameters()}
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p.grad is not None:
                gradients[f"{number}/{names[id(p)]}"] = whole(p.grad).clone()
        return step(optimizer, closure)

    def noting(*given: Any) -> State:
        states.append(State(*given))
        return states[-1]

    states: list[State] = []
    calls: list[str] = []
    own = {name: getattr(dist, name) for name in ("all_reduce", "all_gather")}
    for name, function in own.items():
        setattr(
            dist, name, lambda *given, name=name, function=function, **k: (calls.append(name), function(*given, **k))[1]
        )
    AdamW.step, preparing.State = recording, noting  # type: ignore[method-assign,misc,assignment]
    try:
        settings = build_settings(TrainSettings, {**given, "batch_size": batch_size, "accumulate": accumulate}, "")
        fit(objective, batches, settings, Path(folder), validation=held_out)
    finally:
        AdamW.step, preparing.State = step, State  # type: ignore[method-assign,misc]
        for name, function in own.items():
            setattr(dist, name, function)
    (Path(folder) / f"calls-{connect('cpu').rank}.json").write_text(json.dumps(calls), encoding="utf-8")
    if connect("cpu").is_main and gradients:
        save_file(gradients, Path(folder) / "gradients.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for arguments in json.loads(sys.argv[1]):
        os.environ["LOCAL_WORLD_SIZE"] = str(arguments.pop("per_machine", os.environ["LOCAL_WORLD_SIZE"]))
        parallel.DistributedDataParallel = Unsearched if arguments.pop("as_on_gpu", False) else DistributedDataParallel  # type: ignore[misc,attr-defined]
        if "dies" in arguments:
            die_in_checkpoint(*arguments.pop("dies"))
        train(**arguments)
    leave()
