"""Frames of a part of a video file, scaled down while they are decoded."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.errors import BadSample
from maskweave.values.base import ValueType
from maskweave.values.files import MAX_PIXELS
from maskweave.values.formats.base import check_array, faults, needs


class VideoPart(NamedTuple):
    """A part of a video."""

    path: Path
    start: float
    """Seconds from the beginning of the file."""
    stop: float
    """Seconds; infinite: to the end."""
    fps: float
    """Frames per second of the data set."""


def read_clip(clip: VideoPart, value: ValueType, where: str) -> tuple[np.ndarray, float]:
    """Returns the frames of a clip, uint8 (T, H, W, 3), those of `chosen_frames`, and the file's frames per second. Frames that are larger than the entry's along both axes are
    scaled down to just cover it.

    Raises:
        BadSample: the file is damaged, too large, or ends before the clip.
        MaskweaveError: PyAV is not installed.
    """
    with needs("av", "av", where):
        import av
    frames: list[np.ndarray] = []
    margin = 0.5 / clip.fps
    with (
        faults("video", f"{where}: {clip.path}"),
        open(clip.path, "rb") as file,  # not its path, so that the file cannot make FFmpeg open others
        av.open(file, "r", format="mp4", metadata_errors="replace") as container,
    ):
        if not container.streams.video:
            raise BadSample(f"{where}: {clip.path}: found no video in the file; expected one")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or clip.fps)
        if stream.height * stream.width > MAX_PIXELS:
            raise BadSample(f"{where}: {stream.width} × {stream.height} pixels; expected at most {MAX_PIXELS:,}")
        if clip.start > 0 and stream.time_base:
            container.seek(max(0, int((clip.start - margin) / stream.time_base)), stream=stream)
        for frame in container.decode(stream):
            time = frame.time or 0.0
            if time < clip.start - margin:
                continue
            if time >= clip.stop - margin:
                break
            frames.append(_scaled(frame, value.size))
            check_array((len(frames), *frames[0].shape), frames[0].dtype, where)
    if not frames:
        raise BadSample(
            f"{where}: {clip.path}: has no frames from {clip.start:.2f} to {clip.stop:.2f} s; expected those of the table; restore the file"
        )
    return np.stack([frames[k] for k in chosen_frames(len(frames), rate, value)]), rate


def chosen_frames(count: int, fps: float, value: ValueType) -> list[int]:
    """Returns the frames that an entry uses: at its own rate if it has one (`fps`), else evenly as many as its size, else all."""
    rate = getattr(value, "fps", 0)
    if rate:
        times = np.arange(max(1, round(count * rate / fps))) / rate
        return np.minimum(np.rint(times * fps), count - 1).astype(int).tolist()
    if len(value.size) == 3 and count > value.size[0]:
        return np.linspace(0, count - 1, value.size[0]).round().astype(int).tolist()
    return list(range(count))


def _scaled(frame: Any, size: tuple[int, ...]) -> np.ndarray:
    height, width = frame.height, frame.width
    scale = max(size[1] / height, size[2] / width) if len(size) == 3 else 1.0
    if scale < 1:
        height, width = math.ceil(height * scale - 1e-6), math.ceil(width * scale - 1e-6)
    return frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
