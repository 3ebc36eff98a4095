"""The base classes of values that are arrays of points over one to three axes: length; height and width; or frames, height and width.

Shapes: *size the points along each axis (of the entry or of the value), C channels, B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values import files
from maskweave.values.array import MAX_CHANNELS, Array
from maskweave.values.base import Size, refuse
from maskweave.values.geometry import FULL, Geometry, resize_area, resize_axes

RELATIVE_SPAN = (-3.0, 3.0)
"""Colors of numbers without a range span this many standard deviations."""


@dataclass(frozen=True)
class Dense(Array):
    """Arrays of points."""

    kinds: ClassVar[tuple[str, ...]] = ("grid", "patches")
    has_channel_axis: ClassVar[bool] = True
    """Whether arrays have an axis of channels."""

    size: tuple[int, ...] = ()
    """Points along each axis: [length], [height, width] or [frames, height, width]."""

    # The entry

    def check_settings(self, kind: str) -> None:
        if not (1 <= len(self.size) <= 3 and min(self.size) > 0):
            raise MaskweaveError(f"value.size must be 1 to 3 positive numbers, found {shown(list(self.size))}")
        if np.prod(self.size, dtype=np.float64) > files.MAX_PIXELS:
            raise MaskweaveError(f"value.size {list(self.size)} has more than {files.MAX_PIXELS:,} points")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise MaskweaveError(f"value.channels must be 1 to {MAX_CHANNELS:,}, found {self.channels}")

    # Values

    def check(self, value: Any, where: str) -> np.ndarray:
        return self.check_numbers(self.checked_shape(self.as_array(value, where), where), where)

    def checked_shape(self, array: np.ndarray, where: str) -> np.ndarray:
        """Returns the array as (*size, C), or (*size) for a single channel."""
        axes, channels = len(self.size), self.channels if self.has_channel_axis else 1
        if channels == 1 and array.ndim == axes + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim != axes + (channels > 1) or (channels > 1 and array.shape[-1] != channels):
            letters = ("length",) if axes == 1 else ("frames", "height", "width")[3 - axes :]
            wanted = ", ".join([*letters, str(channels)] if channels > 1 else letters)
            raise refuse(where, f"shape {array.shape}", f"({wanted}), {channels} channel{'s' * (channels > 1)}")
        points = int(np.prod(array.shape[:axes], dtype=np.int64))
        if not 0 < points <= files.MAX_PIXELS:
            raise refuse(where, f"shape {array.shape}", f"1 to {files.MAX_PIXELS:,} points")
        return array

    # Crops, flips and sizes

    def extent(self, value: Any) -> tuple[int, ...]:
        return np.shape(value)[: len(self.size)]

    def transform(self, value: np.ndarray, geometry: Geometry) -> np.ndarray:
        value = np.asarray(value)
        if len(self.size) == 2:
            same = geometry.crop == FULL and value.shape[:2] == tuple(self.size)
            out = value.copy() if same else self.resize(value, geometry)
            return self.mirror(out) if geometry.flip else out
        out = value.copy() if value.shape[: len(self.size)] == tuple(self.size) else self.resize_axes(value)
        return np.stack([self.mirror(plane) for plane in out]) if geometry.flip and len(self.size) == 3 else out

    def resize(self, plane: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Crop and resize a plane (H, W[, C]) to the entry's size."""
        return resize_area(plane, self.size, geometry)

    def mirror(self, plane: np.ndarray) -> np.ndarray:
        """Swap left and right of a plane."""
        return plane[:, ::-1].copy()

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        """Resize a value of one or three axes to the entry's size."""
        return resize_axes(value, self.size).astype(np.float32)

    # Networks

    def check_batch(self, values: Sequence[Any], name: str, first: int = 0) -> list[np.ndarray]:
        checked = super().check_batch(values, name, first)
        for i, value in enumerate(checked, first):
            if value.shape[: len(self.size)] != tuple(self.size):
                raise refuse(
                    f"{name}: value {i} of the batch",
                    f"shape {value.shape}",
                    f"the entry's size {tuple(self.size)}",
                    "resize it, or correct the entry",
                )
        return checked

    def stack(self, values: Sequence[Any]) -> np.ndarray:
        """Stack checked values of the entry's size into one array (B, *size, C)."""
        if not len(values):
            return np.zeros((0, *self.size, self.channels), np.float32)
        batch = values if isinstance(values, np.ndarray) else np.stack(values)
        return batch.reshape(len(batch), *self.size, self.channels)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return torch.from_numpy(self.scale(self.stack(values))).movedim(-1, 1).contiguous()

    def from_network(self, output: Tensor) -> np.ndarray:
        return self.unscale(output.detach().float().movedim(1, -1).contiguous().cpu().numpy())

    # Ensembles and figures

    def natural_size(self) -> Size:
        from maskweave.values.drawing import montage

        if len(self.size) == 1:
            return 128, 128
        if len(self.size) == 3:
            rows, columns = montage(self.size[0])
            return rows * self.size[1], columns * self.size[2]
        return self.size[0], self.size[1]

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing import centered, flat

        colors = self.colors(self.drawable(value), span, reference)
        return centered(flat(colors), size, smooth=self.smooth_figures, stretch=len(self.size) == 1)[0]

    smooth_figures: ClassVar[bool] = False
    """Whether enlarged figures are smoothed; otherwise the nearest point is shown, which does not mix classes."""

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        """Colors of each point, uint8 (*size, 3)."""
        raise NotImplementedError

    def drawable(self, value: Any) -> np.ndarray:
        """Returns a value as an array that can be drawn.

        Raises:
            MaskweaveError: its shape does not match the entry.
        """
        array, n = np.asarray(value), len(self.size)
        if array.ndim not in ((n, n + 1) if self.has_channel_axis else (n,)) or 0 in array.shape:
            channels = f" and {self.channels} channels" if self.has_channel_axis else ""
            raise MaskweaveError(f"cannot draw an array of shape {array.shape}; expected {tuple(self.size)}{channels}")
        return array


