"""Sound files."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile
from format_helpers import lacking

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.formats.sound import SOUNDS, read_sound

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.float32)


def written(kind: str, array: np.ndarray = TONE, rate: int = 8000, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, array, rate, format=kind.upper(), **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", SOUNDS)
def test_every_kind_keeps_its_rate_and_length(kind: str) -> None:
    array, rate = read_sound(written(kind), "x")
    assert rate == 8000 and array.shape == (8000, 1) and array.dtype == np.float32
    assert np.abs(array[500:-500, 0] - TONE[500:-500]).max() < (0.1 if kind in ("mp3", "ogg") else 1e-4)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_whole_numbers_become_shares_of_the_largest(subtype: str) -> None:
    stereo = np.stack([TONE, -TONE], -1)
    array, rate = read_sound(written("wav", stereo, 44_100, subtype=subtype), "x")
    assert rate == 44_100 and np.abs(array - stereo).max() < (0.02 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("kind", SOUNDS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files(kind: str, share: float) -> None:
    content = written(kind)
    with pytest.raises(
        BadSample, match=r"^x: (truncated: [\d,]+ of 8,000 samples|corrupt or truncated sound file|found no sound)"
    ):
        read_sound(content[: int(share * len(content))], "x")


def test_a_wav_written_to_a_pipe_states_no_length() -> None:
    content = written("wav", subtype="PCM_16")
    at = content.index(b"data") + 4
    endless = content[:4] + b"\xff" * 4 + content[8:at] + b"\xff" * 4 + content[at + 4 :]
    assert read_sound(endless, "x")[0].shape == (8000, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello", "corrupt or truncated sound file"),
        (written("wav", TONE[:0]), "found no sound"),
        (written("aiff"), "found a sound file of format AIFF; expected wav, flac, mp3, ogg"),
    ],
)
def test_bad_files(content: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=f"^x: {message}"):
        read_sound(content, "x")


def test_a_flac_that_promises_too_much_takes_no_memory() -> None:
    content = bytearray(written("flac"))
    content[21:26] = bytes([content[21] | 0x0F]) + struct.pack(">I", 0xFFFF_FFFF)  # 36 bits: number of samples
    with pytest.raises(BadSample, match=r"^x: shape \(68719476735, 1\) of float32 takes"):
        read_sound(bytes(content), "x")


def test_without_soundfile(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking("soundfile", monkeypatch)
    with pytest.raises(MaskweaveError, match=r"^x: reading this file needs soundfile.*pip install 'maskweave\[av\]'"):
        read_sound(written("wav") if soundfile else b"", "x")


@pytest.mark.parametrize("kind", SOUNDS)
def test_reading_the_beginning(kind: str) -> None:
    whole, part = read_sound(written(kind), "x")[0], read_sound(written(kind), "x", 0.25)[0]
    assert part.shape == (2000, 1) and np.abs(part - whole[:2000]).max() < 1e-3
    assert read_sound(written(kind), "x", 9.0)[0].shape == (8000, 1)
