"""The training loop. Tokenizers, 4M and all other trained models are objectives passed to `fit`.

Contents: `fit` prepares the state and resumes it; `_train` is the loop; the rest are its parts.
Devices, precision, averaging, processes and files are handled here, not in the objective.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from maskweave.data.order import Batches, SizedBatches
from maskweave.errors import MaskweaveError
from maskweave.interruption import Interrupted, StopSignal
from maskweave.progress import Progress, progress
from maskweave.training import checkpoints
from maskweave.training.blocks import checkpoint_activations
from maskweave.training.checkpoint_files import path_of
from maskweave.training.checkpoints import State
from maskweave.training.distributed import connect
from maskweave.training.early_stopping import SPLIT
from maskweave.training.hardware import compile_blocks, torch_threads
from maskweave.training.loading import load, with_static_shapes
from maskweave.training.metrics import Clock, MetricsLog
from maskweave.training.optimizer import learning_rate
from maskweave.training.pace import Pace
from maskweave.training.parallel import unshard
from maskweave.training.preparing import prepare
from maskweave.training.settings import TrainSettings, is_due
from maskweave.training.stepping import Stepper
from maskweave.training.updates import Updates
from maskweave.training.validating import Validation

CHECK_EVERY = 50
"""Steps between checks for non-finite values on a GPU. Each check waits for the device."""


@dataclass(frozen=True)
class FitResult:
    """Result of a training run. The final weights are in the objective."""

    steps: int
    metrics: dict[str, float]
    """The last logged training metrics, and those of the last validation as `validation/NAME`."""
    checkpoint: Path
    seconds: float
    """Training time over all starts."""
    resumed_from: int = 0
    """Step of the checkpoint that was resumed; 0 for a new run."""
    best_step: int = 0
    """With early stopping, the step of the best validation, whose weights the objective has."""


def fit(
    objective: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    folder: Path,
    *,
    validation: SizedBatches | None = None,
    title: str = "",
    resume_command: str = "",
) -> FitResult:
    """Trains `objective`, or resumes the run in `folder`. Returns at once if that run is finished.

    Afterwards the objective is in evaluation mode and has the final weights: those of the best validation if `settings.early_stopping` is on,
    and their moving average if `settings.ema` is. If the model was divided among processes, it is then in main memory.

    Args:
        objective: called with a batch, returns the loss and a dict of metrics, all scalar tensors. It may have two methods:
            `warnings(metrics: dict[str, float]) -> list[str]`, called whenever metrics are logged (each warning is shown once), and
            `rate_factors() -> dict[str, float]`, which returns learning rate factors of single parameters. See `training.updates` for `count` and
            `unused_parameters`, which an objective that does not average over samples needs.
        batches: batch i at index i, for any i from 0. A batch has `.to(device)`, `.names` (its modalities) and a length (its
            samples), and must be a pure function of i.
        folder: run folder for metrics.jsonl, events/ and checkpoints/.
        validation: batches to validate on, in evaluation mode.
        title: name of what is trained, for the progress line.
        resume_command: command to resume after an interruption.

    Raises:
        Interrupted: Ctrl-C or SIGTERM was received; a checkpoint is written.
        NonFinite: the loss or gradient is not finite in more than `settings.skip_nonfinite` steps in a row; nothing is overwritten.
        FullDisk: no space for a checkpoint; earlier ones are unchanged.
        MaskweaveError: the folder's checkpoint does not fit the objective or the settings.
    """
    with torch_threads(settings.threads):
        return _fit(objective, batches, settings, Path(folder), validation, title or "training", resume_command)


def _fit(
    objective: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    folder: Path,
    validation: SizedBatches | None,
    title: str,
    resume_command: str,
) -> FitResult:
    ranks = connect(settings.device)
    torch.manual_seed(settings.seed + ranks.rank)
    if settings.lazy_embeddings and ranks.world > 1:
        raise MaskweaveError(
            f"lazy_embeddings works only with one process, found {ranks.world}; set lazy_embeddings to false or use one process"
        )
    if settings.early_stopping is not None and validation is None:
        raise MaskweaveError("early_stopping needs batches to validate on, but there are none; remove it")
    state, batches, plan, news = prepare(objective, batches, settings, ranks)
    trained = state.objective
    if state.settings.static_shapes:
        validation = with_static_shapes(validation)
    news += checkpoints.resume(folder, state)
    resumed_from = state.step
    finished = state.is_finished
    with progress(title, settings.steps, done=state.step, quiet=finished or not ranks.is_main) as bar:
        if not finished:
            for line in news:
                bar.say(f"{title}: {line}")
            with checkpoint_activations(trained, plan.checkpointing), checkpoints.abandoning(state):
                _train(state, objective, batches, validation, folder, bar, resume_command)
    ranks.any(False)  # wait until the first process has written everything
    if settings.early_stopping is not None:
        checkpoints.restore_best(folder, state)
    if state.average is not None:
        state.average.swap()
    if trained is not objective:
        unshard(trained, objective)
    objective.eval()
    assert state.path is not None
    best_step = state.best.step if settings.early_stopping is not None else 0
    return FitResult(state.step, state.metrics, state.path, state.seconds, resumed_from, best_step)


def _train(
    state: State,
    objective: nn.Module,
    batches: Batches,
    validation: SizedBatches | None,
    folder: Path,
    bar: Progress,
    resume_command: str,
) -> None:
    """Trains until the last step, until the validation loss has stopped falling, or until a stop is requested."""
    settings, ranks, steps = state.settings, state.ranks, state.settings.steps
    early = settings.early_stopping
    per_step = settings.accumulate * ranks.world
    batches_of_rank = load(
        batches, range(state.step * per_step + ranks.rank, steps * per_step, ranks.world), settings.workers, ranks
    )
    if settings.compile:
        compile_blocks(state.objective, dynamic=False if settings.static_shapes else None)
    stepper = Stepper(state, batches)
    validate = None if validation is None else Validation(state, validation)
    clock = Clock(state.seconds)
    shown: set[str] = set()
    with StopSignal() as stop, MetricsLog(folder, state.step, on=ranks.is_main) as log:

        def save() -> None:
            with clock.pause():
                state.seconds = clock.seconds()
                checkpoints.save(folder, state)

        updates = Updates(
            batches_of_rank, objective, ranks, settings.accumulate, steps - state.step, lambda: bool(stop.asked)
        )
        pace = Pace(objective, ranks, settings.precision)
        for update in updates:
            if not pace.is_counted:
                with clock.pause():
                    pace.count(update)
            stepper(update)
            pace.add(update)
            state.step += 1
            logs = is_due(settings.log_every, state.step, steps)
            validates = is_due(settings.validate_every, state.step, steps) and validate is not None
            saves = is_due(settings.checkpoint_every, state.step, steps)
            if logs or validates or saves or state.step % CHECK_EVERY == 0:
                stepper.check()
            while stepper.messages:
                bar.say(f"{bar.title}: {stepper.messages.pop(0)}")
            if logs:
                line = {"loss": math.nan} | state.meter.means(ranks)  # without targets, there is none
                state.meter.reset()
                checkpoints.finish(folder, state, only_if_done=True)
                line["learning_rate"] = learning_rate(state.step - 1, settings)
                line |= state.skipped.metrics() | pace.metrics(clock.lap(), updates.waited)
                line["seconds"] = clock.seconds()
                log.write(state.step, "train", line)
                state.metrics.update(line)
                rate = round(line["samples_per_second"])
                bar.advance(0, loss=line["loss"], samples_per_second=rate)
                _warn(objective, line, shown, bar)
            if validates and validate is not None:
                with clock.pause():
                    metrics = validate()
                log.write(state.step, "validation", metrics)
                state.metrics.update({f"validation/{name}": value for name, value in metrics.items()})
                bar.advance(0, validation=metrics["loss"])
                if early is not None:
                    saves |= state.best.update(state.step, metrics["loss"], early)
            if early is not None and state.is_finished:
                saves = True
                _tell_end(state, log, bar)
            if saves:
                save()
            bar.advance()
            if state.is_finished:
                break
        checkpoints.finish(folder, state)
        if updates.stopped and state.path != path_of(folder, state.step):
            stepper.check()
            save()
        if updates.stopped or (state.step == steps and ranks.any(stop.asked)):
            ranks.any(False)  # until the first process has written the checkpoint: the first to end ends all
            how = f"resume with: {resume_command}" if resume_command else "run the same command again to resume"
            raise Interrupted(f"stopped after step {state.step} of {steps}; the checkpoint is {state.path}; {how}")


def _tell_end(state: State, log: MetricsLog, bar: Progress) -> None:
    """Logs how a training with early stopping ended."""
    best, steps = state.best, state.settings.steps
    log.write(
        state.step, SPLIT, {"best_step": best.step, "best_loss": best.loss, "waited": best.waited, "last_step": steps}
    )
    if state.step < steps:
        bar.say(f"{bar.title}: stopped early at step {state.step} of {steps}")
    if best.step:
        bar.say(f"{bar.title}: the weights are those of step {best.step}, with validation loss {best.loss:.4g}")


def _warn(objective: nn.Module, line: dict[str, float], shown: set[str], bar: Progress) -> None:
    """Shows the objective's warnings. Warnings that differ only in numbers are shown once."""
    if not math.isfinite(line["loss"]):  # all steps were skipped, so there are no metrics
        return
    for text in getattr(objective, "warnings", lambda _: [])(line):
        gist = re.sub(r"[\d.]+", "", text)
        if gist not in shown:
            shown.add(gist)
            bar.say(f"{bar.title}: {text}")
