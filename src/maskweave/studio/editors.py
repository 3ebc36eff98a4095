"""Editors: how a value is given in the page, and how what the page sends becomes a value.

`EDITORS` has an editor for each value type that has a better one than a file; the classes that a type derives from count too. Every type, also of
another package, can be given as a file, which its own reader reads. Nothing here needs the page: widgets are named, and payloads are plain.

| widget | what the page sends |
| --- | --- |
| `picture`, `sound`, `video`, `file` | an uploaded file |
| `text`, `choice`, `choices`, `number` | text, a name, names, a number |
| `paint` | JSON `{"size": [height, width], "ids": base64 of one byte per point}`; 255: not painted |
| `draw` | a PNG as a `data:` URL |
| `boxes`, `colors`, `sliders` | JSON: a list of boxes, of colors, or numbers by key |
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import BadSample, shown
from maskweave.files import parse_json
from maskweave.modality.entry import Modality
from maskweave.values.audio import Audio
from maskweave.values.base import ValueType
from maskweave.values.binary import Binary
from maskweave.values.boxes import Boxes
from maskweave.values.classes import Classes
from maskweave.values.drawing import class_color
from maskweave.values.formats import split_ending
from maskweave.values.image import Image
from maskweave.values.label import Label
from maskweave.values.metadata import Metadata
from maskweave.values.palette import Palette
from maskweave.values.scalar import Scalar
from maskweave.values.tags import Tags
from maskweave.values.text import Text
from maskweave.values.video import Video

UNPAINTED = 255
MOST_PAINTED = 512
"""Longest side of a value that can be painted."""
MOST_CHARACTERS = 4 * 2**20
"""Longest text that a widget may send."""
Payload = Any


class Upload(NamedTuple):
    """A file that the page has sent."""

    path: Path
    name: str
    """Its name on the person's computer."""


@dataclass(frozen=True)
class Editor:
    """One way to give a value."""

    widget: str
    read: Callable[[ValueType, Payload, str], Any]
    """Returns what `ValueType.check` takes; None: nothing is given."""
    write: Callable[[ValueType, Any], Payload] | None = None
    """Returns the payload of a checked value; None: the widget cannot show one."""
    settings: Callable[[ValueType], dict[str, Any]] = lambda value: {}
    """Of the widget: names of classes, ranges, and the like."""
    fits: Callable[[ValueType], bool] = lambda value: True
    """Whether the widget can give values with these settings."""


def editors_of(value: ValueType) -> list[Editor]:
    """Returns the editors of a value type, the best first; a file is always the last."""
    found = next((EDITORS[cls] for cls in type(value).__mro__ if cls in EDITORS), ())
    return [*(editor for editor in found if editor.fits(value)), FILE]


def read_payloads(modality: Modality, payloads: Mapping[str, Payload]) -> Any:
    """Returns the checked value that the widgets of a modality give, at its own size; None if none of them gives one.

    Args:
        payloads: by widget. An uploaded file comes first, then the editors in their order.

    Raises:
        BadSample: a payload is no valid value; the message names the modality, or the file.
    """
    value = modality.value
    editors = editors_of(value)
    for editor in [editors[-1], *editors[:-1]]:
        payload = payloads.get(editor.widget)
        if payload is None or payload == "" or payload == []:
            continue
        where = payload.name if isinstance(payload, Upload) else f"input {modality.name!r}"
        try:
            given = editor.read(value, payload, where)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            if isinstance(error, BadSample):
                raise
            raise BadSample(f"{where}: found {shown(payload)}, which the editor cannot have sent") from error
        if given is not None:
            return value.check(value.from_python(given, where), where)
    return None


def write_payload(editor: Editor, value: ValueType, held: Any) -> Payload:
    """Returns what an editor's widget shows of a checked value; None if it cannot show it."""
    return None if held is None or editor.write is None else editor.write(value, held)


# Files


def _read_file(value: ValueType, upload: Upload, where: str) -> Any:
    ending = split_ending(upload.name)[1]
    if ending not in value.endings:
        raise BadSample(
            f"{where}: a file that ends in {ending!r} cannot hold values of type {value.type!r}; expected {', '.join(value.endings)}"
        )
    found = value.read(upload.path.read_bytes(), ending, where)
    if found is None:
        raise BadSample(f"{where}: the file holds no value; give another file")
    return found


# Widgets that send JSON


def _parsed(payload: Payload, where: str) -> Any:
    if not isinstance(payload, str) or len(payload) > MOST_CHARACTERS:
        raise BadSample(f"{where}: found {shown(payload)}; expected at most {MOST_CHARACTERS:,} characters of JSON")
    try:
        return parse_json(payload)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"{where}: found {shown(payload)}; expected JSON") from error


def _read_json(value: ValueType, payload: Payload, where: str) -> Any:
    return _parsed(payload, where) or None


def _write_json(value: ValueType, held: Any) -> str:
    return json.dumps(held)


