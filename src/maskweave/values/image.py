"""Pictures, volumes and videos of 8 bits per channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.values import files, formats
from maskweave.values.array import NUMBERS, as_numbers, check_channels
from maskweave.values.base import Loss, TextLabels, refuse
from maskweave.values.dense import Dense
from maskweave.values.fitting import Fit
from maskweave.values.geometry import resize_axes
from maskweave.values.metrics import Metric, mean_value, psnr, squared_errors
from maskweave.values.variation import Variation, jitter


@dataclass(frozen=True)
class Image(Dense):
    """Pictures of 8 bits per channel."""

    type: ClassVar[str] = "image"
    python: ClassVar[str] = "uint8 (*size, channels), 0 to 255"
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

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        check_channels(self, (1, 3, 4))
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
        return np.dtype(np.uint8)

    @property
    def padding(self) -> Any:
        return {1: round(sum(self.background) / 3), 3: self.background, 4: (*self.background, 0)}[self.channels]

    @property
    def is_picture(self) -> bool:
        return len(self.size) == 2 and self.channels == 3

    def describe_range(self) -> str:
        return "0 to 255"

    def from_python(self, value: Any, where: str) -> np.ndarray:
        if hasattr(value, "convert"):  # a PIL image
            value = files.picture_array(value, self.channels, self.background, where)
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
        if self.channels == 3 and array.ndim == axes:
            array = array[..., None]
        if self.channels == 3 and array.ndim == axes + 1 and array.shape[-1] in (1, 4):
            array = np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else files.composited(array, self.background)
        return array

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        return array[..., None] if self.channels == 1 else array

    @property
    def endings(self) -> tuple[str, ...]:
        arrays = (*formats.ARRAYS, *formats.installed())
        if len(self.size) == 2:
            return (*files.PICTURES, *arrays)
        return (*arrays, *formats.VIDEOS) if len(self.size) == 3 else arrays

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        """Returns what `check` takes. A TIFF is read as a photograph, unless the entry selects bands."""
        if len(self.size) == 2 and ending in files.PICTURES and not (self.bands and ending in formats.PLANES):
            return files.read_picture(content, ending, self.channels, self.background, where)
        return self.stored(content, ending, where).array

    def write(self, value: Any) -> tuple[bytes, str]:
        return (files.write_png(value), "png") if len(self.size) == 2 else super().write(value)

    varied_by: ClassVar[tuple[str, ...]] = ("shift", "color", "noise")

    def vary(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        value = super().vary(value, variation)
        if variation.changes_colors:
            value = jitter(value, variation)
        if not variation.noise:
            return value
        levels = value + variation.gaussian(value.shape) * 127.5
        return np.rint(levels).clip(0, 255).astype(np.uint8)

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
        """`psnr`: from the mean squared error over the whole set, in dB."""
        return {"psnr": Metric("PSNR", "higher", squared_errors, psnr, mean_value)}

    def from_blend(self, mean: np.ndarray) -> np.ndarray:
        return np.rint(np.nan_to_num(mean)).clip(0, 255).astype(np.uint8)

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        return np.rint(np.mean(np.stack(values), axis=0)).astype(values[0].dtype)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        array = array if array.ndim > len(self.size) else array[..., None]
        array = np.clip(array, 0, 255).astype(np.uint8)[..., :3]
        return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array
