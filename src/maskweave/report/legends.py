"""What a figure's colors mean: class names, a color bar with its unit, the axes of directions; and figures with that beneath."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.modality.entry import Modality
from maskweave.report.figures import RELATIVE, VOID, class_color, data_span, draw, mapped
from maskweave.report.lettering import INK, font

GAP = 6


def legend(
    modality: Modality, span: tuple[float, float] | None = None, present: Sequence[int] | None = None, width: int = 420
) -> np.ndarray | None:
    """What the colors mean, uint8 (height, width, 3): class names, a color bar with its unit, or the axes of directions.

    Args:
        span: as of `draw`.
        present: indices of the classes to name; all by default.
        width: most pixels across.

    Returns None where the figure speaks for itself.
    """
    v = modality.value
    if v.type == "classes":
        shown = [i for i in (range(len(v.classes)) if present is None else present) if 0 <= i < len(v.classes)]
        return _swatches([(v.classes[i], class_color(i)) for i in shown], width)
    if v.type == "direction":
        axes = {"x right": (1, 0, 0), "y up": (0, 1, 0), "z to viewer": (0, 0, 1)}
        return _swatches([(name, tuple(round(127.5 * (a + 1)) for a in axis)) for name, axis in axes.items()], width)
    if v.type in ("map", "features") and len(v.size) > 1:
        if v.channels > 1:
            return _swatches([("first three principal components", VOID)], width)
        low, high = span or v.range or RELATIVE
        return _color_bar(low, high, v.unit if v.tails is None else "deviations from the mean", min(width, 220))
    if modality.kind == "vectors":
        return _color_bar(*(span or (-1.0, 1.0)), v.unit, min(width, 220))
    return None


def with_legend(modality: Modality, value: Any, size: tuple[int, int], over: Any = None) -> np.ndarray:
    """The figure of one value with its legend beneath, uint8 (size[0] or more, size[1], 3); arguments and errors as of `draw`."""
    span = data_span(modality, [value]) if modality.kind == "vectors" else None
    figure = draw(modality, value, size, over, span)
    beneath = None if value is None else legend(modality, span, classes_in(modality, [value]), size[1])
    if beneath is None:
        return figure
    page = np.full((size[0] + GAP + len(beneath), size[1], 3), 255, dtype=np.uint8)
    page[: size[0]] = figure
    page[size[0] + GAP :, : beneath.shape[1]] = beneath
    return page


def classes_in(modality: Modality, values: Iterable[Any]) -> list[int] | None:
    """Indices that occur in class maps, ascending; None of other values."""
    if modality.value.type != "classes":
        return None
    return sorted({int(i) for value in values if value is not None for i in np.unique(value)})


def _swatches(items: Sequence[tuple[str, tuple[int, ...]]], width: int) -> np.ndarray | None:
    """Squares of color with their names, in as many lines as `width` asks for."""
    if not items:
        return None
    face, step = font(11), 18
    places, x, y = [], 0, 0
    for name, _ in items:
        wide = 16 + math.ceil(face.getlength(name)) + 14
        if x and x + wide > width:
            x, y = 0, y + step
        places.append((x, y))
        x += wide
    right = max(
        px + 16 + math.ceil(face.getlength(name)) + 14 for (px, _), (name, _) in zip(places, items, strict=True)
    )
    picture = Image.new("RGB", (min(width, right), y + step), "white")
    pen = ImageDraw.Draw(picture)
    for (px, py), (name, color) in zip(places, items, strict=True):
        pen.rectangle((px, py + 3, px + 11, py + 14), fill=color)
        pen.text((px + 16, py + 2), name, font=face, fill=INK)
    return np.asarray(picture)


def _color_bar(low: float, high: float, unit: str, width: int) -> np.ndarray:
    picture = Image.new("RGB", (width, 30), "white")
    bar = mapped(np.broadcast_to(np.linspace(low, high, width), (10, width)), low, high)
    picture.paste(Image.fromarray(bar), (0, 2))
    pen, face = ImageDraw.Draw(picture), font(11)
    pen.text((0, 15), f"{low:.3g}", font=face, fill=INK)
    pen.text((width / 2, 15), unit, font=face, fill=INK, anchor="ma")
    pen.text((width, 15), f"{high:.3g}", font=face, fill=INK, anchor="ra")
    return np.asarray(picture)
