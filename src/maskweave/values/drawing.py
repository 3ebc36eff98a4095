"""Parts of figures: colors, color bars, curves, tiles. Value types import this file when they draw.

Colors are stable: those of a map depend on its entry's range, that of a class on its index, so figures of different samples can be compared.
Shapes: H height, W width, C channels, P points, T frames.
"""

import colorsys
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.values.lettering import INK, font
from maskweave.values.scales import Scale, from_scale, to_scale

VOID = (128, 128, 128)
HATCH = 4
"""Period of the stripes over unknown points, in points."""
HATCHES = ((206, 206, 206), (150, 150, 150))
COLOR_MAP = "viridis"
MOST_CURVES = 8
"""Most channels in one figure."""
OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Colors that color-blind readers can distinguish (https://jfly.uni-koeln.de/color/); class colors begin with these."""
COMPONENTS: list[tuple[str, tuple[int, ...]]] = [("first three principal components", VOID)]


def class_color(index: int) -> tuple[int, int, int]:
    """Returns a stable color for the class with this index, distinct from the neighboring indices."""
    if index < len(OKABE_ITO):
        return OKABE_ITO[index]
    turn = index - len(OKABE_ITO)
    # The golden ratio spreads any number of hues evenly; lightness and saturation separate similar ones.
    hue = (0.08 + turn * 0.6180339887) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.38, 0.68, 0.53)[turn % 3], (0.85, 0.6)[turn // 3 % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def to_bytes(unit: np.ndarray) -> np.ndarray:
    """Converts 0 to 1 to uint8, 0 to 255."""
    return (np.clip(unit, 0, 1) * 255).round().astype(np.uint8)


def color_mapped(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns the colors of numbers from `low` to `high`, uint8 (*shape, 3); gray for numbers that are not finite."""
    from matplotlib import colormaps

    finite = np.isfinite(array)
    unit = (np.where(finite, array, low).astype(np.float64) - low) / (high - low)
    picture = to_bytes(colormaps[COLOR_MAP](np.clip(unit, 0, 1))[..., :3])
    picture[~finite] = VOID
    return picture


def hatched(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Draws diagonal stripes over the points of a picture (*shape, 3) that are not `known` (*shape)."""
    if known.all():
        return picture
    stripes = np.indices(known.shape)[-2:].sum(axis=0) % HATCH < HATCH // 2
    light, dark = (np.array(c, np.uint8) for c in HATCHES)
    return np.where(known[..., None], picture, np.where(stripes[..., None], light, dark))


def principal_components(array: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Colors `array` by the first three principal components of `reference`, as red, green and blue, uint8 (*shape, 3)."""
    x_PC = reference.reshape(-1, reference.shape[-1]).astype(np.float64)
    x_PC = x_PC[np.isfinite(x_PC).all(axis=1)]
    if not len(x_PC):
        return np.full((*array.shape[:-1], 3), VOID, dtype=np.uint8)
    mean = x_PC.mean(axis=0)
    _, vectors = np.linalg.eigh((x_PC - mean).T @ (x_PC - mean))
    axes = vectors[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])  # otherwise the sign is arbitrary
    low, high = np.percentile((x_PC - mean) @ axes, (2, 98), axis=0)
    finite = np.isfinite(array).all(axis=-1)
    spread = np.maximum(
        high - low, max(1e-9, 0.05 * (high - low).max())
    )  # a component with almost no variance stays dark
    unit = ((np.where(finite[..., None], array, 0) - mean) @ axes - low) / spread
    unit = np.concatenate([unit, np.full((*unit.shape[:-1], 3 - axes.shape[1]), 0.5)], axis=-1)
    picture = to_bytes(unit)
    picture[~finite] = VOID
    return picture


def span_of(values: Iterable[Any], percentiles: tuple[float, float]) -> tuple[float, float] | None:
    """Returns two percentiles of all finite numbers in the values; None if they are equal."""
    arrays = [np.asarray(value, dtype=np.float64).ravel() for value in values if value is not None]
    points = np.concatenate(arrays) if arrays else np.empty(0)
    points = points[np.isfinite(points)]
    if not len(points):
        return None
    low, high = np.percentile(points, percentiles)
    return (float(low), float(high)) if high > low else None


def montage(frames: int) -> tuple[int, int]:
    """Rows and columns of the frames shown for a video."""
    return (1, frames) if frames < 3 else (2, 2)


def flat(picture: np.ndarray) -> np.ndarray:
    """Converts (L, 3), (H, W, 3) or (T, H, W, 3) to one picture."""
    if picture.ndim == 2:
        return picture[None]
    if picture.ndim == 3:
        return picture
    rows, columns = montage(len(picture))
    chosen = picture[np.linspace(0, len(picture) - 1, rows * columns).round().astype(int)]
    grid = chosen.reshape(rows, columns, *picture.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in grid])


def centered(
    picture: np.ndarray, size: tuple[int, int], smooth: bool, stretch: bool = False
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Centers `picture` in a tile, as large as fits. Returns the tile and the picture's top, left, height and width in it."""
    h, w = picture.shape[:2]
    factor = min(size[0] / h, size[1] / w)
    height, width = size if stretch else (max(1, round(h * factor)), max(1, round(w * factor)))
    resample = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    tile = np.full((*size, 3), 238, dtype=np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), resample)
    tile[top : top + height, left : left + width] = np.asarray(resized)
    return tile, (top, left, height, width)


def curves(
    array_PC: np.ndarray,
    size: tuple[int, int],
    span: tuple[float, float] | None,
    unit: str,
    names: Sequence[str] = (),
    points: np.ndarray | None = None,
    label: str = "",
    logarithmic: bool = False,
    units: Sequence[str] = (),
    scale: tuple[Scale, float] = ("linear", 1.0),
) -> np.ndarray:
    """Draws one curve per channel (at most `MOST_CURVES`) over the points, uint8 (*size, 3), with a legend if the channels have names.

    Args:
        points: coordinates of all points of the axis; the curves may have fewer. None: their numbers.
        label: of the axis.
        units: of each channel; channels of one unit share a panel.
        scale: of the numbers, and its softening.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(size[1] / 100, size[0] / 100), dpi=100, facecolor="white")
    array_PC = array_PC[:, :MOST_CURVES]
    points = np.arange(len(array_PC)) if points is None or len(points) < len(array_PC) else points
    units = [*units[: array_PC.shape[1]]] or [unit] * array_PC.shape[1]
    panels = [[c for c, u in enumerate(units) if u == own] for own in dict.fromkeys(units)]
    bottom = 0.22 if label else 0.14
    height = (0.9 - bottom) / len(panels)
    for row, channels in enumerate(reversed(panels)):
        axes = figure.add_axes((0.2, bottom + row * height, 0.76, height * (0.84 if len(panels) > 1 else 1)))
        axes.set_title(units[channels[0]], fontsize=6, color="#55585c", loc="left", pad=3, parse_math=False)
        if len(points) > 1:
            margin = 0 if logarithmic else 0.03 * (points[-1] - points[0])
            axes.set_xlim(points[0] - margin, points[-1] + margin)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if points[-1] > 10 * points[0] else MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        if row == 0:
            axes.set_xlabel(label, fontsize=6, color="#55585c", labelpad=1, parse_math=False)
        marker = "o" if len(array_PC) < 24 else ""
        for c in channels:
            axes.plot(
                points[: len(array_PC)], array_PC[:, c], linewidth=1, marker=marker, markersize=2.5, color=f"C{c}"
            )
        if names:
            shown = [names[c].replace("$", r"\$") for c in channels]
            axes.legend(axes.lines, shown, fontsize=5, loc="best", frameon=False, handlelength=1, labelcolor="#55585c")
        if scale[0] != "linear":
            axes.set_yscale(scale[0], **({"linear_width": scale[1]} if scale[0] == "asinh" else {}))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelsize=6, length=2, width=0.5, colors="#55585c", pad=1.5, labelbottom=row == 0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_linewidth(0.5)
        if span and len(panels) == 1:
            low, high = to_scale(span, *scale)
            space = 0.03 * (high - low)
            axes.set_ylim(*from_scale([low - space, high + space], *scale))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((size[1], size[0])))


def swatches(items: Sequence[tuple[str, tuple[int, ...]]], width: int) -> np.ndarray | None:
    """Draws colored squares with their names, wrapped to `width`; None if there are no items."""
    if not items:
        return None
    face, step = font(11), 18
    positions, x, y = [], 0, 0
    for name, _ in items:
        wide = 16 + math.ceil(face.getlength(name)) + 14
        if x and x + wide > width:
            x, y = 0, y + step
        positions.append((x, y))
        x += wide
    right = max(
        px + 16 + math.ceil(face.getlength(name)) + 14 for (px, _), (name, _) in zip(positions, items, strict=True)
    )
    picture = Image.new("RGB", (min(width, right), y + step), "white")
    pen = ImageDraw.Draw(picture)
    for (px, py), (name, color) in zip(positions, items, strict=True):
        pen.rectangle((px, py + 3, px + 11, py + 14), fill=color)
        pen.text((px + 16, py + 2), name, font=face, fill=INK)
    return np.asarray(picture)


def color_bar(low: float, high: float, unit: str, width: int) -> np.ndarray:
    """Draws the colors from `low` to `high`, with both ends and the unit below."""
    picture = Image.new("RGB", (width, 30), "white")
    bar = color_mapped(np.broadcast_to(np.linspace(low, high, width), (10, width)), low, high)
    picture.paste(Image.fromarray(bar), (0, 2))
    pen, face = ImageDraw.Draw(picture), font(11)
    pen.text((0, 15), f"{low:.3g}", font=face, fill=INK)
    pen.text((width / 2, 15), unit, font=face, fill=INK, anchor="ma")
    pen.text((width, 15), f"{high:.3g}", font=face, fill=INK, anchor="ra")
    return np.asarray(picture)
