"""What the studies share: trials that are kept, run side by side and repeated with several seeds; their table and their figure.

A trial is a setting with a seed: a function called with both, in a process and one thread of its own, that returns metrics. What it returned is
kept in the study's results.json, so the same command again runs only what is missing.
"""

import argparse
import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from maskweave.errors import MaskweaveError
from maskweave.files import read_json, write_aside, write_json
from maskweave.progress import progress
from maskweave.report.curves import COLORS, GRAY, as_png, open_panels

Metrics = dict[str, float]


def parser(name: str, about: str, *, steps: int, seeds: int = 3) -> argparse.ArgumentParser:
    """The options that all studies have.

    Args:
        name: of the folder under runs/studies.
        about: the script's docstring; its first line is shown.
        steps: of training in each trial.
    """
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--out", type=Path, default=Path("runs/studies") / name, help="folder of the study")
    made.add_argument("--seeds", type=int, default=seeds, help="trials of each setting")
    made.add_argument("--jobs", type=int, default=2, help="trials side by side")
    made.add_argument("--steps", type=int, default=steps, help="training steps of each trial")
    return made


class Study:
    """Trials and what came of them.

    Args:
        folder: of the study; results.json and log.txt (what the trials print) are kept there.
        fixed: what is the same in all trials and changes their results, such as the steps.

    Raises:
        MaskweaveError: the folder holds trials with other `fixed` values.
    """

    def __init__(self, folder: Path, **fixed: Any):
        self.folder, self.fixed = folder, fixed
        self._path = folder / "results.json"
        self.trials: dict[tuple[str, int], Metrics] = {}
        """Metrics by setting and seed, `seconds` of processor time among them."""
        if self._path.exists():
            found = read_json(self._path)
            if found["fixed"] != fixed:
                raise MaskweaveError(
                    f"{self._path}: holds trials with {found['fixed']}, not {fixed}; choose another folder with --out, or remove it"
                )
            self.trials = {(trial["setting"], trial["seed"]): trial["metrics"] for trial in found["trials"]}

    def run(
        self,
        function: Callable[[Any, int], Metrics],
        settings: Mapping[str, Any],
        seeds: int | Iterable[int] = 3,
        jobs: int = 2,
    ) -> None:
        """Run the trials that are missing: `function(value, seed)` for the value of each setting. One that fails says so; the others go on.

        Args:
            function: at the top of a module (or a `functools.partial` of such a one), as other processes have to find it; the module's own
                work stands under `if __name__ == "__main__":`.
            seeds: themselves, or how many from 0. The first seed of all settings is run first.
        """
        seeds = range(seeds) if isinstance(seeds, int) else list(seeds)
        trials = [(name, seed) for seed in seeds for name in settings]
        missing = [trial for trial in trials if trial not in self.trials]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes below when they load their libraries
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1)
        title, failed = self.folder.name, 0
        try:
            with progress(title, len(trials), done=len(trials) - len(missing)) as bar:
                work = {
                    pool.submit(_trial, function, settings[name], seed, self.folder / "log.txt"): (name, seed)
                    for name, seed in missing
                }
                for done in as_completed(work):
                    name, seed = trial = work[done]
                    if error := done.exception():
                        failed += 1
                        bar.say(f"{title}: {name}, seed {seed} failed: {type(error).__name__}: {error}")
                    else:
                        self.trials[trial] = done.result()
                        self._save()
                        shown = ", ".join(f"{key} {value:.4g}" for key, value in self.trials[trial].items())
                        bar.say(f"{title}: {name}, seed {seed}: {shown}")
                        bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, too, begin no more
        if failed:
            print(
                f"{failed} of {len(missing)} trials failed, see {self.folder / 'log.txt'}; the same command runs them again"
            )

    def values(self, setting: str, metric: str) -> list[float]:
        """One metric of a setting's trials, in order of their seeds."""
        found = sorted((seed, metrics) for (name, seed), metrics in self.trials.items() if name == setting)
        return [metrics[metric] for _, metrics in found if metric in metrics]

    def table(self, settings: Iterable[str], metrics: Mapping[str, str], head: str = "") -> str:
        """Markdown: a row for each setting that was tried, mean ± standard deviation over its seeds, and their number.

        Args:
            metrics: heads of the columns by metric; a format may follow a bar: "accuracy|.3f".
            head: of the first column.
        """
        columns = {metric: text.partition("|") for metric, text in metrics.items()}
        rows = [[head, *(title for title, _, _ in columns.values()), "seeds"], ["---"] * (len(columns) + 2)]
        for setting in settings:
            found = {metric: self.values(setting, metric) for metric in columns}
            if any(found.values()):
                cells = [spread(found[metric], style or ".3f") for metric, (_, _, style) in columns.items()]
                rows.append([setting, *cells, str(max(map(len, found.values())))])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _save(self) -> None:
        trials = [{"setting": name, "seed": seed, "metrics": m} for (name, seed), m in sorted(self.trials.items())]
        write_json(self._path, {"fixed": self.fixed, "trials": trials})


