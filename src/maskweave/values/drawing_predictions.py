"""Figures of predicted distributions: the density of a number, the probabilities of classes. Value types import this file when they draw."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.values.distribution import ClassDistribution, NumberDistribution, point
from maskweave.values.lettering import FAINT, INK, PAPER, font

LINE, BAND, TRUTH = "#0072b2", "#56b4e9", "#d55e00"


def density_figure(
    value: NumberDistribution,
    size: tuple[int, int],
    span: tuple[float, float] | None,
    reference: Any,
    logarithmic: bool,
) -> np.ndarray:
    """Draws a number's density with its 90% interval and the number above, uint8 (*size, 3).

    Args:
        span: ends of the axis; by default the central 98% of the probability.
        reference: the truth, drawn as a vertical line.
        logarithmic: draw the axis on a logarithmic scale.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[1] / 100, size[0] / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((0.06, 0.2, 0.88, 0.54))
    low, high = span or value.interval(0.98)
    inner = value.interval()
    density = value.densities
    if logarithmic:  # per power of ten, so that areas on the axis are probabilities
        density = value.probabilities / np.diff(np.log10(np.maximum(value.edges, np.finfo(float).tiny)))
        axes.set_xscale("log")
    axes.stairs(density, value.edges, color=LINE, linewidth=1, fill=False)
    axes.axvspan(*inner, color=BAND, alpha=0.25, linewidth=0)
    if reference is not None:
        axes.axvline(point(reference), color=TRUTH, linewidth=1)
    margin = 0.03 * (high - low)
    axes.set_xlim(low if logarithmic else low - margin, high if logarithmic else high + margin)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.tick_params(labelsize=6, length=2, width=0.5, colors="#55585c", pad=1.5, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5)
    number = f"{value.value:.4g} {value.unit}".rstrip()
    figure.text(0.06, 0.9, number, fontsize=8, color="#202226", parse_math=False)
    figure.text(0.06, 0.8, f"90%: {inner[0]:.3g} to {inner[1]:.3g}", fontsize=6, color="#55585c", parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((size[1], size[0])))


def class_bars(value: ClassDistribution, size: tuple[int, int]) -> np.ndarray:
    """Draws the most probable classes with a bar for each probability, uint8 (*size, 3)."""
    height, width = size
    step, margin = 18, 6
    order = np.argsort(-value.probabilities, kind="stable")[: max(1, (height - 2 * margin) // step)]
    tile = Image.new("RGB", (width, height), PAPER)
    pen, face = ImageDraw.Draw(tile), font(10)
    for row, i in enumerate(order.tolist()):
        p, top = float(value.probabilities[i]), margin + row * step
        pen.rectangle((margin, top + 12, margin + p * (width - 2 * margin), top + 14), fill=LINE)
        pen.text((margin, top), value.classes[i], font=face, fill=INK)
        pen.text((width - margin, top), f"{p:.2f}", font=face, fill=FAINT, anchor="ra")
    return np.asarray(tile)
