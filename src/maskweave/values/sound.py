"""A sound as a waveform and as a log-mel spectrogram, and what people may pass as one.

Shapes: M mel filters, T frames.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.errors import shown
from maskweave.files import write_aside
from maskweave.values.array import as_rate, has_rate
from maskweave.values.base import refuse
from maskweave.values.formats.base import needs
from maskweave.values.log_mel import LEVELS, LogMel
from maskweave.values.remarks import remark

MOST_CHANNELS = 8
LOUDEST = 2.0
"""Highest amplitude of waveforms of floats: compressed files go slightly above 1."""
RATES = (1_000, 768_000)
"""Lowest and highest rate of a waveform."""
SCALES = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}
"""Middle and largest number of waveforms of whole numbers."""


class Sound:
    """A mono sound. The waveform and the spectrogram are computed from each other when they are first asked for.

    Args:
        analysis: settings of the spectrogram, which include the rate.
        waveform: (samples,), float32, -1 to 1.
        log_mel: (M, T) in dB, float32, if there is no waveform.
    """

    def __init__(self, analysis: LogMel, waveform: np.ndarray | None = None, log_mel: np.ndarray | None = None):
        self.analysis = analysis
        self._waveform, self._log_mel = waveform, log_mel

    def __repr__(self) -> str:
        return f"Sound({self.seconds:.3g} s, {self.rate} samples per second)"

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.analysis.rate

    @property
    def is_recorded(self) -> bool:
        """Whether there is a waveform without making one from the spectrogram."""
        return self._waveform is not None

    @property
    def num_samples(self) -> int:
        if self._waveform is not None:
            return len(self._waveform)
        assert self._log_mel is not None
        return self._log_mel.shape[1] * self.analysis.hop

    @property
    def seconds(self) -> float:
        return self.num_samples / self.rate

    @property
    def waveform(self) -> np.ndarray:
        """(samples,), float32, -1 to 1. Made by the Griffin-Lim algorithm if only a spectrogram was predicted."""
        if self._waveform is None:
            assert self._log_mel is not None
            self._waveform = self.analysis.synthesize(self._log_mel)
        return self._waveform

    @property
    def log_mel(self) -> np.ndarray:
        """(M, T) in dB, float32."""
        if self._log_mel is None:
            assert self._waveform is not None
            self._log_mel = self.analysis.analyze(self._waveform)
        return self._log_mel

    def cut(self, frames: int) -> "Sound":
        """Returns the sound up to a number of frames."""
        waveform = None if self._waveform is None else self._waveform[: frames * self.analysis.hop]
        return Sound(self.analysis, waveform, None if waveform is not None else self.log_mel[:, :frames])

    def to_wav(self) -> bytes:
        """Returns the bytes of a WAV file: of 16 bits if these hold the waveform exactly, otherwise of 32-bit floats."""
        return wav_bytes(self.waveform, self.rate)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a WAV file and returns its path."""
        with write_aside(Path(path)) as aside:
            aside.write_bytes(self.to_wav())
        return Path(path)


def wav_bytes(waveform: np.ndarray, rate: int, rounded: bool = False) -> bytes:
    """Returns a mono waveform, float32 (samples,), as the bytes of a WAV file.

    Args:
        rounded: round to 16 bits; otherwise this is done only if it changes nothing.
    """
    levels = np.clip(np.rint(waveform * LEVELS), -LEVELS, LEVELS - 1)
    exact = rounded or np.array_equal(levels / LEVELS, waveform)
    data = levels.astype("<i2").tobytes() if exact else waveform.astype("<f4").tobytes()
    tag, width = (1, 2) if exact else (3, 4)  # whole numbers or floats, and their bytes
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, rate, rate * width, width, 8 * width)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(layout) + 8 + len(data), b"WAVE") + layout + struct.pack(
        "<4sI", b"data", len(data)
    ) + data  # fmt: skip


def as_waveform(value: Any, rate: int, where: str) -> np.ndarray:
    """Converts what may be passed as a sound to a mono waveform (samples,), float32, at a rate.

    Args:
        value: a waveform at this rate, (samples,), (samples, channels) or (channels, samples), of floats from -1 to 1 or of whole numbers of 8
            (unsigned), 16 or 32 bits; a pair of a waveform and its rate; or a mapping with `array` and `sampling_rate`, as the library
            `datasets` gives. A `Sound` of another rate is resampled.

    Raises:
        BadSample: anything else, an amplitude far above 1, NaN, or no samples.
        MaskweaveError: it must be resampled, and soxr is not installed.
    """
    given: Any = rate
    if isinstance(value, Sound):
        value, given = value.waveform, value.rate
    elif isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys():
        value, given = value["array"], value["sampling_rate"]
    elif has_rate(value):
        value, given = value
    number = as_rate(given)
    if not RATES[0] <= number <= RATES[1] or number != int(number):
        raise refuse(where, f"a sound of rate {shown(given)}", f"{RATES[0]} to {RATES[1]} samples per second")
    return resampled(_mono(_checked(value, where), where), int(number), rate, where)


def _checked(value: Any, where: str) -> np.ndarray:
    """Returns a waveform as float32, (samples,) or (samples, channels)."""
    wanted = "a waveform (samples,) of floats from -1 to 1, or of int16; or a pair of a waveform and its rate"
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:  # rows of different lengths
        raise refuse(where, shown(value), wanted) from error
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not array.size:
        raise refuse(where, shown(value), wanted)
    if array.ndim == 2 and min(array.shape) > MOST_CHANNELS:
        advice = "if it is a spectrogram, make the entry a map"
        raise refuse(where, f"shape {array.shape}", f"a waveform of at most {MOST_CHANNELS} channels", advice)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    if array.dtype.kind in "iu":
        if str(array.dtype) not in SCALES:
            advice = "divide it by its largest possible number, such as 32768"
            raise refuse(where, f"a waveform of {array.dtype}", "floats, or uint8, int16 or int32", advice)
        middle, largest = SCALES[str(array.dtype)]
        return ((array.astype(np.float64) - middle) / (largest or middle)).astype(np.float32)
    array = array.astype(np.float32)
    peak = np.abs(array).max()
    if not peak <= LOUDEST:  # also NaN
        advice = "divide it by its largest possible number, such as 32768" if np.isfinite(peak) else "replace it"
        raise refuse(where, f"a waveform with an amplitude of {peak:g}", "floats from -1 to 1", advice)
    return array


def _mono(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim == 1:
        return array
    if array.shape[1] > 1:
        remark("sounds of several channels, mixed to one")
    return array.mean(axis=1, dtype=np.float32)


def resampled(waveform: np.ndarray, given: int, rate: int, where: str) -> np.ndarray:
    """Returns a waveform at another rate, band-limited, of the same duration."""
    if given == rate:
        return waveform
    with needs("soxr", "av", where):
        import soxr
    remark(f"sounds of rate {given}, resampled to {rate}")
    out = np.asarray(soxr.resample(waveform, given, rate, quality="HQ"), np.float32)
    wanted = max(1, round(len(waveform) * rate / given))
    return np.pad(out, (0, max(0, wanted - len(out))))[:wanted]
