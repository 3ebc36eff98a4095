"""Videos and animated GIFs, with PyAV (extra `[av]`).

FFmpeg reads many formats, some of which name other files or addresses. Here it is given only the bytes of a file and the one format of its ending.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, check_array, faults, needs
from maskweave.values.remarks import remark

DEMUXERS = {b"ftyp": "mp4", b"moov": "mp4", b"mdat": "mp4", b"wide": "mp4", b"free": "mp4"}
"""FFmpeg's name of the format by the bytes 4 to 8 of MP4 and QuickTime files."""
UNEVEN = 0.5
"""Frames are shown at other times than those of an even video if these differ by at least this part of a frame's mean duration."""
SHORTEST = 2
"""Hundredths of a second that a frame of a GIF lasts at least: viewers slow down shorter ones."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the frames, uint8 (frames, height, width, 3)."""
    return Stored(read_video(content, where)[0])


def read_video(
    content: bytes, where: str, fps: float = 0.0, most: int = 0, least: tuple[int, int] | None = None
) -> tuple[np.ndarray, float]:
    """Returns the frames, uint8 (frames, height, width, 3), and their mean rate in frames per second (0: the file does not say).

    Frames are turned upright as the file says. Transparent points of a GIF are white.

    Args:
        fps: rate of the returned frames: each is the one that is shown at its time, also where frames of the file last unequally long; 0: all frames
            as stored.
        most: read no further than this many returned frames; 0: all.
        least: height and width that frames must not fall below; larger ones are reduced by the largest whole factor. None: their own size.

    Raises:
        BadSample: the file is damaged, truncated or too large, or has no video.
        MaskweaveError: PyAV is not installed.
    """
    frames: list[np.ndarray] = []
    with _opened(content, where) as (container, stream):
        rate = _rate(stream)
        step = rate / fps if fps and rate else 1.0
        planned = max(1, int(stream.frames / step))
        if least is None:
            _check(min(planned, most) if most else planned, stream.height, stream.width, where)
        uneven = bool(fps and rate) and _is_uneven(content, where)
        if uneven:
            remark(f"videos whose frames last unequally long, resampled to {fps:g} frames per second by their times")
        found, end, picture = 0, 0.0, None
        for frame, end in _timed(container.decode(stream), rate if uneven else 0.0):
            picture = None
            while (len(frames) + 0.5) * step + 1e-9 < end and not (most and len(frames) == most):
                picture = _reduced(_picture(frame), least) if picture is None else picture
                _check(len(frames) + 1, picture.shape[0], picture.shape[1], where)
                if frames and picture.shape != frames[0].shape:
                    raise BadSample(
                        f"{where}: found frames of {frames[0].shape[:2]} and of {picture.shape[:2]} pixels; expected one size"
                    )
                frames.append(picture)
            found, last = found + 1, frame
            if most and len(frames) == most:
                break
        else:
            _check_end(content, found, stream.frames, where)
            count = max(1, round(end / step))
            while len(frames) < count:
                frames.append(_reduced(_picture(last), least) if picture is None else picture)
            del frames[count:]
    return np.stack(frames), fps if fps and rate else rate


def probe_video(content: bytes, where: str) -> tuple[tuple[int, int, int], float]:
    """Returns the number of frames, height and width of a video, and its mean rate in frames per second (0: the file does not say); same errors as
    `read_video`, but only the first frame is decoded."""
    with _opened(content, where) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise BadSample(f"{where}: truncated: 0 frames; replace the file")
        height, width = _picture(first).shape[:2]
        count = stream.frames
        if not count:
            container.seek(0)
            count = sum(packet.size > 0 for packet in container.demux(stream))
        return (count, height, width), _rate(stream)


@contextlib.contextmanager
def _opened(content: bytes, where: str) -> Iterator[tuple[Any, Any]]:
    """Context that opens a file and gives it with its video stream; faults of the file are raised as BadSample."""
    with needs("av", "av", where):
        import av
    files.check_size(content, where)
    with (
        faults("video", where),
        av.open(io.BytesIO(content), "r", format=_demuxer(content, where), metadata_errors="replace") as container,
    ):
        if not container.streams.video:
            raise BadSample(f"{where}: found no video in the file; expected one")
        stream = container.streams.video[0]
        _check(1, stream.height, stream.width, where)
        yield container, stream


