"""The one training loop. Tokenizers, 4M and everything else that is trained are objectives handed to `fit`.

Reads top to bottom: `fit` makes the state and resumes it; `_train` is the loop; then its parts, from a step to an ending.
The objective knows nothing of devices, precision, averages, processes or files: all of these are applied here, from outside.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskweave.data.order import Batches, SizedBatches
from maskweave.errors import MaskweaveError
from maskweave.interruption import Interrupted, StopSignal
from maskweave.nn.cpu import keep_freed_memory
from maskweave.progress import Progress, progress
from maskweave.training import checkpoints
from maskweave.training.checkpoints import State
from maskweave.training.distributed import connect
from maskweave.training.hardware import compile_blocks
from maskweave.training.loading import load
from maskweave.training.metrics import Clock, Meter, MetricsLog, means
from maskweave.training.optimizer import (
    Average,
    build_optimizer,
    clip_gradients,
    gradient_parts,
    learning_rate,
    trained,
)
from maskweave.training.settings import TrainSettings, is_due

CHECK_EVERY = 50
"""Steps between looks for non-finite numbers on a GPU, which has to be waited for each time."""


class NonFinite(MaskweaveError):
    """The loss or the gradient stopped being a number; the message names the step and the batch's modalities."""


@dataclass(frozen=True)
class FitResult:
    """What a training came to. The objective itself holds the final weights."""

    steps: int
    metrics: dict[str, float]
    """The last training line, and the last validation's as `validation/NAME`."""
    checkpoint: Path
    seconds: float
    """Training, over all starts."""
    resumed_from: int = 0
    """Step at which this start took over; 0 for a fresh run."""


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
    """Train `objective`, or go on where run `folder` left off; a finished run returns at once.

    Afterwards the objective is in evaluation mode with the final weights: their moving average if `settings.ema` is on.

    Args:
        objective: called with a batch, returns the loss and a dict of metrics, all scalar tensors. It may have a method
            `warnings(metrics: dict[str, float]) -> list[str]`, asked at each line of metrics; each warning is shown once; and one
            `rate_factors() -> dict[str, float]` with factors on the learning rate of single parameters.
        batches: batch i at index i, for any i from 0; with `.to(device)`, `.names` (its modalities) and a length (its
            samples). It must be a pure function of i.
        folder: run folder; gets metrics.jsonl, events/ and checkpoints/.
        validation: batches whose mean metrics are taken now and then, in evaluation mode.
        title: what is being trained, for the progress line.
        resume_command: what to type to go on after an interruption.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint is written.
        NonFinite: the loss or gradient is not finite; nothing is overwritten.
        FullDisk: no space for a checkpoint; the earlier ones are untouched.
        MaskweaveError: the folder's checkpoint doesn't fit the objective or the settings.
    """
    folder = Path(folder)
    ranks = connect(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed + ranks.rank)
    if settings.lazy_embeddings and ranks.world > 1:
        raise MaskweaveError("lazy_embeddings is for one process; set it to false, or processes to 1")
    if ranks.device.type == "cpu":
        keep_freed_memory()
    objective.to(ranks.device).train()
    optimizer, names = build_optimizer(objective, settings)
    average = Average(objective, settings.ema) if settings.ema else None
    state = State(objective, optimizer, names, average, settings, ranks)
    changes = checkpoints.resume(folder, state)
    resumed_from = state.step
    title = title or "training"
    finished = state.step == settings.steps
    with progress(title, settings.steps, done=state.step, quiet=finished or not ranks.is_main) as bar:
        if not finished:
            for change in changes:
                bar.say(f"{title}: {change}")
            _train(state, batches, validation, folder, bar, resume_command)
    ranks.any(False)  # wait until the first process has written everything
    if state.average is not None:
        state.average.swap()
    objective.eval()
    assert state.path is not None
    return FitResult(state.step, state.metrics, state.path, state.seconds, resumed_from)