def _trial(function: Callable[[Any, int], Metrics], value: Any, seed: int, log: Path) -> Metrics:
    """Run one trial in this process."""
    torch.set_num_threads(1)
    with log.open("a") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        start = time.process_time()
        try:
            metrics = function(value, seed)
        except Exception:
            traceback.print_exc()
            raise
        return {**metrics, "seconds": round(time.process_time() - start, 2)}


def spread(values: Sequence[float], style: str = ".3f") -> str:
    """Mean ± standard deviation; a dash for none."""
    if not values:
        return "–"
    deviation = f" ± {stdev(values):{style}}" if len(values) > 1 else ""
    return f"{mean(values):{style}}{deviation}"


@dataclass
class Panel:
    """One diagram of a figure."""

    title: str
    x: str
    """What is along the axis."""
    y: str
    lines: Mapping[str, Mapping[Any, Sequence[float]]] = field(default_factory=dict)
    """By label: values of every seed at each number or word along the axis. Places without values are left out."""
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By label: values of every seed of something that does not change along the axis, drawn as a band with their mean dashed."""


def draw(path: Path, diagrams: Sequence[Panel], width: float = 3.6, height: float = 2.8) -> None:
    """Write diagrams side by side as PNG: a point for every seed, and a line through the means (of words, a dash). Sizes in inches of one."""
    figure, all_axes = open_panels(len(diagrams), width * len(diagrams), height)
    colors: dict[str, str] = {}
    for axes, panel in zip(all_axes, diagrams, strict=True):
        places = list(dict.fromkeys(x for line in panel.lines.values() for x, values in line.items() if values))
        words = any(isinstance(x, str) for x in places)
        at = {x: i if words else x for i, x in enumerate(places)}
        for label, line in panel.lines.items():
            color = colors.setdefault(label, COLORS[len(colors) % len(COLORS)])
            line = {x: values for x, values in line.items() if values}
            style = {"marker": "_", "markersize": 14, "linestyle": "none"} if words else {}
            axes.plot([at[x] for x in line], [mean(v) for v in line.values()], color=color, label=label, **style)
            points = [(at[x], value) for x, values in line.items() for value in values]
            axes.scatter(*zip(*points, strict=True), s=10, color=color, alpha=0.6) if points else None
        for label, values in ((label, values) for label, values in panel.levels.items() if values):
            color = colors.setdefault(label, COLORS[len(colors) % len(COLORS)])
            axes.axhline(mean(values), color=color, linestyle="--", linewidth=1.2, label=label)
            axes.axhspan(min(values), max(values), color=color, alpha=0.12, linewidth=0)
        axes.set_xticks([at[x] for x in places], [str(x) for x in places])
        axes.set_title(panel.title, fontsize=9, color=GRAY)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y, fontsize=8)
        if any([*panel.lines, *panel.levels]):  # a single line needs no name
            axes.legend(frameon=False, labelcolor=GRAY, fontsize=7)
    with write_aside(path) as aside:
        aside.write_bytes(as_png(figure))
