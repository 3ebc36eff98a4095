"""Curves of training metrics, as `read_metrics` returns them: loss, loss by modality, and a tokenizer's codebook use.

Each function returns a PNG with a transparent background and gray text, readable on light and dark pages, or None
if there is nothing to draw.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Lines = Sequence[Mapping[str, Any]]
COLORS = ("#3b82d6", "#e08a1e", "#1fa37a", "#c2559d", "#d9553b", "#7c6ddb", "#8a9a2b", "#2aa9b8", "#9c6b4a", "#8b8f96")
GRAY = "#7d8186"
MODALITY_PREFIX = "loss/"


def series(lines: Lines, metric: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and the finite values of one metric of one split ("train" or "validation")."""
    points = [(line["step"], line[metric]) for line in lines if line["split"] == split and _is_number(line.get(metric))]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, dtype=np.float64), np.array(values, dtype=np.float64)


def final(lines: Lines, metric: str) -> float | None:
    """Returns the last value of a metric, from the validation split if it has any."""
    for split in ("validation", "train"):
        _, values = series(lines, metric, split)
        if len(values):
            return float(values[-1])
    return None


def loss_curves(lines: Lines) -> bytes | None:
    """Plots training loss, raw (pale) and smoothed, and validation loss over steps."""
    figure, (axes,) = open_panels(1, width=6.6, height=3.0)
    if not _plot(axes, lines, "loss"):
        return None
    axes.set_ylabel("loss")
    axes.legend(frameon=False, labelcolor=GRAY, fontsize=8)
    return as_png(figure)


def modality_curves(lines: Lines) -> bytes | None:
    """Plots the loss of each modality (metrics `loss/NAME`) over steps: validation if it has two points or more, otherwise training."""
    names = sorted({key for line in lines for key in line if key.startswith(MODALITY_PREFIX)})
    figure, (axes,) = open_panels(1, width=6.6, height=3.0)
    drawn = 0
    for name in names:
        steps, values = series(lines, name, "validation")
        if len(steps) < 2:
            steps, values = series(lines, name, "train")
            values = smooth(values)
        if len(steps):
            style = ("-", "--", ":")[drawn // len(COLORS) % 3]
            label = name.removeprefix(MODALITY_PREFIX)
            axes.plot(steps, values, style, color=COLORS[drawn % len(COLORS)], linewidth=1.6, label=label)
            if len(steps) == 1:
                axes.lines[-1].set_marker("o")
            drawn += 1
    if not drawn:
        return None
    axes.set_ylabel("loss by modality")
    names_shown = axes.legend(
        frameon=False, labelcolor=GRAY, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + drawn // 14
    )
    for text in names_shown.get_texts():
        text.set_parse_math(False)  # a name may contain dollar signs
    return as_png(figure)


def tokenizer_curves(lines: Lines) -> bytes | None:
    """Plots reconstruction loss, codebook use and perplexity over steps, side by side; only the loss if none of them was logged."""
    wanted = [
        ("reconstruction", "reconstruction loss"),
        ("codebook_use", "codebook use (%)"),
        ("perplexity", "perplexity"),
    ]
    panels = [(key, label) for key, label in wanted if final(lines, key) is not None] or [("loss", "loss")]
    figure, all_axes = open_panels(len(panels), width=3.1 * len(panels), height=2.1)
    for axes, (key, label) in zip(all_axes, panels, strict=True):
        scale = 100.0 if key == "codebook_use" else 1.0
        if not _plot(axes, lines, key, scale) and key == "loss":
            return None
        if key == "codebook_use":
            axes.set_ylim(0, 105)
        elif key == "perplexity":
            axes.set_ylim(bottom=0)
        axes.set_title(label, fontsize=9, color=GRAY)
    return as_png(figure)


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the exponential moving average over about 1/50 of the points, without bias at the start."""
    decay = 1 - 1 / max(1.0, len(values) / 50)
    total, weight, out = 0.0, 0.0, np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = decay * total + value, decay * weight + 1
        out[i] = total / weight
    return out


def _plot(axes: Any, lines: Lines, metric: str, scale: float = 1.0) -> bool:
    """Plots both splits of a metric; returns False if there is nothing to draw."""
    drawn = False
    steps, values = series(lines, metric, "train")
    if len(steps):
        marker = "o" if len(steps) == 1 else ""
        axes.plot(steps, values * scale, color=COLORS[0], alpha=0.28, linewidth=1)
        axes.plot(
            steps, smooth(values) * scale, color=COLORS[0], linewidth=1.6, marker=marker, markersize=3, label="train"
        )
        drawn = True
    steps, values = series(lines, metric, "validation")
    if len(steps):
        axes.plot(steps, values * scale, color=COLORS[1], linewidth=1.6, marker="o", markersize=3, label="validation")
        drawn = True
    return drawn


def open_panels(count: int, width: float, height: float, rows: int = 1) -> tuple[Any, Sequence[Any]]:
    """Opens a figure with `count` panels side by side, or in rows of equally many; returns it and the axes. Width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width, height), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    all_axes = list(figure.subplots(rows, count // rows, squeeze=False).flat)
    for axes in all_axes:
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(GRAY)
        axes.tick_params(colors=GRAY, labelsize=8, width=0.6)
        axes.yaxis.label.set_color(GRAY)
        axes.grid(axis="y", color=GRAY, alpha=0.22, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step", fontsize=8, color=GRAY)
    return figure, all_axes


def as_png(figure: Any) -> bytes:
    """Returns the figure as PNG bytes with a transparent background."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
