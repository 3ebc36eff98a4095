"""Pictures, volumes and videos of 8 bits per channel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.values import files, formats
from maskweave.values.array import NUMBERS, as_numbers, check_channels
from maskweave.values.base import Loss, TextLabels, refuse
from maskweave.values.dense import Dense
from maskweave.values.fitting import Fit
from maskweave.values.geometry import resize_axes
from maskweave.values.metrics import Metric, mean, mean_value, psnr, squared_errors
from maskweave.values.unknown import resize_known
from maskweave.values.variation import Variation, jitter, shifted

OPAQUE = 128
"""Alpha, 0 to 255, from which on a point is known."""
SSIM_WINDOW = 11
"""Pixels along each axis of the window of SSIM."""


@dataclass(frozen=True)
class Image(Dense):
    """Pictures of 8 bits per channel."""

    type: ClassVar[str] = "image"
    python: ClassVar[str] = (
        "uint8 (*size, channels), 0 to 255; with `valid: alpha`, alpha is one more channel of given values"
    )
    accepts: ClassVar[tuple[str, str]] = ("u", "uint8, 0 to 255")
    losses: ClassVar[Mapping[str, Loss]] = {name: NUMBERS[name] for name in ("mse", "smooth_l1", "cosine")}
    renamed: ClassVar[dict[str, str]] = {"deviation": "std"}
    default_metrics = ("psnr",)
    smooth_figures: ClassVar[bool] = True
    is_photograph = True
    default_fit: ClassVar[Fit] = "crop"

    channels: int = 1
    """1 (gray), 3 (red, green, blue) or 4 (with alpha)."""
    mean: tuple[float, ...] = ()
    """Mean per channel, in units of 0 to 1; `mean` and `std` replace scaling to [-1, 1]."""
    std: tuple[float, ...] = ()
    """Standard deviation per channel, in units of 0 to 1."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Color, 0 to 255, on which transparent pictures are composited, unless the entry has four channels. Also the color of what `fit: pad` adds."""

    valid: Literal["alpha"] | None = field(default=None, kw_only=True)
    """`alpha`: points of a picture whose alpha is below one half are unknown, instead of composited on the background. A picture without alpha is
    known everywhere; predictions are, too, and have no alpha."""

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        check_channels(self, (1, 3, 4))
        if self.valid and (self.channels == 4 or len(self.size) != 2):
            raise MaskweaveError(
                f"value.valid: alpha is for pictures of 1 or 3 channels besides alpha, found {self.channels} channels and value.size {list(self.size)}"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.channels):
            raise MaskweaveError(
                f"value.mean and value.std need one number per channel ({self.channels}), found {len(self.mean)} and {len(self.std)}"
            )
        if any(not s > 0 for s in self.std):
            raise MaskweaveError(f"value.std must be above 0, found {list(self.std)}")

        if any(not 0 <= level <= 255 for level in self.background):
            raise MaskweaveError(f"value.background must be three numbers from 0 to 255, found {list(self.background)}")

    @property
    def row_dtype(self) -> Any:
        return np.dtype(np.float16 if self.has_unknown else np.uint8)  # float16 holds 0 to 255 exactly, and NaN

    @property
    def has_unknown(self) -> bool:
        return self.valid == "alpha"

    @property
    def given_channels(self) -> int:
        """Channels of a given value, with alpha if it says which points are known."""
        return self.channels + (self.valid == "alpha")

    @property
    def padding(self) -> Any:
        gray = round(sum(self.background) / 3)
        return {1: gray, 2: (gray, 0), 3: self.background, 4: (*self.background, 0)}[self.given_channels]

    @property
    def is_picture(self) -> bool:
        return len(self.size) == 2 and self.channels == 3 and not self.valid

    def describe_range(self) -> str:
        return "0 to 255"

    def from_python(self, value: Any, where: str) -> np.ndarray:
        if hasattr(value, "convert"):  # a PIL image
            value = files.picture_array(value, self.given_channels, self.background, where)
        return super().from_python(value, where)

    def as_array(self, value: Any, where: str) -> np.ndarray:
        """Returns uint8. If the entry has three channels, gray is repeated and transparency composited on the background."""
        array, axes = as_numbers(value, where), len(self.size)
        if array.dtype != np.uint8:
            raise refuse(
                where,
                f"a picture of type {array.dtype}",
                "uint8, 0 to 255",
                "scale it to 0 to 255 and save it as uint8",
            )
        if self.valid:
            return self.in_channels_and_alpha(array)
        if self.channels == 3 and array.ndim == axes:
            array = array[..., None]
        if self.channels == 3 and array.ndim == axes + 1 and array.shape[-1] in (1, 4):
            array = np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else files.composited(array, self.background)
        return array

    def in_channels_and_alpha(self, array: np.ndarray) -> np.ndarray:
        """Adds the channels that a picture (H, W), (H, W, C) or (H, W, C + 1) lacks."""
        array = array[..., None] if array.ndim == 2 else array
        if self.channels == 3 and array.ndim == 3 and array.shape[-1] == 1:
            array = np.repeat(array, 3, axis=-1)
        if array.ndim == 3 and array.shape[-1] == self.channels:
            array = np.concatenate([array, np.full_like(array[..., :1], 255)], axis=-1)
        return array

    def checked_shape(self, array: np.ndarray, where: str) -> np.ndarray:
        return (
            Image(self.size, self.given_channels).checked_shape(array, where)
            if self.valid
            else super().checked_shape(array, where)
        )

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        return array[..., None] if self.channels == 1 and not self.valid else array

    # Unknown points

    def known(self, value: Any) -> np.ndarray:
        if not self.valid:
            return super().known(value)
        if value.dtype == np.uint8 and value.shape[-1] == self.given_channels:
            return np.asarray(value[..., -1] >= OPAQUE)
        return np.asarray(~np.isnan(value).any(axis=-1))

    def hide(self, value: np.ndarray, known: np.ndarray) -> np.ndarray:
        if not self.valid:
            return super().hide(value, known)
        return np.concatenate(
            [value[..., :-1], np.where(known[..., None], value[..., -1:], 0)], axis=-1, dtype=np.uint8
        )

    def is_missing(self, value: Any) -> bool:
        return bool(self.valid) and not self.known(value).any()

    def levels(self, value: Any) -> Any:
        """Returns a value with alpha as float16 (H, W, C), NaN at unknown points; other values as they are."""
        if not self.valid or value.dtype != np.uint8 or value.shape[-1] != self.given_channels:
            return value
        return np.where(self.known(value)[..., None], value[..., :-1], np.nan).astype(np.float16)

    def with_alpha(self, levels: np.ndarray) -> np.ndarray:
        """The reverse of `levels`; unknown points get the background's color."""
        known = self.known(levels)[..., None]
        colors = np.where(known, levels, np.asarray(self.padding)[:-1])
        return np.concatenate([np.rint(colors).clip(0, 255), known * 255], axis=-1).astype(np.uint8)

    def resized(self, value: np.ndarray, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        if not self.valid:
            return super().resized(value, resize)
        levels = value if value.dtype != np.uint8 else self.levels(self.in_channels_and_alpha(value))
        resized = resize_known(resize, levels.astype(np.float32))
        return self.with_alpha(resized) if value.dtype == np.uint8 else resized.astype(np.float16)

    # Files

    @property
    def endings(self) -> tuple[str, ...]:
        arrays = (*formats.ARRAYS, *formats.installed())
        if len(self.size) == 2:
            return (*files.PICTURES, *arrays)
        return (*arrays, *formats.VIDEOS) if len(self.size) == 3 else arrays

    def reads_photograph(self, ending: str) -> bool:
        return len(self.size) == 2 and ending in files.PICTURES and not (self.bands and ending in formats.PLANES)

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        """Returns what `check` takes. A TIFF is read as a photograph, unless the entry selects bands."""
        if self.reads_photograph(ending):
            return files.read_picture(content, ending, self.given_channels, self.background, where)
        return self.stored(content, ending, where).array

    def write(self, value: Any) -> tuple[bytes, str]:
        return (files.write_png(value), "png") if len(self.size) == 2 else super().write(value)

    varied_by: ClassVar[tuple[str, ...]] = ("shift", "color", "noise")

    def vary(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        if self.valid:
            return self._vary_known(value, variation)
        value = super().vary(value, variation)
        if variation.changes_colors:
            value = jitter(value, variation)
        if not variation.noise:
            return value
        levels = value + variation.gaussian(value.shape) * 127.5
        return np.rint(levels).clip(0, 255).astype(np.uint8)

    def _vary_known(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        given = self.in_channels_and_alpha(value) if value.dtype == np.uint8 else self.with_alpha(value)
        points = round(variation.shift * self.size[1])
        given = shifted(given, points, 1, self.padding) if points else given
        colors = Image(self.size, self.channels).vary(given[..., :-1], replace(variation, shift=0.0))
        out = np.concatenate([colors, given[..., -1:]], axis=-1)
        return out if value.dtype == np.uint8 else self.levels(out)

    def check_item(self, value: Any, where: str) -> np.ndarray:
        """Returns a picture; one with alpha as float16 (H, W, C), NaN at unknown points."""
        if self.valid and isinstance(value, np.ndarray) and value.dtype == np.float16:  # checked before
            return value
        return self.levels(super().check_item(value, where))

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return super().to_network([self.levels(value) for value in values] if self.valid else values)

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Unknown points become 0, the middle of the range."""
        out = super().normalize_rows(rows)
        return np.nan_to_num(out, copy=False) if self.has_unknown else out

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        return np.rint(resize_axes(value, self.size)).clip(0, 255).astype(np.uint8)

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        if self.mean:
            std = np.asarray(self.std, np.float32)
            return 1 / (255 * std), -np.asarray(self.mean, np.float32) / std
        return np.asarray([2 / 255.0], np.float32), np.asarray([-1.0], np.float32)

    def unscale(self, array: np.ndarray) -> np.ndarray:
        factor_C, shift_C = self.factor_shift
        return np.clip(np.rint((array - shift_C) / factor_C), 0, 255).astype(np.uint8)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`psnr`: from the mean squared error over the whole set, in dB. `ssim`: structural similarity, the mean over the pictures
        (https://doi.org/10.1109/TIP.2003.819861); needs torchmetrics and 11 × 11 pixels or more."""
        typical = lambda values: mean_value([*map(self.levels, values)])  # noqa: E731
        return {
            "psnr": Metric("PSNR", "higher", self._squared_errors, psnr, typical),
            "ssim": Metric("SSIM", "higher", self._similarity, mean, typical),
        }

    def _similarity(self, prediction: Any, truth: Any) -> np.ndarray:
        """(SSIM of a picture, 1); points that are unknown in the truth are 0 in both."""
        try:
            from torchmetrics.functional.image import structural_similarity_index_measure
        except ImportError as error:
            raise MaskweaveError("ssim needs torchmetrics; install it with: pip install 'maskweave[eval]'") from error
        p, t = (np.asarray(self.levels(np.asarray(value)), np.float64) for value in (prediction, truth))
        if min(self.size) < SSIM_WINDOW:
            raise MaskweaveError(
                f"ssim needs pictures of {SSIM_WINDOW} × {SSIM_WINDOW} pixels or more, found {list(self.size)}; remove it from metrics"
            )
        p, t = np.where(np.isnan(t), 0, np.nan_to_num(p)), np.nan_to_num(t)
        found, true = (torch.from_numpy(x).reshape(1, *self.size, -1).movedim(-1, 1) for x in (p, t))
        return np.array([float(structural_similarity_index_measure(found, true, data_range=255.0)), 1.0])  # type: ignore[arg-type]

    def _squared_errors(self, prediction: Any, truth: Any) -> np.ndarray:
        return squared_errors(self.levels(np.asarray(prediction)), self.levels(np.asarray(truth)))

    def from_blend(self, mean: np.ndarray) -> np.ndarray:
        return np.rint(np.nan_to_num(mean)).clip(0, 255).astype(np.uint8)

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        return np.rint(np.mean(np.stack(values), axis=0)).astype(values[0].dtype)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        array = array if array.ndim > len(self.size) else array[..., None]
        array = np.clip(np.nan_to_num(array), 0, 255).astype(np.uint8)[..., : 1 if array.shape[-1] < 3 else 3]
        return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array
