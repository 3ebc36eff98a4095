"""Pictures of values: one way to draw each value type, all of them uint8 (height, width, 3).

Colors are stable: a map's are fixed by its entry's range (of standardized maps, by `RELATIVE`), a class's by its index, a direction's by its axes, so figures of
different samples can be compared. Letters of shapes: H height, W width, C channels, P points, T frames.
"""

import colorsys
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskweave.errors import MaskweaveError
from maskweave.modality.entry import DENSE_TYPES, Modality, Value
from maskweave.report.lettering import INK, font, message, text_panel
from maskweave.tokenizers.values import standardized

VOID = (128, 128, 128)
COLOR_MAP = "viridis"
RELATIVE = (-3.0, 3.0)
"""Span of colors of standardized maps, in deviations."""
OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Distinct to color-blind readers too (https://jfly.uni-koeln.de/color/); class colors begin with these."""

Size = tuple[int, int] | float


def draw(
    modality: Modality,
    value: Any,
    size: Size = (144, 144),
    over: Any = None,
    span: tuple[float, float] | None = None,
    reference: Any = None,
) -> np.ndarray:
    """A picture of one value, uint8 (height, width, 3).

    Dense values keep their aspect and are centered. A lattice of three axes shows up to four frames, one axis a curve or a strip.
    Features, and maps of several channels, show their first three principal components. Points that are not finite are gray.
    Of people their boxes are drawn, numbered, and the bones between joints where the entry tells them; a pose that is the codes of a
    tokenizer which is not ours says nothing of its joints.
    What the colors mean is told by `maskweave.report.legends`.

    Args:
        value: in its Python form (see `Value`); None draws a tile that says it is missing.
        size: (height, width) in pixels, or a factor on the value's own size (128×128 where it has none).
        over: picture, uint8 (H, W, 3), under boxes, instances, people and points.
        span: lowest and highest value of a map's colors, or of a curve's axis; the entry's range by default (see `data_span`).
        reference: value that lends features, or a map of several channels, its principal components, so that two can be compared.

    Raises:
        MaskweaveError: the value's shape is not of its modality's lattice.
    """
    v = modality.value
    height, width = size if isinstance(size, tuple) else (max(1, round(s * size)) for s in _natural(v))
    size = (height, width)
    if value is None:
        return message("missing", size)
    match v.type:
        case "text":
            return text_panel(value, size) if value.strip() else message("empty", size)
        case "metadata":
            return _metadata(v, value, size) if value else message("none", size)
        case "palette":
            return _palette(value, size) if len(value) else message("none", size)
        case "boxes" | "instances":
            return _objects(v, value, size, over)
        case "poses":
            numbered = [
                {"class": f"person {n}", "box": person["box"], "bones": _bones(v, person)}
                for n, person in enumerate(value, 1)
            ]
            return _objects(v, numbered, size, over, classes=[item["class"] for item in numbered])
        case "queries":
            names = [f"{n}" for n in range(1, len(value) + 1)]
            found = [
                {"class": name, "box": instance["box"]}
                for name, query in zip(names, value, strict=True)
                for instance in query["instances"]
            ]
            return _objects(v, found, size, over, names, [query["point"] for query in value])
        case "vector" if np.ndim(value) == 2:  # of kind `vectors`: a row of colors for each
            low, high = span or data_span(modality, [value]) or (-1.0, 1.0)
            return _centered(mapped(np.asarray(value), low, high), size, smooth=False, stretch=True)[0]
        case "vector":
            return _curves(np.asarray(value, dtype=np.float64).reshape(-1, 1), size, span, v.unit)
    array = _lattice(modality, value)
    if v.type in ("map", "features") and len(v.size) == 1:
        return _curves(array.reshape(len(array), -1), size, span or v.range, v.unit)
    picture = _flat(colors(modality, array, span, reference))
    return _centered(picture, size, smooth=v.type == "image", stretch=len(v.size) == 1)[0]


def colors(
    modality: Modality, value: Any, span: tuple[float, float] | None = None, reference: Any = None
) -> np.ndarray:
    """Colors of each point of a dense value, uint8 (*size, 3); arguments as of `draw`."""
    v = modality.value
    array = _lattice(modality, value)
    n = len(v.size)
    match v.type:
        case "image":
            array = array if array.ndim > n else array[..., None]
            array = np.clip(array, 0, 255).astype(np.uint8)[..., :3]
            return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array
        case "direction":
            return _bytes((np.nan_to_num(array) + 1) / 2)
        case "classes":
            table = np.array([*map(class_color, range(len(v.classes))), VOID], dtype=np.uint8)
            known = (array >= 0) & (array < len(v.classes))
            return table[np.where(known, array, len(v.classes))]
        case "binary":
            return np.where(array[..., None].astype(bool), np.uint8(245), np.uint8(24)).repeat(3, axis=-1)
    if array.ndim > n and array.shape[-1] > 1:
        return _components(array, array if reference is None else _lattice(modality, reference))
    low, high = span or v.range or RELATIVE
    return mapped(array.reshape(array.shape[:n]), low, high)


def data_span(modality: Modality, values: Iterable[Any]) -> tuple[float, float] | None:
    """The 1st and 99th percentile of one-channel maps, for colors that show more than the entry's whole range does.

    Of what is drawn as a curve (maps of one axis, vectors) the lowest and highest value, so that nothing leaves the figure.
    None for other values, for standardized maps, and where nothing is finite.
    """
    v = modality.value
    curve = v.type == "vector" or (v.type in ("map", "features") and len(v.size) == 1)
    if v.tails is not None or (not curve and (v.type != "map" or v.channels > 1)):
        return None
    arrays = [np.asarray(value, dtype=np.float64).ravel() for value in values if value is not None]
    points = np.concatenate(arrays) if arrays else np.empty(0)
    points = points[np.isfinite(points)]
    if not len(points):
        return None
    low, high = np.percentile(points, (0, 100) if curve else (1, 99))
    return (float(low), float(high)) if high > low else None


def class_color(index: int) -> tuple[int, int, int]:
    """A stable color of the class with this index, distinct from its neighbors'."""
    if index < len(OKABE_ITO):
        return OKABE_ITO[index]
    turn = index - len(OKABE_ITO)
    # The golden ratio spreads hues evenly however many there are; lightness and saturation part the near ones.
    hue = (0.08 + turn * 0.6180339887) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.38, 0.68, 0.53)[turn % 3], (0.85, 0.6)[turn // 3 % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def _natural(v: Value) -> tuple[int, int]:
    """A value's own height and width in pixels."""
    if v.type not in (*DENSE_TYPES, "instances", "queries") or len(v.size) == 1 or not v.size:
        return 128, 128
    if len(v.size) == 3:
        rows, columns = _montage(v.size[0])
        return rows * v.size[1], columns * v.size[2]
    return v.size[0], v.size[1]


def _lattice(modality: Modality, value: Any) -> np.ndarray:
    """A dense value as an array, checked; a map of an entry with `tails` is brought to relative units, whether it is in them or not."""
    array, n = np.asarray(value), len(modality.value.size)
    plain = modality.value.type in ("classes", "binary")
    if array.ndim not in ((n,) if plain else (n, n + 1)) or 0 in array.shape:
        raise MaskweaveError(
            f"{modality.name}: cannot draw an array of shape {array.shape}; expected {modality.value.size}"
            + ("" if plain else f" and {modality.value.channels} channels")
        )
    return array if modality.value.tails is None else standardized(modality.value, array)


def _montage(frames: int) -> tuple[int, int]:
    """Rows and columns of the frames that are shown."""
    return (1, frames) if frames < 3 else (2, 2)


def _flat(picture: np.ndarray) -> np.ndarray:
    """(L, 3), (H, W, 3) or (T, H, W, 3) as one picture."""
    if picture.ndim == 2:
        return picture[None]
    if picture.ndim == 3:
        return picture
    rows, columns = _montage(len(picture))
    chosen = picture[np.linspace(0, len(picture) - 1, rows * columns).round().astype(int)]
    return np.concatenate(
        [np.concatenate(list(row), axis=1) for row in chosen.reshape(rows, columns, *picture.shape[1:])]
    )


def _centered(
    picture: np.ndarray, size: tuple[int, int], smooth: bool, stretch: bool = False
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """`picture` as large as fits into the middle of a tile, and its place there: top, left, height, width."""
    h, w = picture.shape[:2]
    factor = min(size[0] / h, size[1] / w)
    height, width = size if stretch else (max(1, round(h * factor)), max(1, round(w * factor)))
    # Nearest shows an enlarged map's own points and invents no class between two others.
    resample = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    tile = np.full((*size, 3), 238, dtype=np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), resample)
    tile[top : top + height, left : left + width] = np.asarray(resized)
    return tile, (top, left, height, width)


def _bytes(unit: np.ndarray) -> np.ndarray:
    """0 to 1 as 0 to 255."""
    return (np.clip(unit, 0, 1) * 255).round().astype(np.uint8)


def mapped(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colors of numbers from `low` to `high`, uint8 (*shape, 3); gray where they are not finite."""
    from matplotlib import colormaps

    finite = np.isfinite(array)
    unit = (np.where(finite, array, low).astype(np.float64) - low) / (high - low)
    picture = _bytes(colormaps[COLOR_MAP](np.clip(unit, 0, 1))[..., :3])
    picture[~finite] = VOID
    return picture


def _components(array: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """First three principal components of `reference` as red, green and blue."""
    x_PC = reference.reshape(-1, reference.shape[-1]).astype(np.float64)
    x_PC = x_PC[np.isfinite(x_PC).all(axis=1)]
    if not len(x_PC):
        return np.full((*array.shape[:-1], 3), VOID, dtype=np.uint8)
    mean = x_PC.mean(axis=0)
    _, vectors = np.linalg.eigh((x_PC - mean).T @ (x_PC - mean))
    axes = vectors[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])  # else the sign is chance
    low, high = np.percentile((x_PC - mean) @ axes, (2, 98), axis=0)
    finite = np.isfinite(array).all(axis=-1)
    spread = np.maximum(high - low, max(1e-9, 0.05 * (high - low).max()))  # a component of next to nothing stays dark
    unit = ((np.where(finite[..., None], array, 0) - mean) @ axes - low) / spread
    unit = np.concatenate([unit, np.full((*unit.shape[:-1], 3 - axes.shape[1]), 0.5)], axis=-1)
    picture = _bytes(unit)
    picture[~finite] = VOID
    return picture


def _curves(array_PC: np.ndarray, size: tuple[int, int], span: tuple[float, float] | None, unit: str) -> np.ndarray:
    """A curve for each channel (8 at most) over the points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[1] / 100, size[0] / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((0.2, 0.14, 0.76, 0.76))
    axes.set_title(unit, fontsize=6, color="#55585c", loc="left", pad=3, parse_math=False)
    marker = "o" if len(array_PC) < 24 else ""
    axes.plot(array_PC[:, :8], linewidth=1, marker=marker, markersize=2.5)
    axes.tick_params(labelsize=6, length=2, width=0.5, colors="#55585c", pad=1.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_linewidth(0.5)
    if span:
        margin = 0.03 * (span[1] - span[0])
        axes.set_ylim(span[0] - margin, span[1] + margin)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((size[1], size[0])))


def _metadata(v: Value, value: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    lines = []
    for name, number in value.items():
        shown = f"{number:.0f}" if name in v.keys and v.keys[name].integer else f"{number:.4g}"
        lines.append(f"{name.replace('_', ' ')}: {shown} {v.keys[name].unit if name in v.keys else ''}".rstrip())
    return text_panel("\n".join(lines), size)


def _palette(value: Sequence[Sequence[int]], size: tuple[int, int]) -> np.ndarray:
    swatches = np.clip(np.asarray(value, dtype=np.float64).reshape(-1, 3), 0, 255).astype(np.uint8)
    column = np.arange(size[1]) * len(swatches) // size[1]
    return np.broadcast_to(swatches[column][None], (*size, 3)).copy()


def _bones(v: Value, person: dict[str, Any]) -> np.ndarray:
    """Both ends of each bone whose joints are known, (n, 2, 2) as x, y."""
    parts = [
        np.asarray(person[name], dtype=np.float64).reshape(-1, 2)[list(part.bones)]
        for name, part in v.parts.items()
        if part.bones and name in person
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2, 2))


def _objects(
    v: Value,
    value: Sequence[dict[str, Any]],
    size: tuple[int, int],
    over: Any,
    classes: Sequence[str] | None = None,
    points: Sequence[Sequence[float]] = (),
) -> np.ndarray:
    """Boxes, or masks, with their class names, over a picture or an empty tile; and a point of each class's color, where there are points."""
    blank = np.full((*(_natural(v) if v.type == "instances" else size), 3), 226, dtype=np.uint8)
    under = blank if over is None else np.clip(np.asarray(over), 0, 255).astype(np.uint8)
    tile, (top, left, height, width) = _centered(under[..., :3], size, smooth=over is not None)
    tile = (tile * 0.72 + 60).astype(np.uint8)  # a paler picture, so that lines and names stand out
    names = {name: i for i, name in enumerate(v.classes if classes is None else classes)}
    labels = []
    for item in value:
        index = names.get(item["class"])
        color = VOID if index is None else class_color(index)
        if v.type == "instances":
            mask = Image.fromarray(np.asarray(item["mask"], dtype=bool)).resize(
                (width, height), Image.Resampling.NEAREST
            )
            inside = np.zeros(size, dtype=bool)
            inside[top : top + height, left : left + width] = np.asarray(mask)
            if not inside.any():
                continue
            tile[inside] = (tile[inside] * 0.35 + np.array(color) * 0.65).astype(np.uint8)
            rows, columns = np.nonzero(inside)
            labels.append((columns.min(), rows.min(), item["class"], color))
            continue
        xs, ys = np.clip(np.sort(np.asarray(item["box"], dtype=np.float64).reshape(2, 2), axis=0), 0, 1).T
        x0, x1 = (left + xs * (width - 1)).round().astype(int)
        y0, y1 = (top + ys * (height - 1)).round().astype(int)
        picture = Image.fromarray(tile)
        pen = ImageDraw.Draw(picture)
        pen.rectangle((x0, y0, x1, y1), outline=color, width=1 if "bones" in item and len(item["bones"]) else 2)
        for ends in item.get("bones", ()):
            line = [(left + x * (width - 1), top + y * (height - 1)) for x, y in ends]
            pen.line(line, fill=color, width=max(2, width // 80))
            for x, y in line:
                pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color, outline=INK)
        tile = np.array(picture)
        labels.append((x0, y0, item["class"], color))
    picture = Image.fromarray(tile)
    pen = ImageDraw.Draw(picture)
    for i, (x, y) in enumerate(points):
        px, py = left + x * (width - 1), top + y * (height - 1)
        pen.ellipse((px - 3, py - 3, px + 3, py + 3), fill=class_color(i), outline=INK)
    if not labels and not points:
        pen.text((size[1] / 2, size[0] / 2), "none", font=font(12), fill=INK, anchor="mm")
    taken: list[tuple[int, int, int]] = []
    for x, y, name, color in labels:
        _label(pen, int(x), int(y), name, color, size, taken)
    return np.asarray(picture)


def _label(
    pen: ImageDraw.ImageDraw,
    x: int,
    y: int,
    name: str,
    color: tuple[int, ...],
    size: tuple[int, int],
    taken: list[tuple[int, int, int]],
) -> None:
    """A class name on its color above (x, y), inside the tile and, where there is room, clear of the names in `taken`."""
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
