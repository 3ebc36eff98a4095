"""Read pictures and texts from the bytes of files. Sizes are checked before memory is allocated, and nothing is ever unpickled.

| ending | holds |
| --- | --- |
| png | pictures, and over two axes ids and maps of one channel |
| jpg, jpeg, webp, bmp, gif, tif, tiff | pictures |
| txt, json | text and everything else |

`formats/` reads arrays.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskweave.errors import BadSample, reason
from maskweave.files import parse_json
from maskweave.limits import VALUE_SETTING, limits_in_force, setting_in_force, whole_setting
from maskweave.values.remarks import remark

if TYPE_CHECKING:
    from maskweave.values.base import ValueType

MAX_PIXELS = 64_000_000
"""Most points of one value; a larger picture is refused before it is decoded."""
MAX_BYTES = 256 * 2**20
"""Size of one file or tar member; larger ones are not read."""
MAX_ARRAY_BYTES = 2**30
"""Memory that one array or picture may take while it is read, if no other limit is set; checked before memory is allocated."""
PICTURE_COPIES = 4
"""Copies of a picture's points that exist at once while it is decoded."""
MAX_JSON_BYTES = 32 * 2**20
PICTURES = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")
PNG_DEPTH = 24
"""Byte of a PNG that holds its bits per channel; Pillow reads 16 bits of color as 8."""
JPEG = b"\xff\xd8\xff"
"""First bytes of JPEG pictures."""


def max_value_bytes() -> int:
    """Returns the memory in bytes that one array or picture may take while it is read.

    Raises:
        MaskweaveError: the environment variable is not a whole number of 1 or more.
    """
    if (megabytes := limits_in_force().value_mb) is not None:
        return megabytes * 2**20
    return whole_setting(VALUE_SETTING, 0) * 2**20 if os.environ.get(VALUE_SETTING, "").strip() else MAX_ARRAY_BYTES


def expected_at_most(most: int) -> str:
    """Returns the end of a message about a value that takes more memory than it may."""
    return f"expected at most {most:,}; if you trust the file, raise {setting_in_force('value_mb')}"


def check_size(content: bytes, where: str) -> None:
    """Raise BadSample if a file is empty or too large."""
    if not content:
        raise BadSample(f"{where}: the file is empty")
    if len(content) > MAX_BYTES:
        raise BadSample(f"{where}: {len(content):,} bytes; expected at most {MAX_BYTES:,}")


def read_value(path: Path, value: "ValueType", where: str = "") -> Any:
    """Returns the value in a file, or in a folder of frames, checked, at its own size.

    Args:
        where: name of the file in errors; its path by default.

    Raises:
        BadSample: the file cannot be read, its ending cannot hold such values, or its content is invalid.
    """
    from maskweave.values.formats import FRAMES, split_ending  # formats imports this module
    from maskweave.values.formats.frames import pack

    where = where or str(path)
    is_folder = path.is_dir() and FRAMES in value.endings
    content, ending = (pack(path), FRAMES) if is_folder else (read_bytes(path), split_ending(path.name)[1])
    check_ending(ending, value, where)
    return value.read(content, ending, where)


def check_ending(ending: str, value: "ValueType", where: str) -> None:
    """Raise BadSample if files with this ending cannot hold such values."""
    if ending not in value.endings:
        raise BadSample(
            f"{where}: a file that ends in {ending!r} cannot hold values of type {value.type!r}; expected {', '.join(value.endings)}"
        )


def read_bytes(path: Path) -> bytes:
    """Returns the bytes of a file.

    Raises:
        BadSample: the file is too large or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadSample(f"{path}: {size:,} bytes; expected at most {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise BadSample(f"{path}: cannot be read: {error.strerror}") from error


def read_picture(
    content: bytes, ending: str, channels: int, background: tuple[int, int, int], where: str
) -> np.ndarray:
    """Returns a photograph, uint8 (H, W) or (H, W, 3 or 4), rotated by its EXIF orientation.

    Args:
        channels: 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGBA); pictures of other modes are converted.
        background: color under transparent pictures, unless there are four channels.
    """
    # A JPEG named .png does no harm for photographs.
    with _opened(content, ending, ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"), where) as picture:
        pages = _pages(picture)
        if pages > 1:
            raise BadSample(f"{where}: found {pages} pictures in one file; expected one; save each as its own file")
        if picture.format == "PNG" and content[PNG_DEPTH] == 16:
            raise _too_deep("16 bits a channel", where)
        return picture_array(picture, channels, background, where)


def picture_array(picture: Any, channels: int, background: tuple[int, int, int], where: str) -> np.ndarray:
    """Returns a PIL image as `read_picture` returns a file.

    Raises:
        BadSample: it has more than 8 bits a channel.
    """
    from PIL import ImageOps

    if picture.mode.startswith(("I", "F")):
        raise _too_deep(f"mode {picture.mode} (16 or 32 bits)", where)
    upright = ImageOps.exif_transpose(picture)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    if channels not in (2, 4) and upright.has_transparency_data:
        colors = composited(np.array(upright.convert("RGBA")), background)
        from PIL import Image

        upright = Image.fromarray(colors)
    return np.array(upright if upright.mode == mode else upright.convert(mode))


def composited(array: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Composites colors with transparency, uint8 (..., 4), on a background, (..., 3)."""
    alpha = array[..., 3:].astype(np.float32) / 255
    if not (alpha < 1).any():
        return array[..., :3]
    remark(f"transparent pictures, composited on the background {list(background)}")
    mixed = array[..., :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)


