"""Is a value what its entry says? Every value that enters the library from outside passes here once, and leaves in its Python form.

A value keeps its own resolution; `maskweave.data.transforms` brings it to the entry's.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.modality.entry import Modality, Part, Value

MAX_PIXELS = 64_000_000
"""Points of a value's lattice; a larger picture is refused before it is decoded."""
BOX_SLACK = 1e-3
"""Coordinates this far outside 0 to 1 are rounding and are clipped."""


def check_content(value: Any, modality: Modality, where: str) -> Any:
    """Return `value` in the Python form that `maskweave.modality.entry.Value` states, at its own resolution.

    Gray pictures and those with an alpha channel become color pictures where the entry has three channels (alpha is dropped).
    A map's values that lie outside its range by less than a thousandth of it are clipped; directions are brought to length 1.
    A value of kind `vectors` is float32 (vectors, channels).

    Args:
        where: what to call the value in errors, its file for instance.

    Raises:
        BadSample: wrong type, shape or range, NaN or infinite numbers, unknown class; says what was found and what was expected.
    """
    return CHECKS["rows" if modality.kind == "vectors" else modality.value.type](value, modality, where)


def _refuse(where: str, found: str, expected: str, remedy: str = "") -> BadSample:
    return BadSample(f"{where}: found {found}; expected {expected}" + (f"; {remedy}" if remedy else ""))


