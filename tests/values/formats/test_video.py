"""Videos and animated GIFs."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from format_helpers import assert_needs, stored, value
from PIL import Image

from maskweave.errors import BadSample
from maskweave.values.formats.video import probe_video, read_video
from maskweave.values.geometry import nearest
from maskweave.values.remarks import listening

CODECS = {"mp4": "libx264", "mov": "libx264", "avi": "mpeg4"}
LEVELS = np.arange(0, 240, 30, dtype=np.uint8)


def written(
    kind: str, frames: int = 8, height: int = 32, width: int = 48, options: Any = None, sound: bool = False
) -> bytes:
    """A video whose frame i has level 30 i, with a white upper left corner."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options=options or {}) as out:
        if sound:
            audio = out.add_stream("pcm_s16le", rate=8000, layout="mono")
            block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            block.sample_rate = 8000
            for packet in [*audio.encode(block), *audio.encode(None)]:
                out.mux(packet)
        else:
            stream = out.add_stream(CODECS[kind], rate=8)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for i in range(frames):
                picture = np.full((height, width, 3), 30 * i, np.uint8)
                picture[:8, :8] = 255
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    out.mux(packet)
            for packet in stream.encode(None):
                out.mux(packet)
    return buffer.getvalue()


def animated(frames: list[Image.Image], **options: Any) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", CODECS)
def test_frames_and_rate(kind: str) -> None:
    array, rate = read_video(written(kind), "x")
    assert rate == 8 and array.shape == (8, 32, 48, 3) and array.dtype == np.uint8
    assert np.abs(array[:, 20, 30].astype(int) - LEVELS[:, None]).max() < 12
    assert array[:, 2, 2].min() > 200


def test_a_video_in_fragments_states_no_number_of_frames() -> None:
    content = written("mp4", options={"movflags": "frag_keyframe+empty_moov"})
    assert len(read_video(content, "x")[0]) == 8


def test_an_animated_gif() -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)]
    array, rate = read_video(animated([Image.new("RGB", (12, 10), c) for c in colors], duration=100), "x")
    assert rate == 10 and array.shape == (4, 10, 12, 3)
    np.testing.assert_equal(array[:, 5, 5], colors)


def test_transparent_points_of_a_gif_are_white() -> None:
    frames = [Image.new("RGBA", (12, 10), (200, 0, 0, 0)) for _ in range(2)]
    for i, frame in enumerate(frames):
        frame.paste((0, 0, 200 - i, 255), (0, 0, 6, 10))
    array, _ = read_video(animated(frames, duration=100, disposal=2), "x")
    np.testing.assert_equal(array[0, 5, 9], [255, 255, 255])
    assert array[0, 5, 2, 2] > 180 and array[0, 5, 2, 0] < 20


def test_a_picture_of_three_axes_reads_videos() -> None:
    entry = value(type="image", size=[8, 32, 48], channels=3)
    assert {"mp4", "mov", "avi", "gif"} <= set(entry.endings)
    assert entry.read(written("mp4"), "mp4", "x").shape == (8, 32, 48, 3)
    assert "mp4" not in value(type="image", size=[32, 48], channels=3).endings
    with pytest.raises(BadSample, match=r"x: found shape \(8, 32, 48, 3\)"):
        value(type="image", size=[8, 32, 48]).read(written("mp4"), "mp4", "x")