def ids_of(payload: Payload, where: str) -> np.ndarray:
    """Returns the ids that a `paint` widget sends, uint8 (height, width); 255 where nothing is painted.

    Raises:
        BadSample: it is no such payload.
    """
    content = _parsed(payload, where)
    if not isinstance(content, dict) or not {"size", "ids"} <= set(content):
        raise BadSample(f"{where}: found {shown(content)}; expected a size and ids")
    size, text = content["size"], content["ids"]
    whole = isinstance(size, list) and len(size) == 2 and all(type(n) is int and 1 <= n <= MOST_PAINTED for n in size)
    if not whole or not isinstance(text, str):
        raise BadSample(f"{where}: found size {shown(size)}; expected height and width, 1 to {MOST_PAINTED}")
    try:
        ids = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSample(f"{where}: found {shown(text)}; expected base64") from error
    if len(ids) != size[0] * size[1]:
        raise BadSample(f"{where}: found {len(ids):,} ids for {size[0]} × {size[1]} points")
    return np.frombuffer(ids, np.uint8).reshape(size)


def paint_payload(ids: np.ndarray) -> str:
    """Returns the payload of a `paint` widget for ids, uint8 (height, width)."""
    return json.dumps({"size": list(ids.shape), "ids": base64.b64encode(ids.astype(np.uint8).tobytes()).decode()})


def _read_classes(value: ValueType, payload: Payload, where: str) -> Any:
    ids = ids_of(payload, where).astype(np.int64)
    painted = ids != UNPAINTED
    if not painted.any():
        return None
    return np.where(painted, ids, -1 if value.has_unknown else 0)


def _write_classes(value: ValueType, held: Any) -> Payload:
    fits = held.shape == value.size
    return paint_payload(np.where(held < 0, UNPAINTED, held)) if fits else None


def _read_binary(value: ValueType, payload: Payload, where: str) -> Any:
    ids = ids_of(payload, where)
    return None if (ids == UNPAINTED).all() else ids == 1


def _write_binary(value: ValueType, held: Any) -> Payload:
    return paint_payload(np.asarray(held, np.uint8)) if held.shape == value.size else None


def _can_be_painted(value: ValueType) -> bool:
    return len(value.size) == 2 and max(value.size) <= MOST_PAINTED and value.num_classes < UNPAINTED


def _class_settings(value: ValueType) -> dict[str, Any]:
    names = value.classes or ("no", "yes")
    colors = [class_color(i) for i in range(len(names))] if value.classes else [(24, 24, 24), (245, 245, 245)]
    return {"size": list(value.size), "classes": list(names), "colors": colors, "unknown": value.has_unknown}


def _read_drawing(value: ValueType, payload: Payload, where: str) -> Any:
    start = "data:image/png;base64,"
    if not isinstance(payload, str) or not payload.startswith(start) or len(payload) > MOST_CHARACTERS:
        raise BadSample(f"{where}: found {shown(payload)}; expected a PNG of at most {MOST_CHARACTERS:,} characters")
    try:
        content = base64.b64decode(payload.removeprefix(start), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSample(f"{where}: the drawing is damaged; draw it again") from error
    return value.read(content, "png", where)


def _is_picture(value: ValueType) -> bool:
    return len(value.size) == 2 and "png" in value.endings


# Numbers and names


def _read_number(value: ValueType, payload: Payload, where: str) -> Any:
    return float(payload)


def _range(value: Any) -> dict[str, Any]:
    return {"range": list(value.range) if value.range and value.scale == "linear" else None, "unit": value.unit}


def _keys(value: Any) -> dict[str, Any]:
    return {
        "keys": {
            name: {"range": list(key.range), "integer": key.integer, "unit": key.unit}
            for name, key in value.all_keys.items()
        }
    }


def _has_no_frames(value: Any) -> bool:
    return not value.dates


FILE = Editor("file", _read_file)
EDITORS: Mapping[type[ValueType], tuple[Editor, ...]] = {
    Image: (
        Editor("picture", _read_file, fits=_is_picture),
        Editor("draw", _read_drawing, settings=lambda v: {"size": list(v.size)}, fits=_is_picture),
    ),
    Video: (Editor("video", _read_file),),
    Audio: (Editor("sound", _read_file),),
    Classes: (Editor("paint", _read_classes, _write_classes, _class_settings, _can_be_painted),),
    Binary: (Editor("paint", _read_binary, _write_binary, _class_settings, _can_be_painted),),
    Text: (Editor("text", lambda v, payload, where: payload, lambda v, held: held),),
    Label: (
        Editor("choice", lambda v, name, where: name, lambda v, held: held, lambda v: {"classes": list(v.classes)}),
    ),
    Tags: (
        Editor("choices", lambda v, names, where: names, lambda v, held: held, lambda v: {"classes": list(v.classes)}),
    ),
    Scalar: (Editor("number", _read_number, lambda v, held: held, _range),),
    Boxes: (Editor("boxes", _read_json, _write_json, lambda v: {"classes": list(v.classes)}),),
    Palette: (Editor("colors", _read_json, _write_json),),
    Metadata: (Editor("sliders", _read_json, _write_json, _keys, _has_no_frames),),
}
"""Editors by value type, the best first."""