def _train(
    state: State, batches: Batches, validation: SizedBatches | None, folder: Path, bar: Progress, resume_command: str
) -> None:
    """Steps until the last one, or until told to stop."""
    objective, settings, ranks, steps = state.objective, state.settings, state.ranks, state.settings.steps
    per_step = settings.accumulate * ranks.world
    coming = load(
        batches, range(state.step * per_step + ranks.rank, steps * per_step, ranks.world), settings.workers, ranks
    )
    if settings.compile:
        compile_blocks(objective)
    update = _Update(state, ranks.wrap(objective))
    clock = Clock(state.seconds)
    shown: set[str] = set()
    with StopSignal() as stop, MetricsLog(folder, state.step, on=ranks.is_main) as log:
        while state.step < steps:
            clock.samples += update(coming) * ranks.world
            state.step += 1
            stopping = ranks.any(stop.asked)
            logs = is_due(settings.log_every, state.step, steps)
            validates = is_due(settings.validate_every, state.step, steps) and validation is not None
            saves = is_due(settings.checkpoint_every, state.step, steps) or stopping
            if logs or validates or saves or state.step % CHECK_EVERY == 0:
                update.check()
            if logs:
                line = means(ranks.gather(state.meter.state()))
                state.meter.reset()
                line["learning_rate"] = learning_rate(state.step - 1, settings)
                line["samples_per_second"] = clock.rate()
                line["seconds"] = clock.seconds()
                log.write(state.step, "train", line)
                state.metrics.update(line)
                bar.advance(0, loss=line["loss"], samples_per_second=round(line["samples_per_second"]))
                _warn(objective, line, shown, bar)
            if validates and validation is not None:
                with clock.pause():
                    found = _validate(state, validation)
                log.write(state.step, "validation", found)
                state.metrics.update({f"validation/{name}": value for name, value in found.items()})
                bar.advance(0, validation=found["loss"])
            if saves:
                with clock.pause():
                    state.seconds = clock.seconds()
                    checkpoints.save(folder, state)
            bar.advance()
            if stopping or (state.step == steps and ranks.any(stop.asked)):
                how = f"go on with: {resume_command}" if resume_command else "start the same command again to go on"
                raise Interrupted(f"stopped after step {state.step} of {steps}; the checkpoint is {state.path}; {how}")


class _Update:
    """One update of the weights: batches through the objective, gradients, clipping, AdamW, the moving average.

    Remembers which losses were finite until `check` asks: on a GPU each look would wait for all the work under way.
    """

    def __init__(self, state: State, wrapped: nn.Module):
        self.state, self.wrapped = state, wrapped
        self.parameters = list(trained(state.objective).values())
        self._unchecked: list[tuple[str, Tensor]] = []

    def __call__(self, coming: Iterator[Any]) -> int:
        """Returns the samples seen."""
        state, settings, ranks, samples = self.state, self.state.settings, self.state.ranks, 0
        names: set[str] = set()
        for number in range(1, settings.accumulate + 1):
            batch = next(coming).to(ranks.device)
            samples += len(batch)
            names.update(batch.names)
            with ranks.accumulating(self.wrapped) if number < settings.accumulate else nullcontext():
                with _precision(state):
                    loss, metrics = self.wrapped(batch)
                (loss / settings.accumulate).backward()
            state.meter.add({"loss": loss, **metrics})
            self._note("loss", batch.names, loss)
        gradients = gradient_parts(self.parameters)
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        self._note("gradient", sorted(names), norm)
        if ranks.device.type == "cpu":
            self.check()  # costs nothing here, and so spares the weights
        if settings.clip:
            clip_gradients(gradients, norm, settings.clip)
        state.meter.add({"gradient_norm": norm})
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, settings) * group["rate_factor"]
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update(state.step + 1)
        return samples

    def _note(self, what: str, names: Sequence[str], value: Tensor) -> None:
        text = f"step {self.state.step + 1}: the {what} is not finite, on a batch of {', '.join(names)}"
        self._unchecked.append((text, value.detach().isfinite()))

    def check(self) -> None:
        """Look at all that was noted since the last time.

        Raises:
            NonFinite: for the first loss or gradient that was not finite.
        """
        if not self._unchecked:
            return
        texts, finite = zip(*self._unchecked, strict=True)
        self._unchecked = []
        for text, ok in zip(texts, torch.stack(finite).tolist(), strict=True):
            if not ok:
                kept = (
                    f"the last good checkpoint is {self.state.path}"
                    if self.state.path
                    else "no checkpoint was due before"
                )
                raise NonFinite(
                    f"{text}; training stopped and {kept}. Look at these values, lower learning_rate, or set a smaller clip"
                )


def _validate(state: State, validation: SizedBatches) -> dict[str, float]:
    """Mean metrics over all validation batches, with the averaged weights if there are any.

    Each time with the same random numbers, so that validations compare, and without touching those of training.
    """
    ranks, meter = state.ranks, Meter()
    if state.average is not None:
        state.average.swap()
    state.objective.eval()
    try:
        devices = [ranks.device] if ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode(), _precision(state):
            torch.manual_seed(state.settings.seed)
            for batch in load(
                validation, range(ranks.rank, len(validation), ranks.world), state.settings.workers, ranks
            ):
                loss, metrics = state.objective(batch.to(ranks.device))
                meter.add({"loss": loss, **metrics})
    finally:
        state.objective.train()
        if state.average is not None:
            state.average.swap()
    return means(ranks.gather(meter.state()))


def _precision(state: State) -> torch.autocast:
    return torch.autocast(state.ranks.device.type, torch.bfloat16, enabled=state.settings.precision == "bf16")


def _warn(objective: nn.Module, line: dict[str, float], shown: set[str], bar: Progress) -> None:
    """Pass on the objective's warnings, each once, whatever numbers it holds."""
    for text in getattr(objective, "warnings", lambda _: [])(line):
        gist = re.sub(r"[\d.]+", "", text)
        if gist not in shown:
            shown.add(gist)
            bar.say(f"{bar.title}: {text}")
