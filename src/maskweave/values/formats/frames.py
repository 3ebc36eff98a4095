"""Folders of frames: pictures of one size, in the order of the numbers in their names, packed into an uncompressed zip file."""

import io
import re
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, check_array, faults

MAX_FRAMES = 100_000
STARTED = (1980, 1, 1, 0, 0, 0)
"""Date of the packed pictures, so that equal frames give equal bytes."""
WHITE = (255, 255, 255)
ENDINGS = tuple(ending for ending in files.PICTURES if ending != "gif")
"""Endings of frames; a GIF is a video itself."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the frames, uint8 (frames, height, width, 3); transparent points are white.

    Raises:
        BadSample: the file is damaged or too large, has no pictures or others than pictures, or frames differ in size.
    """
    files.check_size(content, where)
    frames: list[np.ndarray] = []
    with faults("zip file of frames", where), zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = [item for item in packed.infolist() if not item.is_dir()]
        if not 0 < len(members) <= MAX_FRAMES:
            raise BadSample(f"{where}: found {len(members):,} frames; expected 1 to {MAX_FRAMES:,}")
        members.sort(key=lambda item: in_order(item.filename))
        check_numbers([item.filename for item in members], where)
        for item in members:
            if item.file_size > files.MAX_BYTES:
                raise BadSample(
                    f"{where}: {item.filename}: {item.file_size:,} bytes; expected at most {files.MAX_BYTES:,}"
                )
            ending = item.filename.rpartition(".")[2].lower()
            if ending not in ENDINGS:
                raise BadSample(f"{where}: found {item.filename!r}; expected pictures: {', '.join(ENDINGS)}")
            frame = files.read_picture(packed.read(item), ending, 3, WHITE, f"{where}: {item.filename}")
            check_array((len(members), *frame.shape), frame.dtype, where)
            if frames and frame.shape != frames[0].shape:
                raise BadSample(
                    f"{where}: found frames of {frames[0].shape[:2]} and of {frame.shape[:2]} pixels; expected one size"
                )
            frames.append(frame)
    return Stored(np.stack(frames))


def in_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Key that sorts names by the numbers in them, with or without leading zeros: frame 9 is before frames 0010 and 11."""
    parts = [part for part in re.split("([0-9]+)", name.rpartition(".")[0] or name) if part]
    numbers = [(part.lstrip("0") or "0") if part[0] in "0123456789" else "" for part in parts]
    return [(len(number), number or part) for number, part in zip(numbers, parts, strict=True)], name


def check_numbers(names: Sequence[str], where: str) -> None:
    """Raise BadSample if two frames, in order, have the same number: `frame_7.png` and `frame_007.png`, or `7.png` and `7.jpg`."""
    for first, second in pairwise(names):
        if in_order(first)[0] == in_order(second)[0]:
            raise BadSample(
                f"{where}: {first!r} and {second!r} have the same number, so the order of the frames is unknown; rename or remove one"
            )


def is_frames(folder: Path) -> bool:
    """Whether a folder directly contains pictures and nothing else; hidden files do not count, and GIFs are no frames."""
    names = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return bool(names) and all(
        path.suffix[1:].lower() in ENDINGS and path.is_file() and not path.is_symlink() for path in names
    )


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder of frames, in order."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda p: in_order(p.name))


def pack(folder: Path) -> bytes:
    """Returns a folder of frames as the bytes of a `.frames.zip`.

    Raises:
        BadSample: a file cannot be read, or all are too large together.
    """
    buffer, total = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as packed:
        paths = frame_files(folder)
        check_numbers([path.name for path in paths], str(folder))
        for path in paths:
            content = files.read_bytes(path)
            total += len(content)
            if total > files.MAX_BYTES:
                raise BadSample(f"{folder}: its frames have more than {files.MAX_BYTES:,} bytes; make them a video")
            packed.writestr(zipfile.ZipInfo(path.name, STARTED), content)
    return buffer.getvalue()
