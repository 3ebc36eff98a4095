"""Checkpoints: everything needed to resume training exactly, in safetensors and JSON.

FOLDER/checkpoints/step-00000200/ contains model.safetensors, optimizer.safetensors, random.safetensors, state.json and, if `ema` is on,
ema.safetensors (the average of the trained parameters). Of a model that is divided among processes, there are as many files of each but random.safetensors,
`model-00001-of-00008.safetensors` and so on, each with the rows that one process had; any number of processes can resume from them, with any `parallel`.
It is written under a temporary name and then renamed, so it is always complete.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskweave.config import plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import sweep
from maskweave.nn.tensor_files import open_file, open_files, part_of
from maskweave.nn.weights import check_same
from maskweave.training.checkpoint_files import FORMAT, Writing, files_of, latest, path_of, read_state, remove_old
from maskweave.training.distributed import DistContext
from maskweave.training.early_stopping import Best
from maskweave.training.metrics import Meter
from maskweave.training.optimizer import Average
from maskweave.training.resuming import is_free
from maskweave.training.settings import TrainSettings
from maskweave.training.shares import Share, load_share, number_of_share, share_of
from maskweave.training.skipped import Skipped


@dataclass
class State:
    """State of a training run between two steps."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    parameter_names: list[str]
    """In the optimizer's order."""
    average: Average | None
    settings: TrainSettings
    ranks: DistContext
    meter: Meter = field(default_factory=Meter)
    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Training time so far, over all starts."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The latest training metrics, and those of validation as `validation/NAME`."""
    path: Path | None = None
    """The newest checkpoint."""
    skipped: Skipped = field(default_factory=Skipped)
    """Updates that changed no weights."""
    writing: Writing | None = None
    """The checkpoint that is being written."""
    best: Best = field(default_factory=Best)
    """The best validation, with `settings.early_stopping`. Its checkpoint is kept."""

    @property
    def is_finished(self) -> bool:
        return self.step == self.settings.steps or self.best.is_over(self.settings.early_stopping)


def save(folder: Path, state: State) -> None:
    """Writes a checkpoint of `state` into run `folder` and removes old ones; with `async_checkpoints`, it is there after `finish`. All processes
    must call it.

    Raises:
        FullDisk: no space is left; earlier checkpoints are unchanged.
    """
    finish(folder, state)
    ranks, settings = state.ranks, state.settings
    own = {name: t.numpy().tobytes().hex() for name, t in _generators(ranks.device).items()}
    meters, generators = zip(*ranks.gather([state.meter.state(), own]), strict=True)
    stored = {"model": model_tensors(state.objective), "optimizer": _optimizer_tensors(state)}
    if state.average is not None:
        stored["ema"] = dict(state.average.mean)
    number, shares = number_of_share(stored["model"], ranks.is_main)
    files = {}
    if number is not None:
        for name, tensors in stored.items():
            file = part_of(Path(f"{name}.safetensors"), number, shares).name
            files[file] = share_of(tensors, ranks.is_main, copies=settings.async_checkpoints)
    if ranks.is_main:
        random = {f"{k}.{r}": _bytes(g) for r, states in enumerate(generators) for k, g in states.items()}
        files["random.safetensors"] = Share(random, {})
    content = {
        "format": FORMAT,
        "step": state.step,
        "world": ranks.world,
        "shares": shares,
        "has_ema": state.average is not None,
        "settings": plain(settings),
        "seconds": state.seconds,
        "metrics": dict(state.metrics),
        "meters": list(meters),
        "best": state.best.state(),
        "skipped": state.skipped.state(),
    }
    state.writing = Writing(path_of(folder, state.step), ranks, files, content, settings.async_checkpoints)
    if not settings.async_checkpoints:
        finish(folder, state)


def finish(folder: Path, state: State, only_if_done: bool = False) -> None:
    """Commits the checkpoint that is being written, if there is one, and removes old ones. All processes must call it.

    Args:
        only_if_done: do nothing if a process is still writing.

    Raises:
        FullDisk: same as `save`.
    """
    if (writing := state.writing) is None or (only_if_done and not writing.is_done):
        return
    state.writing = None
    writing.commit()
    state.path = writing.target
    if state.ranks.is_main:
        best = {state.best.step, writing.best} if state.settings.early_stopping is not None else set()
        remove_old(folder, int(writing.target.name[5:]), state.settings.keep, best)


@contextlib.contextmanager
def abandoning(state: State) -> Iterator[None]:
    """Context in which an error leaves nothing of a checkpoint that is being written."""
    try:
        yield
    finally:
        if state.writing is not None:
            state.writing.abandon()


def restore_best(folder: Path, state: State) -> None:
    """Loads the weights of the best validation, and their average, into the objective."""
    if not state.best.step or state.best.step == state.step:
        return
    path = path_of(folder, state.best.step)
    content = read_state(path)
    _load(path, "model", content, model_tensors(state.objective))
    if state.average is not None:
        _load(path, "ema", content, state.average.mean)


def check_steps(path: Path | None, steps: int) -> None:
    """Checks that a checkpoint, if there is one, is not beyond the last step, `train.steps`.

    Raises:
        MaskweaveError: it is.
    """
    if path is not None and (step := int(path.name[5:])) > steps:
        raise MaskweaveError(
            f"{path}: the checkpoint is at step {step}, but train.steps is {steps}; raise train.steps, or start a new run in another folder"
        )


