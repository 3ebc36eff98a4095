"""Videos: color frames at a fixed rate, of any length up to the entry's.

Shapes: B batch, T frames of the entry, t frames of a video, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values import files, formats
from maskweave.values.array import as_numbers, as_rate, has_rate
from maskweave.values.base import Size, TextLabels, refuse
from maskweave.values.fitting import Fit
from maskweave.values.geometry import Geometry, nearest
from maskweave.values.image import Image
from maskweave.values.lengths import likely_lengths, mostly_known_length
from maskweave.values.metrics import Metric, absolute_errors, mean, median, psnr, squared_errors
from maskweave.values.playable import Playable
from maskweave.values.remarks import listening, remark
from maskweave.values.unknown import known_points
from maskweave.values.variation import Variation, shifted

SAME_RATE = 0.001
"""Rates that differ by at most this share are taken as equal."""
RATES = (0.001, 1000.0)
REDUCED = 2
"""Frames of files are reduced while they are read, to at least this many times the entry's size."""
STRIP = 4
"""Frames of a figure."""
SHOWN = 128
"""Short side of a playing video in points, at least."""


@dataclass(frozen=True)
class Video(Image):
    """Videos of 8 bits per channel at `fps` frames per second, of any length up to that of `size`. What is past the end of a shorter video is
    unknown. All frames are cropped, flipped and resized like the pictures of its view."""

    type: ClassVar[str] = "video"
    python: ClassVar[str] = (
        "uint8 (frames, height, width, channels), at `fps` frames per second. Also accepted: `(frames, fps)`, and a list of PIL images"
    )
    default_metrics = ("psnr",)
    is_photograph = False
    report_facts = ()

    channels: int = 3
    """1 (gray) or 3 (red, green, blue)."""
    fps: float = 8.0
    """Frames per second. Videos of other rates are resampled in time, by the nearest frame, so that they keep their speed."""
    missing: Literal["predicted", "nan"] = "predicted"
    """`predicted`: the model learns where videos end, and generated ones end there; the vocabulary then has one more code. `nan`: it does not, and
    generated videos have as many frames as `size`."""

    # The entry

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        if len(self.size) != 3:
            raise MaskweaveError(f"value.size of a video must be [frames, height, width], found {list(self.size)}")
        if self.valid:
            raise MaskweaveError("value.valid is for pictures; remove it")
        if self.channels == 4:
            raise MaskweaveError("values of type 'video' have 1 or 3 channels, found value.channels 4")
        if not RATES[0] <= self.fps <= RATES[1]:
            raise MaskweaveError(f"value.fps must be {RATES[0]:g} to {RATES[1]:g} frames per second, found {self.fps}")
        if self.ways[0] == "pad":
            raise MaskweaveError(
                "value.fit: shorter videos are unknown past their end anyway; for time use crop, resize or refuse"
            )

    @property
    def row_dtype(self) -> Any:
        return np.dtype(np.float16)  # holds 0 to 255 exactly, and NaN

    @property
    def has_unknown(self) -> bool:
        return True

    @property
    def predicts_unknown(self) -> bool:
        return self.missing == "predicted"

    @property
    def ways(self) -> tuple[Fit, ...]:
        ways = self.fit or (self.default_fit,)
        return ("crop", *ways * 2) if ways in (("resize",), ("pad",)) else ways

    def describe(self) -> str:
        return f"{super().describe()} at {self.fps:g} frames per second"

    # Values and files

    def from_python(self, value: Any, where: str) -> Any:
        if isinstance(value, (list, tuple)) and len(value) and all(hasattr(item, "convert") for item in value):
            value = [files.picture_array(item, self.channels, self.background, where) for item in value]
        if has_rate(value):
            return super().from_python(value[0], where), value[1]
        return super().from_python(value, where)

    def check(self, value: Any, where: str) -> np.ndarray:
        rate = self.fps
        if has_rate(value):
            value, rate = value
        number = as_rate(rate)
        if not RATES[0] <= number <= RATES[1]:
            raise refuse(where, f"a video of {shown(rate)} frames per second", f"{RATES[0]:g} to {RATES[1]:g}")
        value = as_numbers(value, where)
        if np.ndim(value) == 3 and np.shape(value)[-1] in (3, 4):
            raise refuse(where, f"shape {np.shape(value)}, one color picture", "(frames, height, width, channels)")
        return self.at_rate(super().check(value, where), number)

    def at_rate(self, frames: np.ndarray, rate: float) -> np.ndarray:
        """Returns a video at the entry's rate, of the same duration up to a frame."""
        if abs(rate / self.fps - 1) <= SAME_RATE:
            return frames
        remark(f"videos of {rate:.4g} frames per second, resampled to {self.fps:g}")
        count = max(1, round(len(frames) * self.fps / rate))
        return frames[nearest(0.0, count * rate / self.fps, count, len(frames))]

    @property
    def endings(self) -> tuple[str, ...]:
        return (
            "npy",
            *formats.VIDEOS,
            *(ending for ending in super().endings if ending not in ("npy", *formats.VIDEOS)),
        )

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        """Returns what `check` takes; arrays and folders of frames have the entry's rate."""
        from maskweave.values.formats.video import probe_video, read_video

        if ending not in formats.VIDEOS or ending == formats.FRAMES:
            array = self.stored(content, ending, where).array
            return array if ending != formats.FRAMES else self.in_channels(array)
        given = probe_video(content, where)[1]
        if not given:
            remark(f"videos without a rate, taken as {self.fps:g} frames per second")
        elif abs(given / self.fps - 1) > SAME_RATE:
            remark(f"videos of {given:.4g} frames per second, resampled to {self.fps:g}")
        shortens = len(self.ways) == 3 and self.ways[0] == "resize"
        least = (REDUCED * self.size[1], REDUCED * self.size[2]) if len(self.fit) < 3 else None
        frames, _ = read_video(content, where, self.fps, 0 if shortens else self.size[0] + 1, least)
        return self.in_channels(frames)

    def in_channels(self, frames: np.ndarray) -> np.ndarray:
        """Returns color frames in the entry's channels; gray by the weights of ITU-R 601-2, as Pillow's."""
        if self.channels == 3:
            return frames
        return np.rint(frames @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]

    def write(self, value: np.ndarray) -> tuple[bytes, str]:
        return files.write_npy(value), "npy"

    def result_files(self, value: Any, where: str) -> tuple[dict[str, bytes], list[str]]:
        from maskweave.values.formats.video import write_gif, write_mp4

        frames = self.in_color(self.check(value, where))
        found, problems = {"gif": write_gif(frames, self.fps)}, []
        try:
            found = {"mp4": write_mp4(frames, self.fps, where), **found}
        except MaskweaveError as error:
            problems.append(f"no mp4 was written: {error}")
        return found, problems

    def in_color(self, frames: np.ndarray) -> np.ndarray:
        return frames if self.channels == 3 else np.repeat(frames.reshape(*frames.shape[:3], 1), 3, axis=3)

    # Sizes

    def fit_sizes(self, value: np.ndarray, where: str) -> np.ndarray:
        most, found = self.size[0], len(value)
        in_time = self.ways[0] if len(self.ways) == 3 else "refuse" if self.ways == ("refuse",) else "crop"
        if found > most and in_time == "crop":
            remark(f"videos longer than {most} frames, cut at their end")
            value = value[:most]
        elif found != most and in_time == "resize":
            remark(f"videos of another length than {most} frames, stretched or shortened")
            value = value[nearest(0.0, found, most, found)]
        elif found > most:
            advice = "raise the first number of value.size, or set value.fit: crop"
            raise refuse(
                where, f"a video of {found} frames", f"at most {most} at {self.fps:g} frames per second", advice
            )
        plane = replace(self.plane, fit=self.fit[1:] if len(self.fit) == 3 else self.fit)
        first = plane.fit_sizes(value[0], where)
        with listening(lambda text: None):  # one remark for all frames
            return np.stack([first, *(plane.fit_sizes(frame, where) for frame in value[1:])])

    varied_by: ClassVar[tuple[str, ...]] = ("shift", "color", "noise")

    def vary(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        """A shift repeats the first or the last frame: what is before the start cannot be unknown."""
        if value.dtype != np.uint8:  # padded to the entry's length
            frames = np.flatnonzero(~np.isnan(value).any(axis=(1, 2, 3)))
            if not len(frames):
                return value
            some = np.rint(value[: frames[-1] + 1]).clip(0, 255).astype(np.uint8)
            return self.padded(self.vary(some, variation))
        points = round(variation.shift * self.size[0])
        value = shifted(value, points, 0, None) if points else value
        return super().vary(value, replace(variation, shift=0.0))

    @property
    def plane(self) -> Image:
        """The entry of one frame."""
        return Image(self.size[1:], self.channels, self.mean, self.std, self.background)

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        plane = replace(self.plane, fit=("resize",))
        return np.stack([plane.resize(frame, Geometry()) for frame in value])

    def resize_depth(self, value: np.ndarray) -> np.ndarray:
        return value

    # Networks

    def padded(self, value: np.ndarray) -> np.ndarray:
        """Returns a video (t, H, W, C) as float16 (T, H, W, C), NaN past its end."""
        missing = self.size[0] - len(value)
        value = value.reshape(*value.shape[:3], self.channels).astype(np.float16)
        return np.pad(value, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=np.nan) if missing > 0 else value

    def known(self, value: Any) -> np.ndarray:
        return known_points(self.padded(value))

    def check_item(self, value: Any, where: str) -> np.ndarray:
        """Returns a video as float16 (T, H, W, C), NaN past its end."""
        if isinstance(value, np.ndarray) and value.dtype == np.float16:  # checked before
            return value
        video = self.check(self.from_python(value, where), where)
        if video.shape[1:3] != tuple(self.size[1:]) or len(video) > self.size[0]:
            raise refuse(
                where,
                f"shape {video.shape}",
                f"the entry's size {tuple(self.size)}, or fewer frames",
                "resize it, or correct the entry",
            )
        return self.padded(video)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return super().to_network([self.padded(value) for value in values])

    def from_network(self, output: Tensor) -> np.ndarray:
        """Returns videos, an object array (B,) of uint8 (t, H, W, C)."""
        batch = output.detach().float().movedim(1, -1).cpu().numpy()
        videos = np.empty(len(batch), object)
        for i, item in enumerate(batch):
            end = mostly_known_length((~np.isnan(item)).mean(axis=(1, 2, 3)))
            videos[i] = self.unscale(np.nan_to_num(item[:end], nan=-1.0))
        return videos

    def with_unknown(self, values: np.ndarray, logits: Tensor) -> np.ndarray:
        """Returns videos up to their most likely end."""
        ends = likely_lengths(logits.mean(dim=(1, 3, 4)).cpu().numpy(), least=1)
        videos = np.empty(len(values), object)
        for i, (video, end) in enumerate(zip(values, ends, strict=True)):
            videos[i] = video[:end]
        return videos

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Unknown points become 0."""
        return np.nan_to_num(super().normalize_rows(rows), copy=False)

    # Scores and ensembles

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`psnr`: from the mean squared error over the frames of the truth, in dB; where a prediction ends too early, it is black. `seconds`: mean
        absolute error of the duration."""

        def errors(prediction: Any, truth: Any) -> np.ndarray:
            return squared_errors(levels(prediction), levels(truth))

        def levels(value: Any) -> np.ndarray:
            return (self.padded(value) if value.dtype == np.uint8 else value).astype(np.float32)

        def seconds(value: Any) -> np.ndarray:
            return np.asarray(len(value) / self.fps if np.ndim(value) else value)

        def durations(prediction: Any, truth: Any) -> np.ndarray:
            return absolute_errors(seconds(prediction), seconds(truth))

        return {
            "psnr": Metric("PSNR", "higher", errors, psnr, lambda values: mean_video(map(levels, values))),
            "seconds": Metric("seconds", "lower", durations, mean, lambda values: median([seconds(v) for v in values])),
        }

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        """Averages the frames, up to the median length."""
        frames = round(float(np.median([len(value) for value in values])))
        merged = mean_video(self.padded(value) for value in values)[:frames]
        return np.rint(merged).astype(np.uint8)

    # Figures

    @property
    def shown_frames(self) -> np.ndarray:
        """Indices of the frames in a figure."""
        count = min(STRIP, self.size[0])
        return np.linspace(0, self.size[0] - 1, count).round().astype(int)

    @property
    def aspect(self) -> float:
        return min(4.0, max(0.5, len(self.shown_frames) * self.size[2] / self.size[1]))

    def natural_size(self) -> Size:
        return self.size[1], len(self.shown_frames) * self.size[2]

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """A strip of frames from the first to the entry's last; those past the end are hatched."""
        from maskweave.values.drawing import centered, hatched

        array = self.drawable(value)
        array = array.reshape(*array.shape[:3], -1)
        blank = np.zeros((*array.shape[1:3], 3), np.uint8)
        strip = [self.in_color(array[[i]])[0] if i < len(array) else blank for i in self.shown_frames]
        known = [np.full(blank.shape[:2], i < len(array)) for i in self.shown_frames]
        picture = hatched(np.concatenate(strip, axis=1), np.concatenate(known, axis=1))
        return centered(picture, size, smooth=True)[0]

    def playable(self, value: Any) -> Playable:
        from maskweave.values.formats.video import write_gif

        frames = self.in_color(self.drawable(value))
        return Playable("image/gif", write_gif(frames, self.fps, max(1, round(SHOWN / min(self.size[1:])))))


def mean_video(videos: Any) -> np.ndarray:
    """Mean of the known points of videos (T, H, W, C), float32; 0 where none is known."""
    total: Any = 0
    count: Any = 0
    for video in videos:
        known = known_points(video)
        total, count = total + np.where(known, video, 0).astype(np.float64), count + known
    return (total / np.maximum(count, 1)).astype(np.float32)