def _too_deep(what: str, where: str) -> BadSample:
    return BadSample(
        f"{where}: found a picture of {what}; expected 8 bits a channel; convert it, or make the entry a map with value.scale"
    )


def read_ids(content: bytes, ending: str, type: str, where: str) -> np.ndarray:
    """Returns a picture of one channel as whole numbers (H, W); for a palette picture, the indices."""
    if content.startswith(JPEG):
        raise BadSample(
            f"{where}: found a JPEG picture; expected a PNG, because JPEG blurs the ids of values of type {type!r}; save it as PNG"
        )
    with _opened(content, ending, ("PNG",), where) as picture:
        if picture.mode not in ("1", "L", "P", "I", "I;16"):
            raise BadSample(
                f"{where}: found a picture of mode {picture.mode}; expected one channel of ids for values of type {type!r}"
            )
        return np.array(picture)


def read_levels(content: bytes, ending: str, where: str) -> np.ndarray:
    """Returns a gray PNG of 8 or 16 bits as whole numbers (H, W), for maps."""
    if content.startswith(JPEG):
        raise BadSample(f"{where}: found a JPEG picture; expected a PNG, because JPEG blurs numbers; save it as PNG")
    with _opened(content, ending, ("PNG",), where) as picture:
        if picture.mode not in ("1", "L", "I", "I;16"):
            raise BadSample(
                f"{where}: found a picture of mode {picture.mode}; expected one channel of 8 or 16 bits for a map; save it as a gray PNG, or as a NumPy array"
            )
        levels = np.array(picture)
        return levels.astype(np.uint8) if levels.dtype == bool else levels


def _pages(picture: Any) -> int:
    """Returns the number of pictures in a file. Smaller copies and masks in a TIFF don't count, nor do the further frames of a PNG or JPEG."""
    frames = getattr(picture, "n_frames", 1) if picture.format in ("GIF", "WEBP", "TIFF") else 1
    if frames == 1 or picture.format != "TIFF":
        return frames
    subfile_type, pages = 254, 0
    for frame in range(frames):
        picture.seek(frame)
        pages += not picture.tag_v2.get(subfile_type, 0) & 0b101
    picture.seek(0)
    return pages


def check_picture(picture: Any, where: str) -> None:
    """Raise BadSample if decoding a picture takes more memory than a value may."""
    size, most = picture.width * picture.height * len(picture.getbands()) * PICTURE_COPIES, max_value_bytes()
    if size > most:
        raise BadSample(
            f"{where}: decoding {picture.width} × {picture.height} pixels takes {size:,} bytes; {expected_at_most(most)}"
        )


class _opened:
    """Context that opens a picture; every error in the file is raised as a BadSample."""

    def __init__(self, content: bytes, ending: str, formats: tuple[str, ...], where: str):
        self.content, self.ending, self.formats, self.where = content, ending, formats, where

    def __enter__(self) -> Any:
        from PIL import Image

        try:
            picture = Image.open(io.BytesIO(self.content), formats=self.formats)
            if picture.width * picture.height > MAX_PIXELS:
                raise BadSample(
                    f"{self.where}: {picture.width} × {picture.height} pixels; expected at most {MAX_PIXELS:,}"
                )
            check_picture(picture, self.where)
            picture.load()  # raises on truncated data, unless only the end is missing
            if picture.format == "PNG" and b"IEND" not in self.content:
                raise OSError("its end is missing")
        except BaseException as error:
            raise self._fault(error) from error
        return picture

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            raise self._fault(error) from error

    def _fault(self, error: BaseException) -> BaseException:
        from PIL import Image, UnidentifiedImageError

        if isinstance(error, (BadSample, MemoryError)) or not isinstance(error, Exception):
            return error
        if isinstance(error, Image.DecompressionBombError):
            return BadSample(f"{self.where}: the picture is too large: {error}; expected at most {MAX_PIXELS:,} pixels")
        fault = f"no {' or '.join(self.formats)}" if isinstance(error, UnidentifiedImageError) else reason(error)
        return BadSample(  # Pillow raises many types of errors on broken files
            f"{self.where}: corrupt or truncated {self.ending} picture of {len(self.content):,} bytes ({fault}); replace the file"
        )


def write_png(value: np.ndarray) -> bytes:
    """Returns uint8 (H, W, 1 to 4), bool (H, W) or class ids (H, W) as the bytes of a PNG."""
    from PIL import Image

    if value.ndim == 3 and value.shape[-1] == 1:
        value = value[..., 0]
    if value.dtype != bool and value.dtype != np.uint8:
        value = value.astype(np.uint8 if value.max() < 256 else np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(value)).save(buffer, "PNG")
    return buffer.getvalue()


def write_npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def read_text(content: bytes, where: str) -> str:
    """Returns UTF-8 text without the line breaks at its end."""
    if len(content) > MAX_JSON_BYTES:
        raise BadSample(f"{where}: {len(content):,} bytes of text; expected at most {MAX_JSON_BYTES:,}")
    try:
        return content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadSample(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_json_value(content: bytes, where: str) -> Any:
    """Returns the content of a JSON file."""
    try:
        return parse_json(read_text(content, where))
    except (ValueError, RecursionError) as error:
        raise BadSample(f"{where}: corrupt or truncated JSON ({reason(error)}); replace the file") from error
