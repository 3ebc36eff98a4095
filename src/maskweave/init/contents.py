"""What single files hold, before a value type is chosen for them: read with the readers that the value types use."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskweave.errors import BadSample
from maskweave.init.stated import array_unit, tiff_bands
from maskweave.values import files, formats
from maskweave.values.formats import SOUNDS
from maskweave.values.formats.base import Selection
from maskweave.values.formats.frames import pack
from maskweave.values.formats.pickled import conversion
from maskweave.values.formats.sound import read_sound
from maskweave.values.formats.video import probe_video

Holds = Literal["picture", "array", "text", "json", "video", "sound"]
WHITE = (255, 255, 255)
FEW_PAGES = 1
BEGINNING = 10
"""Seconds of a sound that are looked at."""


@dataclass(frozen=True)
class FileContent:
    """The content of one file."""

    holds: Holds
    data: Any
    """Pictures: uint8; arrays: numbers of any type; texts: str; JSON: the object; sounds: float32 (samples, channels); videos: an array of their shape,
    without their points."""
    known: np.ndarray | None = None
    """False at points that the file marks as missing."""
    exact: bool = True
    """Whether whole numbers are stored exactly; JPEG blurs them."""
    ids: np.ndarray | None = None
    """The indices of a picture with a palette."""
    plane: bool = False
    """Whether the format says that two axes are rows and columns, as pictures and TIFF do."""
    channel_names: tuple[str, ...] = ()
    unit: str = ""
    rate: float = 0.0
    """Samples or frames per second of sounds and videos; 0: the file does not say."""
    seconds: float = 0.0
    """Duration of a sound, of which `data` has the beginning."""


def read_content(path: Path, array: str = "") -> FileContent:
    """Returns what a file, or a folder of frames, holds.

    Args:
        array: name of the array to read from files that hold several.

    Raises:
        BadSample: the file is damaged, holds several arrays, or has an ending that nothing reads.
        MaskweaveError: the package that reads such files is not installed.
    """
    if path.is_dir():
        return video_content(formats.read(pack(path), formats.FRAMES, str(path), Selection(axes=3)).array)
    return content_of(files.read_bytes(path), formats.split_ending(path.name)[1], str(path), array)


def content_of(content: bytes, ending: str, where: str, array: str = "") -> FileContent:
    """Returns what the bytes of a file hold; arguments and errors as for `read_content`."""
    if ending in SOUNDS:
        waveform, rate = read_sound(content, where)
        return FileContent("sound", waveform[: BEGINNING * rate], rate=rate, seconds=len(waveform) / rate)
    if ending == "txt":
        return FileContent("text", files.read_text(content, where))
    files.check_size(content, where)
    if ending == "json":
        return FileContent("json", files.read_json_value(content, where))
    if ending == "gif" and _pages(content) > FEW_PAGES:
        return _probed(content, where)
    if ending in formats.PLANES:
        stored = formats.read(content, ending, where, Selection(axes=2))
        names, unit = tiff_bands(content, where)
        return FileContent("array", stored.array, stored.known, plane=True, channel_names=names, unit=unit)
    if ending in files.PICTURES:
        return _picture(content, ending, where)
    if ending in formats.VIDEOS:
        if ending == formats.FRAMES:
            return video_content(formats.read(content, ending, where, Selection(axes=3)).array)
        return _probed(content, where)
    if ending in formats.BUILT_IN or ending in formats.installed():
        stored = formats.read(content, ending, where, Selection(array, axes=1 if ending == "csv" else 2))
        return FileContent("array", stored.array, stored.known, unit=array_unit(content, ending, where, array))
    why = conversion(where.removesuffix(f".{ending}"), ending) or f"nothing reads files that end in {ending!r}"
    raise BadSample(f"{where}: {why}")


def video_content(frames: np.ndarray, rate: float = 0.0) -> FileContent:
    return FileContent("video", np.broadcast_to(np.uint8(0), frames.shape), rate=rate)


def _probed(content: bytes, where: str) -> FileContent:
    size, rate = probe_video(content, where)
    return FileContent("video", np.broadcast_to(np.uint8(0), (*size, 3)), rate=rate)


def _picture(content: bytes, ending: str, where: str) -> FileContent:
    mode = _mode(content)
    if ending == "png" and mode in ("1", "I", "I;16"):
        levels = files.read_levels(content, ending, where)
        return FileContent("array", levels.astype(bool) if mode == "1" else levels, plane=True)
    picture = files.read_picture(content, ending, 1 if mode == "L" else 3, WHITE, where)
    is_png = content.startswith(b"\x89PNG")
    ids = files.read_ids(content, ending, "classes", where) if mode == "P" and is_png and ending == "png" else None
    return FileContent("picture", picture, exact=is_png, ids=ids, plane=True)


def _mode(content: bytes) -> str:
    """Returns Pillow's mode of a picture; empty if it is none, which its reader will say."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.mode
    except Exception:  # Pillow raises many types of errors on broken files
        return ""


def _pages(content: bytes) -> int:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return getattr(picture, "n_frames", 1)
    except Exception:  # as above
        return 1
