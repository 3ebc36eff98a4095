"""How a training run uses the cores of this machine: one process of many threads, or many processes of one thread each.

With `train.processes: auto` the possible layouts are measured at the start, by real updates of the run's own model and batches whose results are thrown
away, and the fastest is taken. An update has batch_size × accumulate samples with each of them, and the same loss but for rounding.
The choice is written to the run folder, so that a resumed run continues bit for bit on the same machine.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from maskweave import ranks
from maskweave.data.order import Batches
from maskweave.files import read_json_object, write_json
from maskweave.interruption import Interrupted, StopSignal
from maskweave.nn.cpu import this_processor
from maskweave.training.blocks import checkpoint_activations
from maskweave.training.distributed import connect
from maskweave.training.hardware import torch_threads
from maskweave.training.loading import load
from maskweave.training.preparing import prepare
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import Stepper
from maskweave.training.updates import Updates

FILE = "layout.json"
WARM_UP, FEWEST, MOST = 3, 5, 30
"""Updates before the timed ones, and numbers of timed updates."""
SECONDS = 3.0
"""Of the timed updates of a layout, within these numbers."""


class CoreLayout(NamedTuple):
    """Processes that train together, and the threads of each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        several, threads = self.processes > 1, self.threads > 1
        return f"{self.processes} process{'es' * several} of {self.threads} thread{'s' * threads}"


def layouts(settings: TrainSettings, cores: int, multiple: int = 1) -> list[CoreLayout]:
    """Returns the layouts to choose from: one process of all cores or of one, and a process for each core if they can share the batch equally.

    Args:
        multiple: the batch of each process has a multiple of so many samples.
    """
    if settings.threads:
        found = [CoreLayout(1, settings.threads), CoreLayout(cores // settings.threads, settings.threads)]
    else:
        found = [CoreLayout(1, cores), CoreLayout(1, 1), CoreLayout(cores, 1)]
    fits = [one for one in found if one.processes > 0 and settings.batch_size % (one.processes * multiple) == 0]
    return [one for one in dict.fromkeys(fits) if one.processes == 1 or not _is_alone(settings)]


def _is_alone(settings: TrainSettings) -> bool:
    """Whether only one process can train."""
    return settings.lazy_embeddings or settings.parallel == "none"


def with_layout(settings: TrainSettings, layout: CoreLayout) -> TrainSettings:
    """Returns the settings of each process; an update has the same samples."""
    each = settings.batch_size // layout.processes
    return replace(settings, processes=layout.processes, threads=layout.threads, batch_size=each)


def settle(
    settings: TrainSettings, folder: Path, measure: Callable[[TrainSettings], float], multiple: int = 1
) -> TrainSettings:
    """Returns settings with a number of processes. They are unchanged if they have one already.

    Under a launcher that starts the processes, `auto` is one process. On GPUs, it is one for each GPU, of as many as divide the batch. With `compile`,
    which takes too long to be measured, it is one process of all cores.

    Args:
        folder: run folder, in which the choice is kept.
        measure: returns the seconds per update of settings with a layout.
        multiple: as for `layouts`.
    """
    if settings.processes != "auto":
        return settings
    if ranks.world() > 1:
        return replace(settings, processes=1)
    if settings.device == "mps":
        return replace(settings, processes=1)
    if settings.device != "cpu" and torch.cuda.is_available():
        return _one_for_each_gpu(settings, torch.cuda.device_count(), multiple)
    cores = torch.get_num_threads()
    choices = layouts(settings, cores, multiple)
    if len(choices) == 1:
        return with_layout(settings, choices[0])
    if settings.compile:
        print(f"train with {choices[0]}; others are not measured, because train.compile is true")
        return with_layout(settings, choices[0])
    machine = {"vendor": this_processor().vendor, "cores": cores}
    known = _known(folder / FILE, machine, choices)
    if known is None:
        seconds = {choice: measure(with_layout(settings, choice)) for choice in choices}
        known = min(seconds, key=lambda choice: seconds[choice])
        samples = settings.batch_size * settings.accumulate
        measured = {str(choice): samples / took for choice, took in seconds.items()}
        write_json(folder / FILE, {**machine, "chosen": known, "samples_per_second": measured})
        print(f"train with {known}; samples per second: {', '.join(f'{k} {v:.0f}' for k, v in measured.items())}")
    return with_layout(settings, known)


def _one_for_each_gpu(settings: TrainSettings, gpus: int, multiple: int) -> TrainSettings:
    if _is_alone(settings):
        used = 1
        why = "train.lazy_embeddings is true" if settings.lazy_embeddings else "train.parallel is none"
    else:
        used = max(n for n in range(1, gpus + 1) if settings.batch_size % (n * multiple) == 0)
        parts = f" into multiples of {multiple}" if multiple > 1 else ""
        why = f"{settings.batch_size} samples, train.batch_size, are not divided equally{parts} among more"
    if used < gpus:
        print(f"train on {used} of {gpus} GPUs, because {why}")
    return replace(settings, processes=used, batch_size=settings.batch_size // used)


def _known(path: Path, machine: dict[str, Any], choices: list[CoreLayout]) -> CoreLayout | None:
    """Returns the layout that was chosen on this machine before, if it is still possible."""
    if not path.is_file():
        return None
    content = read_json_object(path)
    same = all(content.get(key) == value for key, value in machine.items())
    return next((choice for choice in choices if same and content.get("chosen") == [*choice]), None)


def seconds_per_update(objective: nn.Module, batches: Batches, settings: TrainSettings) -> float:
    """Returns the median time of some updates in the processes that called this together. They are those of `fit`, but for `compile`. Nothing is written.

    Raises:
        Interrupted: Ctrl-C or SIGTERM was received.
    """
    context = connect(settings.device)
    took: list[float] = []
    with torch_threads(settings.threads):
        state, batches, plan, _ = prepare(objective, batches, settings, context)
        stepper = Stepper(state, batches)
        last = (WARM_UP + MOST) * settings.accumulate * context.world
        with StopSignal() as stop, checkpoint_activations(state.objective, plan.checkpointing):
            updates = Updates(
                load(batches, range(context.rank, last, context.world), settings.workers, context),
                objective, context, settings.accumulate, WARM_UP + MOST, lambda: bool(stop.asked),
            )  # fmt: skip
            began = time.perf_counter()
            for number, update in enumerate(updates, 1 - WARM_UP):
                stepper(update)
                now = time.perf_counter()
                took, began = [*took, now - began], now
                # Other processes must stop at the same update, so the time of the first one decides.
                if number >= FEWEST and context.any(context.is_main and sum(took[WARM_UP:]) > SECONDS):
                    break
            if updates.stopped or context.any(stop.asked):
                raise Interrupted("stopped before the first step; run the same command again to start")
    return statistics.median(took[WARM_UP:])
