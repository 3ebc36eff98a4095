"""Training metrics: averaged without device syncs, written to FOLDER/metrics.jsonl and TensorBoard events."""

import contextlib
import json
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch
from torch import Tensor

from maskweave.files import parse_json, write_aside
from maskweave.training.distributed import DistContext
from maskweave.training.event_file import EventFile

FILE = "metrics.jsonl"


def sums_dtype(device: torch.device) -> torch.dtype:
    """Returns the precision of sums of many numbers on a device; the GPU of a Mac has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Meter:
    """Weighted means of metrics since the last reset. Sums stay on the device until `state` is called."""

    def __init__(self) -> None:
        # By set of names: one tensor for all metrics of a step, instead of one small kernel per metric.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._names: list[str] = []

    def add(
        self, metrics: Mapping[str, Tensor], weights: Mapping[str, float] | None = None, keep: Tensor | None = None
    ) -> None:
        """Adds the scalars of one batch. Batches may have different metrics; each mean is over the batches that have it.

        Args:
            weights: weight of each metric's value; 1 where it has none.
            keep: bool scalar; where it is False, nothing is added.
        """
        names = tuple(metrics)
        device = next(iter(metrics.values())).device
        dtype = sums_dtype(device)
        values = torch.stack([v.detach().to(device, dtype).reshape(()) for v in metrics.values()])
        given = torch.tensor([(weights or {}).get(name, 1.0) for name in names], dtype=dtype)
        weighted = given.to(device, non_blocking=True)
        added = torch.stack([values * weighted, weighted])
        if keep is not None:
            added = torch.where(keep, added, 0.0)
        self._sums[names] = self._sums[names] + added if names in self._sums else added

    def state(self) -> list[dict[str, Any]]:
        """Returns sums and weights for a checkpoint, so that means do not change when a run resumes between two logs."""
        found = ((names, *total.tolist()) for names, total in self._sums.items())
        return [{"names": list(names), "sums": sums, "weights": weights} for names, sums, weights in found]

    def load(self, states: Iterable[list[dict[str, Any]]], device: torch.device) -> None:
        """Loads one or several `state`s."""
        self._sums = {}
        for row in (row for state in states for row in state):
            weights = row.get("weights") or [row["count"]] * len(row["names"])  # a count in older checkpoints
            total = torch.tensor([row["sums"], weights], dtype=sums_dtype(device), device=device)
            names = tuple(row["names"])
            self._sums[names] = self._sums[names] + total if names in self._sums else total

    def reset(self) -> None:
        self._sums = {}

    def means(self, ranks: DistContext) -> dict[str, float]:
        """Returns the means over all processes, of the metrics that any of them has. All processes must call it."""
        mine: dict[str, Tensor] = {}
        for row in self.state():
            for name, *pair in zip(row["names"], row["sums"], row["weights"], strict=True):
                mine[name] = mine.get(name, torch.zeros(2, dtype=torch.float64)) + torch.tensor(
                    pair, dtype=torch.float64
                )
        if ranks.any(
            not mine.keys() <= {*self._names}
        ):  # seldom: new names are the only thing that is sent as an object
            self._names = list(dict.fromkeys(name for names in ranks.gather([*self._names, *mine]) for name in names))
        nothing = torch.zeros(2, dtype=torch.float64)
        totals = ranks.sum(torch.stack([mine.get(name, nothing) for name in self._names])) if self._names else nothing
        return {
            name: total / weight for name, (total, weight) in zip(self._names, totals.tolist(), strict=False) if weight
        }


class Clock:
    """Measures training time without pauses, and what is done per second.

    Args:
        seconds: training time of earlier starts.
    """

    def __init__(self, seconds: float):
        now = time.monotonic()
        self._start, self._read = now - seconds, now

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def lap(self) -> float:
        """Returns the seconds since the last call."""
        now = time.monotonic()
        lap = max(now - self._read, 1e-9)
        self._read = now
        return lap

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._start += time.monotonic() - began
        self._read += time.monotonic() - began


class MetricsLog:
    """Context manager that writes lines of metrics.jsonl and TensorBoard events.

    One line is `{step, split, loss, …}` with split "train" or "validation"; values that are not finite are null.
    Training lines also have learning_rate, gradient_norm, samples_per_second and seconds (training time over all starts).

    Args:
        folder: run folder.
        step: step to resume at. Lines after it are deleted, because the resumed run writes them again.
        on: if False, nothing is written.
    """

    def __init__(self, folder: Path, step: int, on: bool = True):
        self._file: IO[str] | None = None
        self._events: EventFile | None = None
        if not on:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / FILE).exists():
            kept = [json.dumps(line) + "\n" for line in read_metrics(folder) if line["step"] <= step]
            with write_aside(folder / FILE) as aside:
                aside.write_text("".join(kept), encoding="utf-8")
        self._file = open(folder / FILE, "a", encoding="utf-8")  # noqa: SIM115
        with contextlib.suppress(ImportError):  # optional dependency
            self._events = EventFile(folder / "events", step + 1)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Writes one line and flushes the file."""
        if self._file is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(step, {f"{split}/{name}": value for name, value in metrics.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl in a run folder; an empty list if the file does not exist.

    An incomplete last line, left by a killed process, is ignored. Other invalid lines are skipped with a warning.
    """
    try:
        text = (Path(folder) / FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    written = text.split("\n")  # not splitlines, which also splits at other characters
    for number, line in enumerate(written[:-1], 1):  # every complete line ends with a line break
        try:
            content = parse_json(line)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict) and isinstance(content.get("step"), int) and "split" in content:
            lines.append(content)
        else:
            warnings.warn(f"{Path(folder) / FILE}: line {number} is not a line of metrics; skipped", stacklevel=2)
    return lines