def _array(value: Any, modality: Modality, where: str, allowed: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in allowed:
        words = {"f": "numbers", "u": "whole numbers", "b": "true or false"}
        raise _refuse(
            where, f"values of type {array.dtype}", f"{words[allowed[0]]} for a value of type {modality.value.type!r}"
        )
    return array


def _lattice(array: np.ndarray, modality: Modality, where: str, channels: int) -> np.ndarray:
    """Check axes and channels. Returns (*lattice, channels), or (*lattice) where there is one channel."""
    axes = len(modality.value.size)
    if channels == 1 and array.ndim == axes + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != axes + (channels > 1) or (channels > 1 and array.shape[-1] != channels):
        letters = ("length",) if axes == 1 else ("frames", "height", "width")[3 - axes :]
        wanted = ", ".join([*letters, str(channels)] if channels > 1 else letters)
        raise _refuse(where, f"shape {array.shape}", f"({wanted}), {channels} channel{'s' * (channels > 1)}")
    points = int(np.prod(array.shape[:axes], dtype=np.int64))
    if not 0 < points <= MAX_PIXELS:
        raise _refuse(where, f"shape {array.shape}", f"1 to {MAX_PIXELS:,} points")
    return array


def _finite(array: np.ndarray, where: str) -> np.ndarray:
    """As float32; NaN and infinite values are refused."""
    with np.errstate(over="ignore"):  # float64 beyond float32 turns infinite, and is refused as such
        array = array.astype(np.float32)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise _refuse(
            where,
            f"{bad} of {array.size} values NaN or infinite",
            "finite numbers",
            "fill or crop these points, or leave the file out",
        )
    return array


def _image(value: Any, modality: Modality, where: str) -> np.ndarray:
    array, channels, axes = np.asarray(value), modality.value.channels, len(modality.value.size)
    if array.dtype != np.uint8:
        raise _refuse(
            where, f"a picture of type {array.dtype}", "uint8, 0 to 255", "scale it to 0 to 255 and save it as uint8"
        )
    if channels == 3 and array.ndim == axes:
        array = array[..., None]
    if channels == 3 and array.ndim == axes + 1 and array.shape[-1] in (1, 4):
        array = np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array[..., :3]
    array = _lattice(array, modality, where, channels)
    return array[..., None] if channels == 1 else array


def _map(value: Any, modality: Modality, where: str) -> np.ndarray:
    array = _finite(_lattice(_array(value, modality, where, "fiu"), modality, where, modality.value.channels), where)
    if modality.value.range is None:
        return array
    low, high = modality.value.range
    slack = (high - low) / 1000
    lowest, highest = float(array.min()), float(array.max())
    if lowest < low - slack or highest > high + slack:
        unit = f" {modality.value.unit}" if modality.value.unit else ""
        raise _refuse(
            where,
            f"values from {lowest:.6g} to {highest:.6g}",
            f"{low:g} to {high:g}{unit}",
            "check the unit, or widen the entry's value.range",
        )
    return np.clip(array, low, high)


def _direction(value: Any, modality: Modality, where: str) -> np.ndarray:
    array = _finite(_lattice(_array(value, modality, where, "f"), modality, where, 3), where)
    length = np.linalg.norm(array, axis=-1, keepdims=True)
    shortest, longest = float(length.min()), float(length.max())
    if shortest < 0.9 or longest > 1.1:
        raise _refuse(
            where,
            f"vectors of length {shortest:.3g} to {longest:.3g}",
            "unit vectors (x right, y up, z towards the viewer)",
        )
    return array / length


def _classes(value: Any, modality: Modality, where: str) -> np.ndarray:
    array = _lattice(_array(value, modality, where, "ui"), modality, where, 1)
    most = len(modality.value.classes) - 1
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest > most:
        raise _refuse(
            where,
            f"class ids from {lowest} to {highest}",
            f"0 to {most} ({len(modality.value.classes)} classes)",
            "renumber them, or extend the entry's value.classes",
        )
    return array.astype(np.uint8 if most < 256 else np.int32)


def _binary(value: Any, modality: Modality, where: str) -> np.ndarray:
    array = _lattice(_array(value, modality, where, "bui"), modality, where, 1)
    if array.dtype != bool:
        highest = int(array.max())
        if highest not in (0, 1, 255) or not ((array == 0) | (array == highest)).all():
            raise _refuse(
                where, f"values from {int(array.min())} to {highest}", "0 and 1, 0 and 255, or true and false"
            )
    return array.astype(bool)


def _vector(value: Any, modality: Modality, where: str) -> np.ndarray:
    array = _array(value, modality, where, "fiu")
    if array.shape != (modality.value.channels,):
        raise _refuse(where, f"shape {array.shape}", f"({modality.value.channels},), one number per channel")
    return _finite(array, where)


def _rows(value: Any, modality: Modality, where: str) -> np.ndarray:
    array = _array(value, modality, where, "fiu")
    if array.ndim != 2 or not 0 < len(array) <= modality.max_tokens or array.shape[1] != modality.value.channels:
        raise _refuse(
            where,
            f"shape {array.shape}",
            f"(vectors, {modality.value.channels}) with 1 to {modality.max_tokens} vectors",
        )
    return _finite(array, where)


def _text(value: Any, modality: Modality, where: str) -> str:
    if not isinstance(value, str):
        raise _refuse(where, f"{_show(value)}", "text")
    if len(value) > modality.value.max_characters:
        raise _refuse(
            where,
            f"a text of {len(value):,} characters",
            f"at most {modality.value.max_characters:,}",
            "shorten it, or raise the entry's value.max_characters",
        )
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", value):
        raise _refuse(where, "control characters", "plain text")
    return value


def _items(value: Any, where: str, names: tuple[str, ...], layout: str) -> list[dict[str, Any]]:
    """A list of mappings that have at least these names."""
    if not isinstance(value, list):
        raise _refuse(where, _show(value), f"a list, each {layout}")
    for i, item in enumerate(value):
        if not isinstance(item, dict) or any(name not in item for name in names):
            raise _refuse(where, f"item {i}: {_show(item)}", layout)
    return value


def _class(item: dict[str, Any], i: int, modality: Modality, where: str) -> str:
    name = item["class"]
    if not isinstance(name, str) or name not in modality.value.classes:
        known = modality.value.classes
        raise _refuse(
            where,
            f"item {i} of class {_show(name)}",
            f"one of the entry's {len(known)}: {', '.join(known[:8])}{', …' * (len(known) > 8)}",
        )
    return name


def is_number(value: Any) -> bool:
    """Whether a value read from JSON is a finite number of sane size."""
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return plain and bool(-1e15 < value < 1e15)


def _boxes(value: Any, modality: Modality, where: str) -> list[dict[str, Any]]:
    layout = '{"class": name, "box": [xmin, ymin, xmax, ymax]} with coordinates 0 to 1 from the top left'
    return [
        {"class": _class(item, i, modality, where), "box": _box(item["box"], f"item {i} with box", layout, where)}
        for i, item in enumerate(_items(value, where, ("class", "box"), layout))
    ]


def _box(box: Any, what: str, layout: str, where: str) -> list[float]:
    """Coordinates xmin, ymin, xmax, ymax, clipped."""
    c = _numbers(box, 4, (0, 1), f"{what} {_show(box)}", layout, where)
    if c[0] > c[2] or c[1] > c[3]:
        raise _refuse(where, f"{what} {_show(box)}", layout, "give the lower corner first")
    return c


def _numbers(
    value: Any, count: int, limits: tuple[float, float] | None, what: str, layout: str, where: str
) -> list[float]:
    """A list of so many numbers; those that leave the limits by no more than rounding are clipped."""
    if not isinstance(value, (list, tuple)) or len(value) != count or not all(map(is_number, value)):
        raise _refuse(where, what, layout)
    if limits is None:
        return [float(x) for x in value]
    low, high = limits
    if min(value) < low - BOX_SLACK or max(value) > high + BOX_SLACK:
        raise _refuse(where, what, layout, "divide pixels by the picture's width and height")
    return [min(max(float(x), low), high) for x in value]


def _palette(value: Any, modality: Modality, where: str) -> list[list[int]]:
    if not isinstance(value, list) or not value:
        raise _refuse(where, _show(value), "a list of one or more colors [red, green, blue]")
    for i, color in enumerate(value):
        whole = (
            isinstance(color, (list, tuple))
            and len(color) == 3
            and all(is_number(c) and c == int(c) and 0 <= c <= 255 for c in color)
        )
        if not whole:
            raise _refuse(where, f"color {i}: {_show(color)}", "[red, green, blue], whole numbers from 0 to 255")
    return [[int(c) for c in color] for color in value]


def _metadata(value: Any, modality: Modality, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise _refuse(where, _show(value), "keys and numbers")
    known = {key: value[key] for key in modality.value.keys if key in value}
    if not known:
        raise _refuse(
            where,
            f"keys {', '.join(map(str, value)) or 'none'}"[:300],
            f"at least one of {', '.join(modality.value.keys)}",
        )
    for key, number in known.items():
        if not is_number(number):
            raise _refuse(where, f"{key} = {_show(number)}", "a finite number")
    return known


def _instances(value: Any, modality: Modality, where: str) -> list[dict[str, Any]]:
    instances: list[dict[str, Any]] = []
    for i, item in enumerate(_items(value, where, ("class", "mask"), '{"class": name, "mask": mask}')):
        mask = _lattice(_array(item["mask"], modality, where, "bui"), modality, f"{where}: item {i}", 1).astype(bool)
        if instances and mask.shape != instances[0]["mask"].shape:
            raise _refuse(where, f"item {i} with a mask of {mask.shape}", f"{instances[0]['mask'].shape} like item 0")
        instances.append({"class": _class(item, i, modality, where), "mask": mask})
    return instances


def _poses(value: Any, modality: Modality, where: str) -> list[dict[str, Any]]:
    layout = _layout(modality.value)
    people = []
    for i, item in enumerate(_items(value, where, ("box",), layout)):
        known = [name for name in modality.value.parts if name in item]
        parts = {name: _part(item[name], modality.value.parts[name], f"item {i}: {name}", where) for name in known}
        people.append({"box": _box(item["box"], f"item {i} with box", layout, where), **parts})
    return people


def _queries(value: Any, modality: Modality, where: str) -> list[dict[str, Any]]:
    layout, parts = _layout(modality.value), modality.value.parts
    outer = f'{{"point": [x, y], "instances": list of {layout}}} with coordinates 0 to 1 from the top left'
    queries = []
    for i, item in enumerate(_items(value, where, ("point", "instances"), outer)):
        point = _numbers(item["point"], 2, (0, 1), f"item {i} with point {_show(item['point'])}", outer, where)
        at = f"{where}: item {i}: instances"
        instances = [
            {
                "box": _box(found["box"], f"item {k} with box", layout, at),
                **{name: _part(found[name], part, f"item {k}: {name}", at) for name, part in parts.items()},
            }
            for k, found in enumerate(_items(item["instances"], at, ("box", *parts), layout))
        ]
        queries.append({"point": point, "instances": instances})
    return queries


def _part(value: Any, part: Part, what: str, where: str) -> list[float] | list[int]:
    layout = f"{part.count} {f'whole numbers from 0 to {part.codes - 1}' if part.codes else 'numbers'}"
    numbers = _numbers(value, part.count, None, f"{what} = {_show(value)}", layout, where)
    if not part.codes:
        return numbers
    if not all(x == int(x) and 0 <= x < part.codes for x in numbers):
        raise _refuse(where, f"{what} = {_show(value)}", layout)
    return [int(x) for x in numbers]


def _layout(v: Value) -> str:
    parts = "".join(f', "{name}": {part.count} numbers' for name, part in v.parts.items())
    return f'{{"box": [xmin, ymin, xmax, ymax]{parts}}}'


def _show(value: Any) -> str:
    """A value in an error, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


CHECKS: dict[str, Callable[[Any, Modality, str], Any]] = {
    "image": _image,
    "map": _map,
    "direction": _direction,
    "features": _map,
    "classes": _classes,
    "binary": _binary,
    "vector": _vector,
    "rows": _rows,
    "text": _text,
    "boxes": _boxes,
    "palette": _palette,
    "metadata": _metadata,
    "instances": _instances,
    "poses": _poses,
    "queries": _queries,
}
"""By value type; `rows` is any value of kind `vectors`."""
