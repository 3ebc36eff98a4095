"""Code shared by all studies: runs trials in parallel with several seeds, stores their results, and makes the table and the figure.

A trial is a setting with a seed: a function is called with both, in its own process with one thread, and returns metrics. The metrics are
stored in the study's results.json, so running the same command again runs only the missing trials.
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

import numpy as np
import torch

from maskweave.errors import MaskweaveError
from maskweave.files import read_json, write_aside, write_json
from maskweave.progress import progress
from maskweave.report.curves import COLORS, GRAY, as_png, open_panels

Metrics = dict[str, float]
QUICK = 20
"""Steps of a trial with --quick."""
FEW_LINES = 5
"""Lines of a panel whose legend fits among them."""


def parser(name: str, about: str, *, steps: int, seeds: int = 3) -> argparse.ArgumentParser:
    """Returns a parser with the options of all studies.

    Args:
        name: name of the folder under runs/studies.
        about: the script's docstring; its first line is the description.
        steps: default training steps per trial.
    """
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--out", type=Path, default=Path("runs/studies") / name, help="folder of the study")
    made.add_argument("--seeds", type=int, default=seeds, help="number of trials per setting")
    made.add_argument("--jobs", type=int, default=2, help="number of trials that run in parallel")
    made.add_argument("--steps", type=int, default=steps, help="training steps per trial")
    about_quick = (
        f"{QUICK} steps, one seed and a folder of its own, to see that everything works; the scores mean nothing"
    )
    made.add_argument("--quick", action=_Quick, nargs=0, default=False, help=about_quick)
    return made


class _Quick(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        namespace.steps, namespace.seeds, namespace.quick = QUICK, 1, True
        namespace.out = namespace.out.with_name(f"{namespace.out.name}_quick")


class Study:
    """Trials and their results.

    Args:
        folder: folder of the study, with results.json and log.txt (the output of the trials).
        fixed: values that are the same in all trials and affect the results, such as the number of steps.

    Raises:
        MaskweaveError: the folder contains trials with other `fixed` values.
    """

    def __init__(self, folder: Path, **fixed: Any):
        self.folder, self.fixed = folder, fixed
        self._path = folder / "results.json"
        self.trials: dict[tuple[str, int], Metrics] = {}
        """Metrics by setting and seed; `seconds` is the CPU time."""
        if self._path.exists():
            found = read_json(self._path)
            if found["fixed"] != fixed:
                raise MaskweaveError(
                    f"{self._path}: contains trials with {found['fixed']}, expected {fixed}; choose another folder with --out, or remove the file"
                )
            self.trials = {(trial["setting"], trial["seed"]): trial["metrics"] for trial in found["trials"]}

    def run(
        self,
        function: Callable[[Any, int], Metrics],
        settings: Mapping[str, Any],
        seeds: int | Iterable[int] = 3,
        jobs: int = 2,
    ) -> None:
        """Runs the missing trials: `function(value, seed)` for the value of each setting. A trial that fails is reported; the others continue.

        Args:
            function: a module-level function, or a `functools.partial` of one, because other processes import it. The module's
                script code must be under `if __name__ == "__main__":`.
            seeds: the seeds, or their number, counted from 0. Trials are ordered by seed.
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
            pool.shutdown(cancel_futures=True)  # also after Ctrl-C: start no further trials
        if failed:
            print(
                f"{failed} of {len(missing)} trials failed; see {self.folder / 'log.txt'}, then run the same command again to repeat them"
            )

    def values(self, setting: str, metric: str) -> list[float]:
        """One metric of a setting's trials, ordered by seed."""
        found = sorted((seed, metrics) for (name, seed), metrics in self.trials.items() if name == setting)
        return [metrics[metric] for _, metrics in found if metric in metrics]

    def table(self, settings: Iterable[str], metrics: Mapping[str, str], head: str = "") -> str:
        """Returns a Markdown table with a row per setting: mean ± standard deviation over the seeds, and the number of seeds.

        Args:
            metrics: column headings by metric; a number format may follow a bar: "accuracy|.3f".
            head: heading of the first column.
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
    """Runs one trial in this process."""
    torch.set_num_threads(1)
    with log.open("a", encoding="utf-8") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        start = time.process_time()
        try:
            metrics = function(value, seed)
        except Exception:
            traceback.print_exc()
            raise
        return {**metrics, "seconds": round(time.process_time() - start, 2)}


def spread(values: Sequence[float], style: str = ".3f") -> str:
    """Mean ± standard deviation, or a dash if there are no values."""
    if not values:
        return "–"
    deviation = f" ± {stdev(values):{style}}" if len(values) > 1 else ""
    return f"{mean(values):{style}}{deviation}"


@dataclass
class Panel:
    """One diagram of a figure."""

    title: str
    x: str
    """Label of the x axis."""
    y: str
    lines: Mapping[str, Mapping[Any, Sequence[float]]] = field(default_factory=dict)
    """By label: the values of all seeds at each x, a number or a category. An x without values is omitted."""
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By label: the values of all seeds of a quantity that does not depend on x. Drawn as a band with a dashed line at the mean."""
    curves: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    """By the label of a line: a law that was fitted to it, drawn dashed instead of the line through the means, on axes with logarithmic scales."""


