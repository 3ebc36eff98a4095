"""Sounds: waveforms outside, log-mel spectrograms for the tokenizer.

Shapes: B batch, M mel filters, T frames of the entry, t frames of a sound.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.values import files, formats
from maskweave.values.array import NUMBERS, affine, check_range, of_tensor
from maskweave.values.base import Loss, Size, TextLabels, ValueType, refuse
from maskweave.values.formats import SOUNDS
from maskweave.values.formats.base import Selection
from maskweave.values.lengths import likely_lengths, mostly_known_length
from maskweave.values.log_mel import LogMel
from maskweave.values.losses import smooth_l1
from maskweave.values.metrics import Metric, absolute_errors, mean, mean_value, median, root_mean, squared_errors
from maskweave.values.playable import Playable
from maskweave.values.remarks import remark
from maskweave.values.sound import RATES, Sound, as_waveform, wav_bytes
from maskweave.values.variation import Variation

MAX_MELS = 512
MAX_WINDOW = 2**16
MORE = 0.1
"""Seconds that are read beyond the longest duration, to know which files are longer."""
SILENT = 0.05
"""Points up to this share of the range above its lowest level are silence at the end of a fine-tuned model's sounds."""
MOST_TURNS = 4.0
"""Hops per window must be at least this, or phases cannot be recovered."""