def check_split(path: Path | None, settings: TrainSettings, world: int, claimed: bool = False) -> None:
    """Checks that a step has as many samples as in a checkpoint, if there is one, however they are split.

    Args:
        world: number of processes.
        claimed: the folder is claimed for these settings, perhaps for another stage, whose number of processes means nothing. Otherwise the run
            is about to resume, and a finished one uses no more samples.

    Raises:
        MaskweaveError: it has not.
    """
    if path is None:
        return
    content = read_state(path)
    was = content["settings"]
    same = (was["batch_size"], was["accumulate"]) == (settings.batch_size, settings.accumulate)
    if same if claimed else content["step"] >= settings.steps:
        return
    before = (was["batch_size"], was["accumulate"], content["world"])
    wanted = (settings.batch_size, settings.accumulate, world)
    if math.prod(before) != math.prod(wanted):
        described = "batch_size {} × accumulate {} × {} processes".format
        raise MaskweaveError(
            f"{path} cannot be resumed: its steps have {math.prod(before)} samples ({described(*before)}), those of this run {math.prod(wanted)} "
            f"({described(*wanted)}). Change one of these so that the numbers are equal, or start a new run in another folder"
        )


def precision_used(folder: Path) -> str | None:
    """Returns the precision of the newest readable checkpoint of run `folder`, or None: "auto" in a recipe is resolved by the machine."""
    path = latest(folder)
    return None if path is None else str(read_state(path)["settings"]["precision"])


def resume(folder: Path, state: State) -> list[str]:
    """Loads the newest checkpoint of run `folder` into `state`, if there is one.

    Returns:
        Sentences about settings that have changed since then.

    Raises:
        MaskweaveError: the checkpoint has another architecture or sample order, or more steps than `train.steps`.
    """
    if state.ranks.is_main:
        sweep(Path(folder, "checkpoints"))
    path = latest(folder)
    if path is None:
        return []
    check_steps(path, state.settings.steps)
    content = read_state(path)
    check_split(path, state.settings, state.ranks.world)
    _load(path, "model", content, model_tensors(state.objective))
    _load_optimizer(path, content, state)
    if state.average is not None:
        if content["has_ema"]:
            _load(path, "ema", content, state.average.mean)
        else:
            state.average = Average(state.objective, state.settings.ema)
    was, now = content["settings"], plain(state.settings)
    if was.get("seed") == now["seed"]:  # otherwise the random numbers are those of the new seed
        _load_generators(path, state.ranks, content["step"], state.settings.seed)
    mine = [content["meters"][state.ranks.rank]] if content["world"] == state.ranks.world else []
    state.meter.load(content["meters"] if not mine and state.ranks.is_main else mine, state.ranks.device)
    state.skipped = Skipped(**content.get("skipped", {}))
    state.step, state.seconds, state.metrics, state.path = content["step"], content["seconds"], content["metrics"], path
    best = content.get("best", {}).get("step")
    # Step 0: no validation was finite yet; how many were not still counts.
    if was.get("early_stopping") and best is not None and (best == 0 or path_of(folder, best).is_dir()):
        state.best = Best.from_state(content["best"])
    return [
        f"{key} was {shown(was[key])} before step {state.step} and is {now[key]} from then on"
        for key in now
        if is_free(f"train.{key}") and key in was and was[key] != now[key]
    ]


def _load(path: Path, name: str, content: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Copies the tensors of a checkpoint's `model` or `ema` into all of `tensors`, or this process's share of them.

    Raises:
        MaskweaveError: tensors are missing, unexpected or of another shape; the message lists them.
    """
    files = files_of(path, name, content["shares"])
    with open_files(files) as stored:
        check_same({n: t.shape for n, t in tensors.items()}, stored, files[0])
        load_share(tensors, stored)


def model_tensors(objective: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers by name, not copied. A shared tensor is listed once, under its first name."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in objective.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    stored = state.optimizer.state_dict()["state"]
    return {
        f"{state.parameter_names[i]}/{key}": tensor for i, moments in stored.items() for key, tensor in moments.items()
    }


@torch.no_grad()
def _load_optimizer(path: Path, content: dict[str, Any], state: State) -> None:
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    named = dict(zip(state.parameter_names, parameters, strict=True))
    moments: dict[str, Tensor] = {}
    with open_files(files_of(path, "optimizer", content["shares"])) as stored:
        for key in stored.keys():  # noqa: SIM118 - not a mapping
            name, _, part = key.rpartition("/")
            if name not in named:
                raise MaskweaveError(
                    f"{path}: the optimizer state has {shown(name)}, which is not a trained parameter of this run. Train the same parameters as before, or use another folder"
                )
            p = named[name]
            like = list(p.shape) == stored.shape(key)
            moments[key] = torch.zeros_like(p) if like else torch.zeros(stored.shape(key), device=p.device)
            state.optimizer.state[p][part] = moments[key]
        load_share(moments, stored)


def _generators(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of torch's random generators, uint8."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _load_generators(path: Path, ranks: DistContext, step: int, seed: int) -> None:
    """Restores the random generators. A process that the run did not have before starts new ones."""
    with open_file(path / "random.safetensors") as stored:
        names = set(stored.keys())
        if f"cpu.{ranks.rank}" not in names:
            torch.manual_seed(seed + ranks.rank + step * ranks.world)
            return
        torch.set_rng_state(stored.get_tensor(f"cpu.{ranks.rank}"))
        if ranks.device.type == "cuda" and f"cuda.{ranks.rank}" in names:  # absent if the run was started on a CPU
            torch.cuda.set_rng_state(stored.get_tensor(f"cuda.{ranks.rank}"), ranks.device)
        elif ranks.device.type == "mps" and f"mps.{ranks.rank}" in names:
            torch.mps.set_rng_state(stored.get_tensor(f"mps.{ranks.rank}"))