def test_phones_turn_their_videos() -> None:
    content = bytearray(written("mov"))
    at = content.index(b"tkhd") + 4 + 40  # the matrix of the track
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    for degrees, (a, b, c, d) in matrix.items():
        import struct

        one = 1 << 16
        content[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
        array, _ = read_video(bytes(content), "x")
        upright = np.zeros((32, 48), bool)
        upright[:8, :8] = True
        corner = np.rot90(upright, -degrees // 90)  # clockwise
        assert array.shape[1:3] == corner.shape
        assert array[0][corner].min() > 200 and array[0][~corner].max() < 120


@pytest.mark.parametrize("kind", [*CODECS, "gif"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_truncated_files(kind: str, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)) for _ in range(8)]
    content = animated(noise) if kind == "gif" else written(kind)
    with pytest.raises(BadSample, match=r"^x: (truncated: \d+ frames|corrupt or truncated video)"):
        read_video(content[: int(share * len(content))], "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello hello", "found no MP4, QuickTime, AVI or GIF"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/x.ts\n", "found no MP4"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "found no MP4"),
        (b"GIF89a", "corrupt or truncated video|truncated: 0 frames"),
        (written("mov", sound=True), "found no video in the file"),
    ],
)
def test_bad_files(content: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=f"^x: ({message})"):
        read_video(content, "x")


def test_a_long_video_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written("mp4")
    monkeypatch.setattr("maskweave.values.files.MAX_ARRAY_BYTES", 20_000)
    with pytest.raises(
        BadSample, match=r"^x: shape \(8, 32, 48, 3\) of uint8 takes 36,864 bytes; expected at most 20,000"
    ):
        read_video(content, "x")
    fragments = written("mp4", options={"movflags": "frag_keyframe+empty_moov"})
    with pytest.raises(BadSample, match=r"^x: shape \(5, 32, 48, 3\) of uint8 takes"):
        read_video(fragments, "x")
    monkeypatch.setattr("maskweave.values.files.MAX_PIXELS", 1000)
    with pytest.raises(BadSample, match=r"^x: 48 × 32 pixels; expected at most 1,000"):
        read_video(content, "x")


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written("mp4")
    assert stored(content, "mp4").array.shape == (8, 32, 48, 3)
    assert_needs("av", "av", content, "mp4", monkeypatch)


@pytest.mark.parametrize("kind", ["mp4", "avi"])
def test_probing_tells_the_size_without_decoding_all(kind: str) -> None:
    assert probe_video(written(kind), "x") == ((8, 32, 48), 8)
    fragments = written("mp4", options={"movflags": "frag_keyframe+empty_moov"})
    assert probe_video(fragments, "x")[0] == (8, 32, 48)
    with pytest.raises(BadSample, match="^x: "):
        probe_video(b"no video at all", "x")


@pytest.mark.parametrize("fps", [2.0, 3.0, 8.0, 12.0, 20.0])
def test_frames_are_chosen_while_reading_as_they_are_from_arrays(fps: float) -> None:
    content = written("mp4")
    every, rate = read_video(content, "x")
    count = max(1, round(len(every) * fps / rate))
    expected = every[nearest(0.0, count * rate / fps, count, len(every))]
    some, at = read_video(content, "x", fps)
    assert at == fps and np.array_equal(some, expected)
    assert np.array_equal(read_video(content, "x", fps, 2)[0], expected[:2])


def test_large_frames_are_reduced_while_reading() -> None:
    content = written("mp4", height=64, width=96)
    small, _ = read_video(content, "x", least=(16, 16))
    assert small.shape == (8, 16, 24, 3)
    assert np.abs(small[:, 8, 12].astype(int) - LEVELS[:, None]).max() < 12
    assert read_video(content, "x", least=(40, 16))[0].shape == (8, 64, 96, 3)


def uneven(kind: str, starts: list[int], end: int) -> bytes:
    """A video whose frame i has level 30 i and is shown from `starts[i]`, in hundredths of a second."""
    lasts = np.diff([*starts, end]).tolist()
    if kind == "gif":
        return animated([Image.new("RGB", (48, 32), (30 * i,) * 3) for i in range(len(starts))], duration=[10 * n for n in lasts])  # fmt: skip
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as out:
        stream = out.add_stream("libx264", rate=100, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        packets = []
        for i, start in enumerate(starts):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 30 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = start, Fraction(1, 100)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            packet.duration = lasts[starts.index(packet.pts)]
            out.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["mp4", "gif"])
@pytest.mark.parametrize("fps", [5, 10, 20])
def test_frames_that_last_unequally_long_are_taken_by_their_times(kind: str, fps: float) -> None:
    starts = [0, 10, 20, 30, 130, 140]
    content = uneven(kind, starts, 160)
    remarks: list[str] = []
    with listening(remarks.append):
        video, rate = read_video(content, "x", fps)
    times = 100 * (np.arange(round(1.6 * fps)) + 0.5) / fps
    assert rate == fps and len(video) == len(times)
    shown = np.searchsorted(starts, times, "right") - 1
    assert np.abs(video[:, 20, 30, 0].astype(int) - 30 * shown).max() < 12
    assert remarks == [f"videos whose frames last unequally long, resampled to {fps} frames per second by their times"]
    assert np.array_equal(read_video(content, "x", fps, most=3)[0], video[:3])
    assert len(read_video(content, "x")[0]) == 6, "all frames as stored"


def test_small_differences_of_times_are_rounding() -> None:
    remarks: list[str] = []
    for content in (
        uneven("mp4", [0, 4, 8, 13, 17, 21], 25),
        uneven("gif", [0, 4, 8, 13, 17, 21], 25),
        written("mp4"),
        written("avi"),
    ):
        with listening(remarks.append):
            read_video(content, "x", 12)
    assert not remarks