def draw(path: Path, diagrams: Sequence[Panel], width: float = 3.6, height: float = 2.8, rows: int = 1) -> None:
    """Writes diagrams into a PNG, in rows: a point per seed and a line through the means (for categories, a dash). `width` and `height` are those of one diagram, in inches."""
    figure, all_axes = open_panels(len(diagrams), width * len(diagrams) / rows, height * rows, rows)
    colors: dict[str, str] = {}
    for axes, panel in zip(all_axes, diagrams, strict=True):
        ticks = list(dict.fromkeys(x for line in panel.lines.values() for x, values in line.items() if values))
        categories = any(isinstance(x, str) for x in ticks)
        at = {x: i if categories else x for i, x in enumerate(ticks)}
        for label, line in panel.lines.items():
            color = colors.setdefault(label, COLORS[len(colors) % len(COLORS)])
            line = {x: values for x, values in line.items() if values}
            style = {"marker": "_", "markersize": 14, "linestyle": "none"} if categories else {}
            if curve := panel.curves.get(label):
                fine = np.geomspace(min(line), max(line), 50)
                axes.plot(fine, curve(fine), color=color, linestyle="--", linewidth=1.2, label=label)
            else:
                axes.plot([at[x] for x in line], [mean(v) for v in line.values()], color=color, label=label, **style)
            points = [(at[x], value) for x, values in line.items() for value in values]
            axes.scatter(*zip(*points, strict=True), s=10, color=color, alpha=0.6) if points else None
        for label, values in ((label, values) for label, values in panel.levels.items() if values):
            color = colors.setdefault(label, COLORS[len(colors) % len(COLORS)])
            axes.axhline(mean(values), color=color, linestyle="--", linewidth=1.2, label=label)
            axes.axhspan(min(values), max(values), color=color, alpha=0.12, linewidth=0)
        if panel.curves:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.minorticks_off()
            shown = (
                ticks
                if len(ticks) < 6
                else [round(x, 1 - len(str(int(x)))) for x in np.geomspace(*axes.get_xlim(), 5)[1:-1]]
            )
            axes.set_xticks(shown, [f"{x:,.0f}" for x in shown])
            marks = np.geomspace(*axes.get_ylim(), 5)[1:-1]
            axes.set_yticks(marks, [f"{mark:.3g}" for mark in marks])
        else:
            axes.set_xticks([at[x] for x in ticks], [str(x) for x in ticks])
        axes.set_title(panel.title, fontsize=9, color=GRAY)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y, fontsize=8)
        if any([*panel.lines, *panel.levels]):  # a single line needs no legend
            many = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(panel.lines) > FEW_LINES else {}
            axes.legend(frameon=False, labelcolor=GRAY, fontsize=7, **many)
    with write_aside(path) as aside:
        aside.write_bytes(as_png(figure))
