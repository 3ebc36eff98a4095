"""Figures of sounds: spectrograms with low frequencies below."""

from typing import Any

import numpy as np

from maskweave.values.drawing import COLOR_MAP, HATCHES
from maskweave.values.log_mel import LogMel, mel

TICKS = (100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)
"""Frequencies at the axis, in Hz."""
SMALL = 180
"""Figures narrower than this have smaller letters."""


def spectrogram(
    log_mel_MT: np.ndarray, analysis: LogMel, size: tuple[int, int], span: tuple[float, float]
) -> np.ndarray:
    """Draws a log-mel spectrogram over seconds and Hz, uint8 (*size, 3); unknown points are hatched.

    Args:
        log_mel_MT: (M, T) in dB, NaN at unknown points.
        span: levels in dB of the darkest and the brightest color.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[1] / 100, size[0] / 100), dpi=100, facecolor="white")
    letters = 5.5 if size[1] < SMALL else 7
    left, bottom = 30 / size[1], 24 / size[0]
    axes = figure.add_axes((left, bottom, 1 - left - 6 / size[1], 1 - bottom - 12 / size[0]))
    seconds, top = log_mel_MT.shape[1] * analysis.hop / analysis.rate, float(mel(np.array(analysis.rate / 2)))
    box: Any = (0, seconds, 0, top)
    light, dark = ((red / 255, green / 255, blue / 255) for red, green, blue in HATCHES)
    axes.set_facecolor(light)
    axes.patch.set(hatch="////", edgecolor=dark, linewidth=0)
    masked = np.ma.masked_invalid(log_mel_MT)
    axes.imshow(masked, COLOR_MAP, aspect="auto", origin="lower", extent=box, vmin=span[0], vmax=span[1])
    shown = [f for f in TICKS if f < analysis.rate / 2]
    shown = [f for f in shown if f >= 500] if size[0] < SMALL else shown
    axes.set_yticks(
        [float(mel(np.array(f))) for f in shown], [f"{f / 1000:g}k" if f >= 1000 else str(f) for f in shown]
    )
    axes.set_title("Hz", fontsize=letters, loc="left", pad=2, x=-left / (1 - left))
    axes.set_xlabel("s", fontsize=letters, labelpad=0)
    axes.tick_params(labelsize=letters, length=2, width=0.5, colors="#55585c", pad=1.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_linewidth(0.5)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    return np.asarray(picture.resize((size[1], size[0])))
