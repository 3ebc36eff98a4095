"""Label efficiency: the scores of a transfer or of probes with shares of the training examples, as a table and a figure.

Smaller shares are parts of larger ones, chosen by the hashes of the samples' names.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.data.split import hash_names
from maskweave.errors import MaskweaveError, shown
from maskweave.evaluate.run import EvaluationRow
from maskweave.files import write_aside, write_json
from maskweave.generate.features import FeatureExtractor
from maskweave.limits import limited_to
from maskweave.ranks import is_main_process
from maskweave.report.curves import COLORS, GRAY, as_png, open_panels
from maskweave.report.tables import short_number
from maskweave.training.run_folder import writing
from maskweave.transfer.data import Parts, open_examples
from maskweave.transfer.probe import Labeled, probe_features, probe_rows
from maskweave.transfer.recipe import TransferRecipe
from maskweave.transfer.run import run_transfer


class CurvePoint(NamedTuple):
    """The scores of one share."""

    fraction: float
    examples: int
    rows: list[EvaluationRow]


def parse_fractions(text: str) -> list[float]:
    """Returns the shares in a text such as `0.01,0.1,1`, ascending.

    Raises:
        MaskweaveError: one is not above 0 up to 1.
    """
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = [math.nan]
    if not found or not all(0 < share <= 1 for share in found):
        raise MaskweaveError(f"--fractions is {shown(text)}; expected shares above 0 up to 1, such as 0.01,0.1,1")
    return found


def counts(fractions: Sequence[float], total: int, least: int = 2) -> list[int]:
    """Returns the number of examples of each share.

    Raises:
        MaskweaveError: a share has fewer than `least` examples.
    """
    found = [round(share * total) for share in fractions]
    if found[0] < least:
        raise MaskweaveError(
            f"--fractions: {fractions[0]:g} of {total} training examples are {found[0]}, expected {least} or more; leave it out, or give more examples"
        )
    return found


def transfer_curve(
    recipe: TransferRecipe, fractions: Sequence[float], folder: Path, command: str = ""
) -> list[CurvePoint]:
    """Runs a transfer for each share into `folder/fraction-SHARE`; finished ones are not repeated. Writes `fractions.json` and `fractions.png`.

    Raises:
        MaskweaveError: as `run_transfer`; a share is too small.
    """
    with limited_to(recipe.limits):
        parts = open_examples(recipe.data, recipe.load_catalog(), recipe.inputs, recipe.target, recipe.label)
    points = []
    with writing(folder):
        for share, count in zip(fractions, counts(fractions, len(parts.train)), strict=True):
            some = replace(recipe, data=replace(recipe.data, samples=count))
            rows = run_transfer(some, folder / f"fraction-{share:g}", command)
            points.append(CurvePoint(share, count, rows))
        if is_main_process():
            write_curve(points, folder)
    return points


def probe_curve(
    features: FeatureExtractor,
    examples: Parts,
    fractions: Sequence[float],
    folder: Path,
    seed: int,
    statistics: bool | None = None,
    **options: Any,
) -> list[CurvePoint]:
    """Fits the probes to each share of the training examples, whose features are computed once. Writes `fractions.json` and `fractions.png`; arguments as for
    `probe`. Of launched processes, only the first one returns points."""
    found = probe_features(features, examples, statistics, **options)
    if found is None:
        return []
    train, held_out = found
    order = np.argsort(hash_names(map(examples.train.key, train.numbers)), kind="stable")[::-1].copy()
    points = []
    for share, count in zip(fractions, counts(fractions, len(order)), strict=True):
        chosen = np.sort(order[:count])
        index = torch.from_numpy(chosen)
        some = Labeled(
            train.features[index],
            train.labels[index],
            None if train.folds is None else train.folds[chosen],
            [train.numbers[i] for i in chosen.tolist()],
            train.blocks,
            None if train.raw_weights is None else [train.raw_weights[i] for i in chosen.tolist()],
        )
        points.append(CurvePoint(share, count, probe_rows(features.encoder.names, examples, some, held_out, seed)))
    write_curve(points, folder)
    return points


def curve_table(points: Sequence[CurvePoint]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows: one row per metric, one column per share."""
    heads = ["target", "metric", "better", *(f"{p.fraction:g} ({p.examples})" for p in points), "constant"]
    rows = []
    for row in points[-1].rows:
        if row.part:
            continue
        found = [next((r.value for r in p.rows if r.metric == row.metric), math.nan) for p in points]
        rows.append([row.target, row.metric, row.better, *map(short_number, [*found, row.constant])])
    return heads, rows


def write_curve(points: Sequence[CurvePoint], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = [
        {
            "fraction": p.fraction,
            "examples": p.examples,
            "scores": {r.metric: r.value for r in p.rows},
            "constants": {r.metric: r.constant if math.isfinite(r.constant) else None for r in p.rows},
        }
        for p in points
    ]
    write_json(folder / "fractions.json", content)
    with write_aside(folder / "fractions.png") as aside:
        aside.write_bytes(curve_figure(points))


def curve_figure(points: Sequence[CurvePoint]) -> bytes:
    """Plots each metric over the number of examples, with the best constant as a dashed line."""
    metrics = [row for row in points[-1].rows if not row.part][:4]
    figure, panels = open_panels(max(1, len(metrics)), width=3.1 * max(1, len(metrics)), height=2.3)
    for axes, row, color in zip(panels, metrics, COLORS, strict=False):
        values = [next((r.value for r in p.rows if r.metric == row.metric), math.nan) for p in points]
        axes.plot([p.examples for p in points], values, "o-", color=color, linewidth=1.6)
        if math.isfinite(row.constant):
            axes.axhline(row.constant, color=GRAY, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("training examples")
        axes.set_title(row.metric, fontsize=9, color=GRAY, parse_math=False)
    return as_png(figure)