@dataclass(frozen=True)
class DenseIds(Dense):
    """One small whole number at each point. Planes are stored as PNG."""

    has_channel_axis: ClassVar[bool] = False

    @property
    def endings(self) -> tuple[str, ...]:
        return ("png", *files.ARRAYS) if len(self.size) == 2 else files.ARRAYS

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        return (
            files.read_ids(content, ending, self.type, where)
            if ending == "png"
            else files.read_array(content, ending, where)
        )

    def write(self, value: Any) -> tuple[bytes, str]:
        return (files.write_png(value), "png") if len(self.size) == 2 else super().write(value)


@dataclass(frozen=True)
class DenseNumbers(Dense):
    """Numbers at each point. One axis is drawn as curves, one channel by its color scale, and several by their principal components."""

    @property
    def full_span(self) -> tuple[float, float] | None:
        """Lowest and highest number of figures for which no span is given; None: unknown."""
        return None

    @property
    def shown_unit(self) -> str:
        """Unit of the numbers in figures."""
        return self.unit

    @property
    def curve(self) -> bool:
        return len(self.size) == 1

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing import curves

        if not self.curve:
            return super().draw(value, size, over, span, reference)
        array = self.drawable(value)
        return curves(array.reshape(len(array), -1), size, span or self.full_span, self.unit)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        from maskweave.values.drawing import color_mapped, principal_components

        if array.ndim > len(self.size) and array.shape[-1] > 1:
            return principal_components(array, array if reference is None else self.drawable(reference))
        return color_mapped(array.reshape(array.shape[: len(self.size)]), *(span or self.full_span or RELATIVE_SPAN))

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import COMPONENTS, color_bar, swatches

        if self.curve:
            return None
        if self.channels > 1:
            return swatches(COMPONENTS, width)
        return color_bar(*(span or self.full_span or RELATIVE_SPAN), self.shown_unit, min(width, 220))
