"""Log-mel spectrograms of waveforms, and waveforms from them.

A spectrogram has a row for each mel filter and a column for each `hop` samples; column t is centered at sample t · hop. Each point is the power
under a triangular filter in decibels, 10 log10(power), where a sine wave of amplitude 1 at the filter's center has 0 dB. Filters are evenly spaced
in mel, 2595 log10(1 + f / 700) for f in Hz (The HTK Book, https://htk.eng.cam.ac.uk, section 5.6), from 0 Hz to half the rate, each as high as 1.

The way back estimates the power of each frequency by multiplicative updates (Lee and Seung, "Algorithms for non-negative matrix factorization",
2000, with fixed filters), and the phases by the fast Griffin-Lim algorithm (Perraudin, Balazs and Søndergaard, 2013, doi 10.1109/WASPAA.2013.6701851).

Dimension letters: M mel filters, F frequencies, T frames.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

POWER_STEPS = 40
PHASE_STEPS = 48
MOMENTUM = 0.99
LEVELS = 2**15
"""Levels of 16-bit sound on each side of 0."""


@dataclass(frozen=True)
class LogMel:
    """Settings of log-mel spectrograms."""

    rate: int
    """Samples per second."""
    mels: int
    """Number of mel filters."""
    hop: int
    """Samples between frames."""
    window: int
    """Samples of each frame, under a Hann window."""
    low: float
    high: float
    """Lowest and highest level in dB; quieter and louder points are clipped."""

    @property
    def empty_filters(self) -> int:
        """Number of filters without any frequency: too many filters for the window."""
        return int((filters(self.rate, self.mels, self.window).sum(dim=1) == 0).sum())

    def frames(self, samples: int) -> int:
        """Frames of a waveform."""
        return -(-samples // self.hop)

    def analyze(self, waveform: np.ndarray) -> np.ndarray:
        """Returns the log-mel spectrogram (M, T) in dB, float32, of a waveform (samples,), -1 to 1."""
        spectrum_FT = self._spectrum(torch.from_numpy(np.array(waveform, np.float32)))
        power_MT = filters(self.rate, self.mels, self.window) @ spectrum_FT.abs().square()
        return power_MT.clamp_min(10 ** (self.low / 10)).log10().mul(10).clamp(self.low, self.high).numpy()

    def synthesize(self, log_mel_MT: np.ndarray, seed: int = 0) -> np.ndarray:
        """Returns a waveform (T · hop,), float32, rounded to 16 bits, whose log-mel spectrogram is close to the given one.

        Args:
            seed: seed of the initial phases.
        """
        target_MT = torch.from_numpy(np.clip(log_mel_MT, self.low, self.high).astype(np.float32))
        floor = 10 ** (self.low / 10)
        power_MT = (10 ** (target_MT / 10) - floor).clamp_min(0)  # the lowest level is silence
        magnitude_FT = self._frequencies(power_MT).sqrt()
        generator = torch.Generator().manual_seed(seed)
        phases = torch.rand(magnitude_FT.shape, generator=generator) * (2 * torch.pi)
        estimate_FT = torch.polar(magnitude_FT, phases)
        samples = target_MT.shape[1] * self.hop
        before_FT = torch.zeros_like(estimate_FT)
        for _ in range(PHASE_STEPS):
            consistent_FT = self._spectrum(self._waveform(estimate_FT, samples))
            moved_FT = consistent_FT + MOMENTUM * (consistent_FT - before_FT)
            before_FT = consistent_FT
            estimate_FT = magnitude_FT * moved_FT / moved_FT.abs().clamp_min(1e-12)
        waveform = self._waveform(estimate_FT, samples).numpy()
        return (np.clip(np.rint(waveform * LEVELS), -LEVELS, LEVELS - 1) / LEVELS).astype(np.float32)

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """Complex spectrum (F, T), scaled so that a sine wave of amplitude A has the magnitude A at its frequency."""
        window = torch.hann_window(self.window)
        spectrum = torch.stft(
            waveform, self.window, self.hop, window=window, center=True, pad_mode="constant", return_complex=True
        )
        return spectrum[:, : self.frames(len(waveform))] * (2 / window.sum())

    def _waveform(self, spectrum_FT: Tensor, samples: int) -> Tensor:
        window = torch.hann_window(self.window)
        scaled = spectrum_FT * (window.sum() / 2)
        return torch.istft(scaled, self.window, self.hop, window=window, center=True, length=samples)

    def _frequencies(self, power_MT: Tensor) -> Tensor:
        """Powers (F, T), at least 0, whose sums under the filters are close to the given ones."""
        filters_MF = filters(self.rate, self.mels, self.window)
        wanted_FT = filters_MF.T @ power_MT
        found_FT = wanted_FT.clone()
        for _ in range(POWER_STEPS):
            found_FT *= wanted_FT / (filters_MF.T @ (filters_MF @ found_FT)).clamp_min(1e-20)
        return found_FT


def mel(hertz: np.ndarray) -> np.ndarray:
    """Frequencies in mel."""
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


def hertz(mels: np.ndarray) -> np.ndarray:
    """Frequencies in Hz."""
    return 700 * (10 ** (np.asarray(mels, np.float64) / 2595) - 1)


@functools.lru_cache(maxsize=16)
def filters(rate: int, mels: int, window: int) -> Tensor:
    """Weights (M, F) of each frequency in each mel filter, float32, 0 to 1."""
    corners = hertz(np.linspace(0, mel(np.array(rate / 2)), mels + 2))
    f = np.linspace(0, rate / 2, window // 2 + 1)
    low, center, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (f - low) / (center - low), (high - f) / (high - center)
    return torch.from_numpy(np.maximum(0, np.minimum(rising, falling)).astype(np.float32))
