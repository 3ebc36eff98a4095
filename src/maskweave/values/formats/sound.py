"""Sound files, with soundfile (extra `[av]`)."""

import io
import math
import struct

import numpy as np

from maskweave.errors import BadSample
from maskweave.values import files
from maskweave.values.formats import SOUNDS as SOUNDS
from maskweave.values.formats.base import check_array, faults, needs

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "MPEG")
"""Names of these formats in libsndfile."""
UNKNOWN = 0xFFFF_FFFF
"""Size in the header of a WAV that was written to a pipe."""


def read_sound(content: bytes, where: str, seconds: float = math.inf) -> tuple[np.ndarray, int]:
    """Returns the waveform, float32 (samples, channels) from -1 to 1, and its rate in samples per second.

    Args:
        seconds: read no more than this from the beginning.

    Raises:
        BadSample: the file is damaged, truncated or too large.
        MaskweaveError: soundfile is not installed.
    """
    with needs("soundfile", "av", where):
        import soundfile
    files.check_size(content, where)
    with faults("sound file", where), soundfile.SoundFile(io.BytesIO(content)) as sound:
        if sound.format not in FORMATS:
            raise BadSample(f"{where}: found a sound file of format {sound.format}; expected {', '.join(SOUNDS)}")
        rate = sound.samplerate
        expected = max(sound.frames, _wav_frames(content))
        expected = min(expected, math.ceil(seconds * rate)) if seconds < math.inf else expected
        check_array((min(sound.frames, expected), sound.channels), np.dtype("f4"), where)
        array = sound.read(expected, dtype="float32", always_2d=True)
    if len(array) < expected:
        raise BadSample(f"{where}: truncated: {len(array):,} of {expected:,} samples of sound; replace the file")
    if not len(array):
        raise BadSample(f"{where}: found no sound; expected at least one sample")
    return array, rate


def _wav_frames(content: bytes) -> int:
    """Returns how many samples the header of a WAV promises; 0 if it does not say. libsndfile silently reads less of a truncated file."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return 0
    at, block = 12, 0
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        if name == b"fmt " and at + 22 <= len(content):
            block = struct.unpack_from("<H", content, at + 20)[0]  # bytes of one sample of all channels
        if name == b"data":
            return size // block if block and size != UNKNOWN else 0
        at += 8 + size + size % 2
    return 0
