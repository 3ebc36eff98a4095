"""Figures and contact sheets in words: what is drawn where, without the pixels, which depend on fonts and versions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from maskweave.report import sheets


def rounded(value: Any) -> str:
    """A value with its numbers at four digits."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return f"[{', '.join(map(rounded, value))}]"
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def figure_lines(figure: Any) -> Iterator[str]:
    """What a figure of matplotlib has, line by line."""
    yield f"figure {rounded(figure.get_size_inches())} dpi {figure.dpi:g} alpha {figure.patch.get_alpha()}"
    for axes in figure.axes:
        yield f"axes {axes.get_title()!r} x {axes.get_xlabel()!r} y {axes.get_ylabel()!r} on {axes.axison} alpha {axes.patch.get_alpha()}"
        yield f"  limits {rounded(axes.get_xlim())} {rounded(axes.get_ylim())}"
        yield f"  spines {[name for name, spine in axes.spines.items() if spine.get_visible()]}"
        texts = {"title": axes.title, "x": axes.xaxis.label, "y": axes.yaxis.label}
        yield f"  texts {[(name, text.get_fontsize(), text.get_color()) for name, text in texts.items()]}"
        yield f"  ticks {rounded(axes.get_xticks())} {[text.get_text() for text in axes.get_xticklabels()]}"
        for axis in (axes.xaxis, axes.yaxis):
            kept = axis.get_tick_params()
            grid = (line := axis.get_gridlines()[0]).get_visible() and (
                line.get_color(),
                line.get_alpha(),
                line.get_linewidth(),
            )
            yield f"  axis {[kept.get(key) for key in ('color', 'labelsize', 'width')]} grid {grid}"
        for line in axes.lines:
            look = (
                line.get_color(),
                line.get_alpha(),
                line.get_linewidth(),
                line.get_linestyle(),
                line.get_marker(),
                line.get_markersize(),
            )
            yield f"  line {line.get_label()!r} {look}: {rounded(line.get_xdata())} {rounded(line.get_ydata())}"
        for bar in axes.patches:
            yield f"  bar at {rounded(bar.get_x())} width {rounded(bar.get_width())} height {rounded(bar.get_height())}"
        if legend := axes.get_legend():
            texts = [(text.get_text(), text.get_parse_math(), text.get_fontsize()) for text in legend.get_texts()]
            yield f"  legend {legend._loc} {legend._ncols} frame {legend.get_frame_on()} {texts}"


class Face:
    """A font whose letters are all as wide, half of the size, and a bit wider in bold."""

    def __init__(self, size: int, bold: bool = False):
        self.size, self.bold = size, bold

    def getlength(self, text: str) -> float:
        return len(text) * self.size * (0.55 if self.bold else 0.5)

    def __str__(self) -> str:
        return f"{self.size}{' bold' * self.bold}"


class Page:
    """A picture that writes down what is drawn onto it."""

    def __init__(self, kind: str, size: tuple[int, int], color: str):
        self.made = [f"page {kind} {size} {color}"]

    def note(self, what: str) -> Callable[..., None]:
        return lambda *given, **options: self.made.append(
            " ".join([what, *map(str, given), *(f"{k}={v}" for k, v in options.items())])
        )

    def paste(self, picture: Image.Image, place: tuple[int, int]) -> None:
        self.made.append(f"figure {np.asarray(picture)[0, 0]} {picture.size} at {place}")


@contextmanager
def drawn_in_words() -> Iterator[None]:
    """Context in which sheets are pages, and each figure is a plain one whose first pixel is a number of its own."""
    count = [0]

    def figure(size: tuple[int, int]) -> np.ndarray:
        count[0] += 1
        return np.full((*size, 3), count[0], np.uint8)

    with (
        patch.object(sheets, "font", Face),
        patch.object(sheets, "Image", SimpleNamespace(new=Page, fromarray=Image.fromarray, Image=Image.Image)),
        patch.object(
            sheets,
            "ImageDraw",
            SimpleNamespace(Draw=lambda page: SimpleNamespace(text=page.note("text"), line=page.note("line"))),
        ),
        patch.object(sheets, "draw", lambda modality, value, size, *_: figure(size)),
        patch.object(sheets, "message", lambda text, size: figure(size)),
    ):
        yield
