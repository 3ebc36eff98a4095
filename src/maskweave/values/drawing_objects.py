"""Objects with names over a picture: boxes, masks, bones between joints, points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.values.drawing import VOID, centered, class_color
from maskweave.values.lettering import INK, font

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Annotation:
    """One object to draw."""

    name: str
    box: Sequence[float] | None = None
    """xmin, ymin, xmax, ymax, 0 to 1."""
    mask: np.ndarray | None = None
    """bool (H, W), instead of a box."""
    bones: np.ndarray = field(default_factory=lambda: np.empty((0, 2, 2)))
    """Both ends of each line, (n, 2, 2) as x, y."""
    outline: np.ndarray | None = None
    """Both ends of each line in the picture, (n, 2, 2) as x, y, instead of a box or a mask; n ≥ 1."""


def draw_annotations(
    annotations: Sequence[Annotation],
    classes: Sequence[str],
    size: tuple[int, int],
    over: Any,
    points: Sequence[Sequence[float]] = (),
    blank: tuple[int, int] | None = None,
) -> np.ndarray:
    """Draws objects with their names over a picture or an empty tile, uint8 (*size, 3).

    Args:
        classes: class names; the index of a name gives its color.
        over: picture, uint8 (H, W, 3), or None.
        points: x, y of points, in the colors of the classes.
        blank: height and width of the empty picture; by default those of the tile.
    """
    empty = np.full((*(blank or size), 3), 226, dtype=np.uint8)
    under = empty if over is None else np.clip(np.asarray(over), 0, 255).astype(np.uint8)
    tile, (top, left, height, width) = centered(under[..., :3], size, smooth=over is not None)
    picture = Image.fromarray((tile * 0.72 + 60).astype(np.uint8))  # paler, so that lines and names stand out
    index = {name: i for i, name in enumerate(classes)}
    labels: list[tuple[int, int, str, Color]] = []
    for annotation in annotations:
        color = class_color(index[annotation.name]) if annotation.name in index else VOID
        if annotation.mask is not None:
            found = _fill(picture, annotation.mask, (top, left, height, width), color)
            if found is None:
                continue
            picture, corner = found
        elif annotation.outline is not None:
            at = (np.array([left, top]) + annotation.outline * np.array([width - 1, height - 1])).round().astype(int)
            pen = ImageDraw.Draw(picture)
            for ends in at.reshape(-1, 4).tolist():  # x, y of both ends
                pen.line(ends, fill=color, width=max(1, width // 100))
            corner = (int(at[..., 0].min()), int(at[..., 1].min()))
        else:
            assert annotation.box is not None
            xs, ys = np.clip(np.sort(np.asarray(annotation.box, dtype=np.float64).reshape(2, 2), axis=0), 0, 1).T
            x0, x1 = (left + xs * (width - 1)).round().astype(int).tolist()
            y0, y1 = (top + ys * (height - 1)).round().astype(int).tolist()
            pen = ImageDraw.Draw(picture)
            pen.rectangle((x0, y0, x1, y1), outline=color, width=1 if len(annotation.bones) else 2)
            for ends in annotation.bones:
                line = [(left + x * (width - 1), top + y * (height - 1)) for x, y in ends]
                pen.line(line, fill=color, width=max(2, width // 80))
                for x, y in line:
                    pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color, outline=INK)
            corner = (x0, y0)
        labels.append((*corner, annotation.name, color))
    pen = ImageDraw.Draw(picture)
    for i, (x, y) in enumerate(points):
        px, py = left + x * (width - 1), top + y * (height - 1)
        pen.ellipse((px - 3, py - 3, px + 3, py + 3), fill=class_color(i), outline=INK)
    if not labels and not len(points):
        pen.text((size[1] / 2, size[0] / 2), "none", font=font(12), fill=INK, anchor="mm")
    taken: list[tuple[int, int, int]] = []
    for x, y, name, color in labels:
        _label(pen, x, y, name, color, size, taken)
    return np.asarray(picture)


def _fill(
    picture: Image.Image, mask: np.ndarray, place: tuple[int, int, int, int], color: Color
) -> tuple[Image.Image, tuple[int, int]] | None:
    """Fills a mask in. Returns the picture and the corner for the name; None if the mask is empty at this size."""
    top, left, height, width = place
    tile = np.array(picture)
    resized = Image.fromarray(np.asarray(mask, dtype=bool)).resize((width, height), Image.Resampling.NEAREST)
    inside = np.zeros(tile.shape[:2], dtype=bool)
    inside[top : top + height, left : left + width] = np.asarray(resized)
    if not inside.any():
        return None
    tile[inside] = (tile[inside] * 0.35 + np.array(color) * 0.65).astype(np.uint8)
    rows, columns = np.nonzero(inside)
    return Image.fromarray(tile), (int(columns.min()), int(rows.min()))


def _label(
    pen: ImageDraw.ImageDraw,
    x: int,
    y: int,
    name: str,
    color: Color,
    size: tuple[int, int],
    taken: list[tuple[int, int, int]],
) -> None:
    """Draws a name on its color above (x, y), inside the tile and, if there is space, away from the names in `taken`."""
    face, high = font(9), 12
    wide = math.ceil(face.getlength(name)) + 4
    x, y = max(0, min(x, size[1] - wide)), max(0, min(y - high, size[0] - high))
    for step in (0, -high, high, 2 * high, -2 * high):
        clear = all(abs(y + step - v) >= high or x >= u + w or u >= x + wide for u, v, w in taken)
        if clear and 0 <= y + step <= size[0] - high:
            y += step
            break
    taken.append((x, y, wide))
    pen.rectangle((x, y, x + wide - 1, y + high - 1), fill=color)
    bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 120
    pen.text((x + 2, y), name, font=face, fill=(0, 0, 0) if bright else (255, 255, 255))
