"""Videos and animated GIFs, with PyAV (extra `[av]`).

FFmpeg reads many formats, some of which name other files or addresses. Here it is given only the bytes of a file and the one format of its ending.
"""

import io
from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats.base import Selection, Stored, check_array, faults, needs

DEMUXERS = {b"ftyp": "mp4", b"moov": "mp4", b"mdat": "mp4", b"wide": "mp4", b"free": "mp4"}
"""FFmpeg's name of the format by the bytes 4 to 8 of MP4 and QuickTime files."""


def read(content: bytes, where: str, selection: Selection) -> Stored:
    """Returns the frames, uint8 (frames, height, width, 3)."""
    return Stored(read_video(content, where)[0])


def read_video(content: bytes, where: str) -> tuple[np.ndarray, float]:
    """Returns all frames, uint8 (frames, height, width, 3), and their mean rate in frames per second (0: the file does not say).

    Frames are turned upright as the file says. Transparent points of a GIF are white.

    Raises:
        BadSample: the file is damaged, truncated or too large, or has no video.
        MaskweaveError: PyAV is not installed.
    """
    with needs("av", "av", where):
        import av
    files.check_size(content, where)
    frames: list[np.ndarray] = []
    with (
        faults("video", where),
        av.open(io.BytesIO(content), "r", format=_demuxer(content, where), metadata_errors="replace") as container,
    ):
        if not container.streams.video:
            raise BadSample(f"{where}: found no video in the file; expected one")
        stream = container.streams.video[0]
        _check(max(stream.frames, 1), stream.height, stream.width, where)
        for frame in container.decode(stream):
            _check(len(frames) + 1, frame.height, frame.width, where)
            frames.append(_picture(frame))
            if frames[-1].shape != frames[0].shape:
                raise BadSample(
                    f"{where}: found frames of {frames[0].shape[:2]} and of {frames[-1].shape[:2]} pixels; expected one size"
                )
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        promised = stream.frames
    cut = content[:3] == b"GIF" and content.rstrip(b"\0")[-1:] != b";"
    if not frames or len(frames) < promised or cut:
        raise BadSample(
            f"{where}: truncated: {len(frames)} frames{f' of {promised}' if promised else ''}; replace the file"
        )
    return np.stack(frames), rate


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