def _is_uneven(content: bytes, where: str) -> bool:
    """Whether some frames of a file are shown half a frame or more before or after those of a video of the same length with equally long frames."""
    with _opened(content, where) as (container, stream):
        found = [p for p in container.demux(stream) if p.size and p.pts is not None and p.time_base]
    if len(found) < 2:
        return False
    last = max(found, key=lambda packet: packet.pts)
    times = np.sort([float(packet.pts * packet.time_base) for packet in found])
    times -= times[0]
    step = times[-1] / (len(times) - 1)
    late = np.abs(times - step * np.arange(len(times))).max()
    long = (
        float((last.duration or 0) * last.time_base) - step
    )  # many files state too short a duration of the last frame
    return bool(step > 0 and max(late, long) >= UNEVEN * step)


def _timed(frames: Iterable[Any], rate: float) -> Iterator[tuple[Any, float]]:
    """Yields each frame with the time at which the next one begins, in mean frames from the first: by the frames' times, or 1, 2, 3 and so on
    if `rate` is 0."""
    if not rate:
        for number, frame in enumerate(frames, 1):
            yield frame, float(number)
        return
    before, first, time = None, 0.0, 0.0  # seconds; `time` is that of the frame before
    for frame in frames:
        time = time if frame.time is None else max(float(frame.time), time)
        if before is None:
            first = time
        else:
            yield before, (time - first) * rate
        before = frame
    if before is not None:
        lasts = float(before.duration * before.time_base) if before.duration and before.time_base else 1 / rate
        yield before, (time - first + lasts) * rate


def _rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _check_end(content: bytes, found: int, promised: int, where: str) -> None:
    """Raise BadSample if a file ends too early."""
    cut = content[:3] == b"GIF" and content.rstrip(b"\0")[-1:] != b";"
    if not found or found < promised or cut:
        raise BadSample(f"{where}: truncated: {found} frames{f' of {promised}' if promised else ''}; replace the file")


def _reduced(picture: np.ndarray, least: tuple[int, int] | None) -> np.ndarray:
    """Returns a frame at a smaller size that is at least `least`, by the mean of whole blocks of points."""
    factor = min(n // s for n, s in zip(picture.shape[:2], least, strict=True)) if least else 1
    if factor < 2:
        return picture
    from PIL import Image

    return np.array(Image.fromarray(np.ascontiguousarray(picture)).reduce(factor))


def _demuxer(content: bytes, where: str) -> str:
    """Returns FFmpeg's name of the format, by the first bytes."""
    if content[:4] == b"GIF8":
        return "gif"
    if content[:4] == b"RIFF" and content[8:12] == b"AVI ":
        return "avi"
    if content[4:8] in DEMUXERS:
        return DEMUXERS[content[4:8]]
    raise BadSample(f"{where}: found no MP4, QuickTime, AVI or GIF; expected one of them; convert or replace the file")


def _check(frames: int, height: int, width: int, where: str) -> None:
    if height * width > files.MAX_PIXELS:
        raise BadSample(f"{where}: {width} × {height} pixels; expected at most {files.MAX_PIXELS:,}")
    check_array((frames, height, width, 3), np.dtype("u1"), where)


def _picture(frame: Any) -> np.ndarray:
    """Returns a frame, uint8 (H, W, 3), upright."""
    if "a" in frame.format.name and frame.format.name.startswith(("bgra", "rgba", "argb", "abgr", "yuva", "pal8")):
        rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
        color, alpha = rgba[..., :3], rgba[..., 3:]
        picture = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        picture = frame.to_ndarray(format="rgb24")
    return np.rot90(picture, (frame.rotation // 90) % 4) if frame.rotation else picture


def write_mp4(frames: np.ndarray, fps: float, where: str) -> bytes:
    """Returns frames, uint8 (frames, height, width, 3), as the bytes of an MP4 (H.264). Odd sides are extended by one point.

    Raises:
        MaskweaveError: PyAV is not installed.
    """
    with needs("av", "av", where):
        import av
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), "edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return buffer.getvalue()


def write_gif(frames: np.ndarray, fps: float, enlarged: int = 1) -> bytes:
    """Returns frames, uint8 (frames, height, width, 3), as the bytes of a GIF that repeats forever; frames last whole hundredths of a second."""
    from PIL import Image

    pictures = [
        Image.fromarray(np.ascontiguousarray(frame)) for frame in frames.repeat(enlarged, 1).repeat(enlarged, 2)
    ]
    buffer = io.BytesIO()
    duration = max(SHORTEST, round(100 / fps)) * 10
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return buffer.getvalue()