@dataclass(frozen=True)
class Audio(ValueType):
    """Mono sounds, of any length up to `max_seconds`. Outside they are waveforms; the tokenizer sees a log-mel spectrogram of `mels` rows and one column
    for each `hop` samples, which is what `grid` divides. What is past the end of a shorter sound is unknown."""

    type: ClassVar[str] = "audio"
    python: ClassVar[str] = (
        "a `Sound`: `waveform` is float32 (samples,), -1 to 1; `rate`; `seconds`; `log_mel` is float32 (mels, frames) in dB. Also accepted: a "
        "waveform of floats or int16 at the entry's rate, `(waveform, rate)`, and `{array, sampling_rate}`"
    )
    kinds: ClassVar[tuple[str, ...]] = ("grid", "patches")
    losses: ClassVar[Mapping[str, Loss]] = {name: NUMBERS[name] for name in ("smooth_l1", "mse")}
    head = "points"
    default_metrics = ("mae", "convergence")
    mergeable = True
    report_facts = ()

    rate: int = 16000
    """Samples per second. Sounds of other rates are resampled, so that they keep their pitch and duration (needs soxr)."""
    max_seconds: float = 0.0
    """Longest duration; there are max_seconds · rate / hop columns, rounded up."""
    mels: int = 64
    """Mel filters: rows of the spectrogram."""
    hop: int = 256
    """Samples between the columns of the spectrogram, at most a quarter of the window."""
    window: int = 1024
    """Samples under each column's Hann window; about 0.064 s is usual."""
    range: tuple[float, float] = (-80.0, 0.0)
    """Lowest and highest level in dB, where 0 is a sine wave of amplitude 1; quieter and louder points are clipped, and the lowest is silence."""
    fit: Literal["crop", "refuse"] = "crop"
    """What happens to sounds longer than `max_seconds`: the end is cut off, or they are refused."""
    missing: Literal["predicted", "nan"] = "predicted"
    """`predicted`: the model learns where sounds end, and generated ones end there; the vocabulary then has one more code. `nan`: it does not, and
    generated sounds last `max_seconds`."""

    # The entry

    @property
    def analysis(self) -> LogMel:
        """Settings of the spectrogram."""
        return LogMel(self.rate, self.mels, self.hop, self.window, *map(float, self.range))

    @property
    def size(self) -> tuple[int, ...]:
        return self.mels, math.ceil(round(self.max_seconds * self.rate / self.hop, 6))

    @property
    def has_unknown(self) -> bool:
        return True

    @property
    def predicts_unknown(self) -> bool:
        return self.missing == "predicted"

    @property
    def unit(self) -> str:
        return "dB"

    @property
    def follows_view(self) -> bool:
        return False

    def check_settings(self, kind: str) -> None:
        if not RATES[0] <= self.rate <= RATES[1]:
            raise MaskweaveError(
                f"value.rate must be {RATES[0]:,} to {RATES[1]:,} samples per second, found {self.rate}"
            )
        if not 1 <= self.mels <= MAX_MELS:
            raise MaskweaveError(f"value.mels must be 1 to {MAX_MELS}, found {self.mels}")
        if not MOST_TURNS <= self.window <= MAX_WINDOW or not 1 <= self.hop <= self.window / MOST_TURNS:
            raise MaskweaveError(
                f"value.hop must be 1 to a quarter of value.window, which is at most {MAX_WINDOW:,}, found hop {self.hop} and window {self.window}"
            )
        check_range(*self.range, "value.range")
        if not 0 < self.max_seconds < math.inf or math.prod(self.size) > files.MAX_PIXELS:
            raise MaskweaveError(
                f"value.max_seconds must be above 0, with at most {files.MAX_PIXELS:,} points of the spectrogram, found {self.max_seconds}"
            )
        if empty := self.analysis.empty_filters:
            raise MaskweaveError(
                f"value.mels: {self.mels} filters are too many for value.window {self.window}: {empty} of them contain no frequency; lower mels or raise window"
            )

    def describe(self) -> str:
        return f"audio of {self.max_seconds:g} s at {self.rate:,} Hz, spectrogram {self.size[0]}×{self.size[1]}"

    def describe_range(self) -> str:
        return f"{self.range[0]:g} to {self.range[1]:g}"

    # Values and files

    def check(self, value: Any, where: str) -> Sound:
        if isinstance(value, Sound) and value.analysis == self.analysis:
            return value
        return Sound(self.analysis, as_waveform(value, self.rate, where))

    def from_python(self, value: Any, where: str) -> Any:
        return of_tensor(value, where)

    @property
    def endings(self) -> tuple[str, ...]:
        return (*SOUNDS, "npy")

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """Returns what `check` takes; arrays in `.npy` have the entry's rate."""
        if ending in SOUNDS:
            from maskweave.values.formats.sound import read_sound

            longest = self.size[1] * self.hop / self.rate
            return read_sound(content, where, longest + MORE)
        return formats.read(content, ending, where, Selection(axes=1)).array

    def write(self, value: Sound) -> tuple[bytes, str]:
        return value.to_wav(), "wav"

    def fit_sizes(self, value: Sound, where: str) -> Sound:
        most = self.size[1]
        if value.num_samples <= most * self.hop:
            return value
        if self.fit == "refuse":
            raise refuse(
                where,
                f"a sound of {value.seconds:.4g} s",
                f"at most {self.max_seconds:g} s",
                "raise value.max_seconds, or set value.fit: crop",
            )
        remark(f"sounds longer than {self.max_seconds:g} s, cut at their end")
        return value.cut(most)

    varied_by: ClassVar[tuple[str, ...]] = ("shift", "noise")

    def vary(self, value: Any, variation: Variation) -> Any:
        """Shifts the start, with silence before it or without its beginning; noise is added to the levels. Spectrograms stay spectrograms."""
        frames = round(variation.shift * self.size[1])
        if not frames and not variation.noise:
            return value
        if isinstance(value, Sound) and value.is_recorded:
            waveform = value.waveform
            if frames > 0:
                waveform = np.concatenate([np.zeros(frames * self.hop, np.float32), waveform])
            elif frames < 0:
                waveform = waveform[min(-frames * self.hop, max(len(waveform) - self.hop, 0)) :]
            sound = Sound(self.analysis, waveform[: self.size[1] * self.hop]) if frames else value
            if not variation.noise:
                return sound
            return Sound(self.analysis, log_mel=self._noisy(sound.log_mel, variation))
        levels = value.log_mel if isinstance(value, Sound) else value[:, ~np.isnan(value).all(axis=0)]
        if frames < 0:
            levels = levels[:, min(-frames, levels.shape[1] - 1) :]
        silence = np.full((len(levels), max(frames, 0)), self.range[0], np.float32)
        levels = self._noisy(np.concatenate([silence, levels], axis=1)[:, : self.size[1]], variation)
        return Sound(self.analysis, log_mel=levels) if isinstance(value, Sound) else self.padded(levels)

    def _noisy(self, levels: np.ndarray, variation: Variation) -> np.ndarray:
        if variation.noise:
            levels = levels + variation.gaussian(levels.shape) / self.factor_shift[0]
        return np.clip(levels, *self.range).astype(np.float32)

    # Networks

    def known(self, value: Any) -> np.ndarray:
        return ~np.isnan(self.padded(value))

    def padded(self, value: Any) -> np.ndarray:
        """Returns a sound's log-mel spectrogram, or a spectrogram (M, t), as (M, T), NaN past its end."""
        log_mel = value.log_mel if isinstance(value, Sound) else np.asarray(value)
        missing = self.size[1] - log_mel.shape[1]
        return np.pad(log_mel, ((0, 0), (0, missing)), constant_values=np.nan) if missing > 0 else log_mel

    def check_item(self, value: Any, where: str) -> np.ndarray:
        """Returns the spectrogram (M, T) of a sound, NaN past its end."""
        if isinstance(value, np.ndarray) and value.shape == self.size:  # checked before
            return value
        sound = self.check(self.from_python(value, where), where)
        if sound.num_samples > self.size[1] * self.hop:
            raise refuse(
                where,
                f"a sound of {sound.seconds:.4g} s",
                f"at most {self.max_seconds:g} s",
                "cut it, or raise value.max_seconds",
            )
        return self.padded(sound)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        if not len(values):
            return torch.zeros(0, 1, *self.size)
        return torch.from_numpy(affine(np.stack([self.padded(value) for value in values]), *self.factor_shift))[:, None]

    def from_network(self, output: Tensor) -> np.ndarray:
        """Returns sounds, an object array (B,)."""
        batch = output.detach().float()[:, 0].cpu().numpy()
        sounds = np.empty(len(batch), object)
        for i, item in enumerate(batch):
            sounds[i] = self.from_log_mel((item - self.factor_shift[1]) / self.factor_shift[0])
        return sounds

    def from_log_mel(self, log_mel: np.ndarray) -> Sound:
        """Returns the sound of a spectrogram (M, t): it ends with the last frame that is mostly known; unknown points before are silent."""
        log_mel = log_mel[:, : mostly_known_length((~np.isnan(log_mel)).mean(axis=0))]
        return Sound(
            self.analysis, log_mel=np.clip(np.nan_to_num(log_mel, nan=self.range[0]), *self.range).astype(np.float32)
        )

    def with_unknown(self, values: np.ndarray, logits: Tensor) -> np.ndarray:
        """Returns sounds up to their most likely end."""
        ends = likely_lengths(logits.mean(dim=(1, 2)).cpu().numpy(), least=1)
        sounds = np.empty(len(values), object)
        for i, (sound, end) in enumerate(zip(values, ends, strict=True)):
            sounds[i] = sound.cut(int(end))
        return sounds

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Unknown points become 0, the middle of the range."""
        return np.nan_to_num(affine(rows, *self.factor_shift), copy=False)

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.range
        return np.asarray([2 / (high - low)], np.float32), np.asarray([-(high + low) / (high - low)], np.float32)

    # Fine-tuning

    def task_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a spectrogram that is silent past the end of the sound."""
        return smooth_l1(output, target.masked_fill(target.isnan(), -1.0)), {}

    def answers(self, output: Tensor) -> list[Sound]:
        """Returns sounds up to the silence at their end."""
        least = self.range[0] + SILENT * (self.range[1] - self.range[0])
        sounds = []
        for sound in self.from_network(output):
            heard = np.flatnonzero(sound.log_mel.max(axis=0) > least)
            sounds.append(sound.cut(int(heard[-1]) + 1 if len(heard) else 1))
        return sounds

    # Scores and ensembles

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`, `rmse`: over the points of the log-mel spectrogram, in dB. `convergence`: the spectral convergence, the root of the squared errors
        of mel magnitudes over the squared magnitudes (https://arxiv.org/abs/1808.06719, section 3.1). `seconds`: mean absolute error of the duration.
        A prediction that ends too early is silent there."""

        def over(statistics: Callable[[Any, Any], np.ndarray], form: Callable[[Any], np.ndarray]) -> Any:
            return lambda prediction, truth: statistics(form(prediction), form(truth))

        def levels(value: Any) -> np.ndarray:
            return self.padded(value) if isinstance(value, Sound) else np.asarray(value)

        def magnitudes(value: Any) -> np.ndarray:
            return 10 ** (levels(value) / 20)

        def duration(value: Any) -> np.ndarray:
            return np.asarray(value.seconds if isinstance(value, Sound) else value)

        def l1(prediction: Any, truth: Any) -> np.ndarray:
            return absolute_errors(np.nan_to_num(prediction, nan=self.range[0]), truth)

        def l2(prediction: Any, truth: Any) -> np.ndarray:
            return squared_errors(np.nan_to_num(prediction, nan=self.range[0]), truth)

        def relative(prediction: Any, truth: Any) -> np.ndarray:
            known = np.isfinite(truth)
            return np.array([squared_errors(np.nan_to_num(prediction), truth)[0], np.square(truth[known]).sum()])

        return {
            "mae": Metric("MAE", "lower", over(l1, levels), mean, lambda values: median([levels(v) for v in values])),
            "rmse": Metric(
                "RMSE", "lower", over(l2, levels), root_mean, lambda values: mean_value([levels(v) for v in values])
            ),
            "convergence": Metric(
                "convergence",
                "lower",
                over(relative, magnitudes),
                root_mean,
                lambda values: 20 * np.log10(np.maximum(mean_value([magnitudes(v) for v in values]), 1e-12)),
            ),
            "seconds": Metric(
                "seconds",
                "lower",
                over(absolute_errors, duration),
                mean,
                lambda values: median([duration(v) for v in values]),
            ),
        }

    def merge(self, values: Sequence[Sound], overlap: float) -> Sound:
        """Averages the levels, up to the median duration."""
        most = max(value.log_mel.shape[1] for value in values)
        quiet = [
            np.pad(v.log_mel, ((0, 0), (0, most - v.log_mel.shape[1])), constant_values=self.range[0]) for v in values
        ]
        frames = round(float(np.median([value.log_mel.shape[1] for value in values])))
        levels = np.asarray(np.mean(np.stack(quiet)[:, :, :frames], axis=0), np.float32)
        return Sound(self.analysis, log_mel=levels)

    # Figures

    def natural_size(self) -> Size:
        return 160, 240

    @property
    def wide(self) -> bool:
        return True

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing_sound import spectrogram

        return spectrogram(self.padded(value), self.analysis, size, span or self.range)

    def playable(self, value: Sound) -> Playable:
        return Playable("audio/wav", wav_bytes(value.waveform, value.rate, rounded=True))

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import color_bar

        return color_bar(*(span or self.range), self.unit, min(width, 220))
