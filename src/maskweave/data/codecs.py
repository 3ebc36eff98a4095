"""Values as files: bytes and an ending to a value of an entry's type, and back. Nothing is ever unpickled.

| value type | endings |
| --- | --- |
| image | png, jpg, jpeg (two axes); npy, npz |
| classes, binary | png (two axes); npy, npz |
| map, direction, features, vector, kind `vectors` | npy, npz (its first array) |
| text | txt, json (a text, or a list of texts of which the first counts) |
| boxes, palette, metadata, instances, poses, queries | json |

In JSON, an instance's mask is {"size": [height, width], "counts": [...]}: uncompressed run lengths down the columns, starting with the
points outside, as COCO has it (https://cocodataset.org/#format-data). Pictures are turned upright as their EXIF orientation says.
"""

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.values import MAX_PIXELS, check_content
from maskweave.errors import BadSample
from maskweave.modality.entry import Modality

MAX_BYTES = 256 * 2**20
"""Of one file or tar member; larger ones are not read."""
MAX_ARRAY_BYTES = 2**30
"""Of one array, checked in its header before memory is taken."""
MAX_JSON_BYTES = 32 * 2**20
MAX_MASK_POINTS = 4 * MAX_PIXELS
"""Of all masks of one sample together."""
PICTURES = ("png", "jpg", "jpeg")
ARRAYS = ("npy", "npz")


def endings(modality: Modality) -> tuple[str, ...]:
    """File endings that can hold the entry's values, lower case and without a dot."""
    if modality.kind == "vectors":
        return ARRAYS
    flat = len(modality.value.size) == 2
    match modality.value.type:
        case "image":
            return (*PICTURES, *ARRAYS) if flat else ARRAYS
        case "classes" | "binary":
            return ("png", *ARRAYS) if flat else ARRAYS
        case "map" | "direction" | "features" | "vector":
            return ARRAYS
        case "text":
            return ("txt", "json")
        case _:
            return ("json",)


def decode(content: bytes, ending: str, modality: Modality, where: str) -> Any:
    """The value in a file, checked, at its own resolution.

    Args:
        content: the file's bytes.
        ending: as in `endings`.
        where: what to call the file in errors.

    Raises:
        BadSample: names the file, what was found and what was expected.
    """
    if ending not in endings(modality):
        raise BadSample(
            f"{where}: ending {ending!r} cannot hold values of type {modality.value.type!r}; expected {', '.join(endings(modality))}"
        )
    if not content:
        raise BadSample(f"{where}: the file is empty")
    if len(content) > MAX_BYTES:
        raise BadSample(f"{where}: {len(content):,} bytes; expected at most {MAX_BYTES:,}")
    if ending in PICTURES:
        raw: Any = _read_picture(content, ending, modality, where)
    elif ending == "npy":
        raw = _read_npy(io.BytesIO(content), len(content), where)
    elif ending == "npz":
        raw = _read_npz(content, where)
    else:
        raw = _read_text(content, where)
        if ending == "json":
            raw = _parse_json(raw, modality, where)
    return check_content(raw, modality, where)


