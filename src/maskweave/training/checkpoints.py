"""Checkpoints: everything needed to resume training exactly, in safetensors and JSON.

FOLDER/checkpoints/step-00000200/ contains model.safetensors, optimizer.safetensors, random.safetensors, state.json and, if `ema` is on,
ema.safetensors (the average of the trained parameters). It is written under a temporary name and then renamed, so it is always complete.
"""

import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskweave.config import plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_json, remove, sweep, write_aside, write_json
from maskweave.nn.weights import load_tensors, open_tensors, save_tensors
from maskweave.training.distributed import DistContext
from maskweave.training.early_stopping import Best
from maskweave.training.metrics import Meter
from maskweave.training.optimizer import Average
from maskweave.training.resuming import is_free
from maskweave.training.settings import TrainSettings
from maskweave.training.skipped import Skipped

FORMAT = 1


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
    best: Best = field(default_factory=Best)
    """The best validation, with `settings.early_stopping`. Its checkpoint is kept."""

    @property
    def is_finished(self) -> bool:
        return self.step == self.settings.steps or self.best.is_over(self.settings.early_stopping)


def save(folder: Path, state: State) -> None:
    """Writes a checkpoint of `state` into run `folder` and removes old ones. All processes must call it; only the first one writes.

    Raises:
        FullDisk: no space is left; earlier checkpoints are unchanged.
    """
    ranks = state.ranks
    meters = ranks.gather(state.meter.state())
    generators = ranks.gather(_generators(ranks.device))
    target = path_of(folder, state.step)
    if not ranks.is_main:
        state.path = target
        return
    content = {
        "format": FORMAT,
        "step": state.step,
        "world": ranks.world,
        "has_ema": state.average is not None,
        "settings": plain(state.settings),
        "seconds": state.seconds,
        "metrics": state.metrics,
        "meters": meters,
        "best": state.best.state(),
        "skipped": state.skipped.state(),
    }
    with write_aside(target) as aside:
        aside.mkdir()
        save_tensors(model_tensors(state.objective), aside / "model.safetensors")
        save_tensors(_optimizer_tensors(state), aside / "optimizer.safetensors")
        random = {f"{k}.{r}": g for r, states in enumerate(generators) for k, g in states.items()}
        save_tensors(random, aside / "random.safetensors")
        if state.average is not None:
            save_tensors(state.average.mean, aside / "ema.safetensors")
        write_json(aside / "state.json", content)
    for step, path in sorted(_found(folder).items())[: -state.settings.keep]:
        if step < state.step and not (state.settings.early_stopping is not None and step == state.best.step):
            remove(path)
    state.path = target


def path_of(folder: Path, step: int) -> Path:
    """Path of the checkpoint at a step."""
    return Path(folder) / "checkpoints" / f"step-{step:08d}"


def restore_best(folder: Path, state: State) -> None:
    """Loads the weights of the best validation, and their average, into the objective."""
    if not state.best.step or state.best.step == state.step:
        return
    path = path_of(folder, state.best.step)
    load_model(state.objective, path / "model.safetensors")
    if state.average is not None:
        load_tensors(state.average.mean, path / "ema.safetensors")


def latest(folder: Path) -> Path | None:
    """Returns the newest readable checkpoint of run `folder`, or None. Unreadable ones are skipped with a warning."""
    for _, path in sorted(_found(folder).items(), reverse=True):
        try:
            _check(path)
        except MaskweaveError as error:
            warnings.warn(f"checkpoint skipped: {error}", stacklevel=2)
        else:
            return path
    return None


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
    content = _check(path)
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
    return None if path is None else str(_check(path)["settings"]["precision"])


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
    content = _check(path)
    check_split(path, state.settings, state.ranks.world)
    load_model(state.objective, path / "model.safetensors")
    _load_optimizer(path, state)
    if state.average is not None:
        if content["has_ema"]:
            load_tensors(state.average.mean, path / "ema.safetensors")
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


def load_model(objective: nn.Module, file: Path) -> None:
    """Copies the tensors of a safetensors file into all parameters and buffers of a module.

    Raises:
        MaskweaveError: tensors are missing, unexpected or of another shape; the message lists them.
    """
    load_tensors(model_tensors(objective), file)


def model_tensors(objective: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers by name, not copied. A shared tensor is listed once, under its first name."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in objective.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def _found(folder: Path) -> dict[int, Path]:
    """Checkpoints by step."""
    paths = Path(folder, "checkpoints").glob("step-*")
    return {int(path.name[5:]): path for path in paths if re.fullmatch(r"step-\d+", path.name)}


def _check(path: Path) -> dict[str, Any]:
    """Returns the content of state.json, after checking that all files of the checkpoint are complete.

    Raises:
        MaskweaveError: a file is damaged or missing.
    """
    content = read_json(path / "state.json", limit=None)
    needed = {
        "step": int,
        "world": int,
        "has_ema": bool,
        "settings": dict,
        "seconds": float,
        "metrics": dict,
        "meters": list,
    }
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MaskweaveError(f"{path / 'state.json'}: not the state of a maskweave checkpoint of format {FORMAT}")
    for key, kind in needed.items():
        if not isinstance(content.get(key), kind):
            raise MaskweaveError(
                f"{path / 'state.json'}: {key!r} is {shown(content.get(key))}, expected {kind.__name__}"
            )
    for name in ("model", "optimizer", "random", *(["ema"] if content["has_ema"] else [])):
        with open_tensors(path / f"{name}.safetensors"):  # compares the header with the length of the file
            pass
    return content


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    stored = state.optimizer.state_dict()["state"]
    return {
        f"{state.parameter_names[i]}/{key}": tensor for i, moments in stored.items() for key, tensor in moments.items()
    }


def _load_optimizer(path: Path, state: State) -> None:
    indices = {name: i for i, name in enumerate(state.parameter_names)}
    moments: dict[int, dict[str, Tensor]] = {}
    with open_tensors(path / "optimizer.safetensors") as stored:
        for key in stored.keys():  # noqa: SIM118 - not a mapping
            name, _, part = key.rpartition("/")
            if name not in indices:
                raise MaskweaveError(
                    f"{path}: the optimizer state has {shown(name)}, which is not a trained parameter of this run. Train the same parameters as before, or use another folder"
                )
            moments.setdefault(indices[name], {})[part] = stored.get_tensor(key)
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})


def _generators(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of torch's random generators, uint8."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _load_generators(path: Path, ranks: DistContext, step: int, seed: int) -> None:
    """Restores the random generators. A process that the run did not have before starts new ones."""
    with open_tensors(path / "random.safetensors") as stored:
        names = set(stored.keys())
        if f"cpu.{ranks.rank}" not in names:
            torch.manual_seed(seed + ranks.rank + step * ranks.world)
            return
        torch.set_rng_state(stored.get_tensor(f"cpu.{ranks.rank}"))
        if ranks.device.type == "cuda" and f"cuda.{ranks.rank}" in names:  # absent if the run was started on a CPU
            torch.cuda.set_rng_state(stored.get_tensor(f"cuda.{ranks.rank}"), ranks.device)