def read_file(path: Path, modality: Modality, where: str = "") -> Any:
    """The value in a file, as `decode` gives it.

    Args:
        where: what to call the file in errors; its path by default.

    Raises:
        BadSample: it cannot be read, or as `decode`.
    """
    return decode(read_bytes(path), path.suffix[1:].lower(), modality, where or str(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that is not too large.

    Raises:
        BadSample: it is, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadSample(f"{path}: {size:,} bytes; expected at most {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadSample(f"{path}: cannot be read: {error.strerror}") from error


def encode(value: Any, modality: Modality) -> tuple[bytes, str]:
    """A value as a file's bytes and its ending; `decode` gives it back (directions up to rounding).

    Raises:
        BadSample: the value is not what the entry says.
    """
    value = check_content(value, modality, modality.name)
    ending = endings(modality)[0]
    if ending in PICTURES:
        return _write_png(value), "png"
    if ending == "npy":
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        return buffer.getvalue(), "npy"
    if ending == "txt":
        return value.encode(), "txt"
    if modality.value.type == "instances":
        value = [{"class": item["class"], "mask": to_runs(item["mask"])} for item in value]
    return json.dumps(value, ensure_ascii=False, default=lambda number: number.item()).encode(), "json"


def _read_picture(content: bytes, ending: str, modality: Modality, where: str) -> np.ndarray:
    from PIL import Image, ImageOps

    color = modality.value.type == "image"
    formats = ("PNG", "JPEG") if color else ("PNG",)  # a misnamed photograph is harmless, lossy class ids are not
    try:
        with Image.open(io.BytesIO(content), formats=formats) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadSample(f"{where}: {picture.width} × {picture.height} pixels; expected at most {MAX_PIXELS:,}")
            if picture.mode.startswith(("I", "F")) and color:
                raise BadSample(
                    f"{where}: found a picture of mode {picture.mode} (16 or 32 bits); expected 8 bits a channel; convert it"
                )
            picture.load()  # truncated data shows here, except past the last point
            if picture.format == "PNG" and b"IEND" not in content:
                raise OSError("its end is missing")
            if color:
                upright = ImageOps.exif_transpose(picture)
                return np.array(upright.convert({1: "L", 3: "RGB", 4: "RGBA"}[modality.value.channels]))
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise BadSample(
                    f"{where}: found a picture of mode {picture.mode}; expected one channel of ids for values of type {modality.value.type!r}"
                )
            ids = np.array(picture)  # of a palette picture, the indices
            return ids
    except (BadSample, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadSample(
            f"{where}: a picture too large to be one: {error}; expected at most {MAX_PIXELS:,} pixels"
        ) from error
    except Exception as error:  # Pillow raises many kinds over broken files
        raise BadSample(
            f"{where}: corrupt or truncated {ending} picture of {len(content):,} bytes ({_brief(error)}); replace the file"
        ) from error


def _write_png(value: np.ndarray) -> bytes:
    """uint8 (H, W, 1, 3 or 4), bool (H, W) or class ids (H, W) as a PNG."""
    from PIL import Image

    if value.ndim == 3 and value.shape[-1] == 1:
        value = value[..., 0]
    if value.dtype != bool and value.dtype != np.uint8:
        value = value.astype(np.uint8 if value.max() < 256 else np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(value)).save(buffer, "PNG")
    return buffer.getvalue()


def _read_npy(stream: Any, length: int, where: str) -> np.ndarray:
    """An array of `length` bytes in all; its header is checked before memory is taken."""
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy parses the header as Python text and lets several kinds of error through
        raise BadSample(
            f"{where}: not a NumPy array, or its header is damaged ({_brief(error)}); save it with numpy.save"
        ) from error
    if dtype.kind not in "biuf":
        raise BadSample(f"{where}: found an array of {dtype}; expected plain numbers (objects are never unpickled)")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > MAX_ARRAY_BYTES:
        raise BadSample(f"{where}: shape {shape} of {dtype} takes {size:,} bytes; expected at most {MAX_ARRAY_BYTES:,}")
    if size > length:
        raise BadSample(
            f"{where}: truncated: {length:,} bytes cannot hold shape {shape} of {dtype} ({size:,} bytes); replace the file"
        )
    content = stream.read(size)
    if len(content) != size:
        raise BadSample(
            f"{where}: truncated: {len(content):,} bytes of shape {shape} of {dtype}, expected {size:,}; replace the file"
        )
    array = np.frombuffer(bytearray(content), dtype).reshape(
        shape, order="F" if fortran else "C"
    )  # a bytearray, to be writable
    return np.ascontiguousarray(array)


def _read_npz(content: bytes, where: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            first = next((info for info in archive.infolist() if info.filename.endswith(".npy")), None)
            if first is None:
                raise BadSample(f"{where}: holds no array; expected one saved with numpy.savez")
            with archive.open(first) as stream:
                return _read_npy(stream, first.file_size, f"{where} ({first.filename})")
    except (BadSample, MemoryError):
        raise
    except Exception as error:  # zipfile and zlib raise many kinds over broken files
        raise BadSample(f"{where}: corrupt or truncated npz archive ({_brief(error)}); replace the file") from error


def _read_text(content: bytes, where: str) -> str:
    if len(content) > MAX_JSON_BYTES:
        raise BadSample(f"{where}: {len(content):,} bytes of text; expected at most {MAX_JSON_BYTES:,}")
    try:
        return content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadSample(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _parse_json(text: str, modality: Modality, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"{where}: corrupt or truncated JSON ({_brief(error)}); replace the file") from error
    if modality.value.type == "text" and isinstance(value, list) and value:
        return value[0]
    if modality.value.type == "instances" and isinstance(value, list):
        points = 0
        masks = []
        for i, item in enumerate(value):
            masks.append(_unpack(item, i, where))
            points += masks[-1]["mask"].size
            if points > MAX_MASK_POINTS:  # a few bytes of run lengths can ask for any amount of memory
                raise BadSample(
                    f"{where}: its first {i + 1} masks have {points:,} points; expected at most {MAX_MASK_POINTS:,} in all"
                )
        return masks
    return value


def to_runs(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool (H, W), as COCO's uncompressed run lengths."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))  # the first run counts points outside, and may be 0 long
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return {"size": [int(s) for s in mask.shape], "counts": [int(r) for r in runs]}


def _unpack(item: Any, i: int, where: str) -> Any:
    """An instance with its run lengths as a mask, bool (H, W)."""
    runs = item.get("mask") if isinstance(item, dict) else None
    size: Any = runs.get("size") if isinstance(runs, dict) else None
    counts: Any = runs.get("counts") if isinstance(runs, dict) else None

    def whole(numbers: Any) -> bool:
        return isinstance(numbers, list) and all(type(n) is int and 0 <= n <= MAX_PIXELS for n in numbers)

    if (
        not whole(size)
        or len(size) != 2
        or not whole(counts)
        or not 0 < size[0] * size[1] <= MAX_PIXELS
        or sum(counts) != size[0] * size[1]
    ):
        raise BadSample(
            f'{where}: item {i} has no sound mask; expected {{"class": name, "mask": {{"size": [height, width], "counts": [run lengths]}}}}, '
            "the run lengths adding up to height × width"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return {**item, "mask": np.repeat(inside, counts).reshape(size[::-1]).T}


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
