"""The base classes of values that are arrays of points over one to three axes: length; height and width; or frames, height and width.

Shapes: *size the points along each axis (of the entry or of the value), C channels, B batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values import files
from maskweave.values.array import MAX_CHANNELS, Array, finite
from maskweave.values.base import Size, refuse
from maskweave.values.fitting import FITTED, ROUNDING, Fit, by, differing, fit_axes
from maskweave.values.formats.base import Selection, Stored
from maskweave.values.geometry import FULL, Geometry, resize_area, resize_axes
from maskweave.values.remarks import remark
from maskweave.values.scales import Scale, to_scale
from maskweave.values.unknown import Missing, as_missing, known_points, mark, resize_known
from maskweave.values.variation import Variation, shifted

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
    fit: tuple[Fit, ...] = field(default=(), kw_only=True)
    """What happens to values of other sizes. `resize`: they are stretched to the entry's size. `crop`: a plane, or each plane of a volume, is cropped
    to the center, together with the pictures of its view, and resized. `pad`: a plane is resized to fit inside, and the rest becomes unknown.
    `refuse`: they are refused. A list has one for each axis, without resizing for `crop`, which cuts the end or extends it, and `pad`, which only
    extends it; so are values of one axis, and the first of three axes. The default is `crop` for pictures and `refuse` for all else."""
    bands: tuple[int | str, ...] = field(default=(), kw_only=True)
    """Bands to read from TIFF files, one per channel, by number from 1 or by description; by default all, in the file's order
    ([files.md](files.md))."""

    # The entry

    default_fit: ClassVar[Fit] = "refuse"
    one_or_list: ClassVar[tuple[str, ...]] = ("fit",)

    @property
    def ways(self) -> tuple[Fit, ...]:
        """How values of other sizes are fitted: one way for planes as a whole, or one for each axis."""
        ways = self.fit or (self.default_fit,)
        whole = len(self.size) == 2 or (len(self.size) == 3 and ways[0] in ("crop", "refuse"))
        return ways * len(self.size) if len(ways) == 1 and not whole else ways

    @property
    def padding(self) -> Any:
        """Number, or one for each channel, at points that a value is extended by; None: it cannot be extended."""
        return None

    def check_settings(self, kind: str) -> None:
        self.check_array_names()
        if len(self.fit) not in (0, 1, len(self.size)):
            raise MaskweaveError(
                f"value.fit must be one word, or one for each of {len(self.size)} axes, found {len(self.fit)}"
            )
        if "pad" in self.ways and self.padding is None:
            raise MaskweaveError(f"value.fit: pad needs unknown points: {self.how_unknown}")
        if not (1 <= len(self.size) <= 3 and min(self.size) > 0):
            raise MaskweaveError(f"value.size must be 1 to 3 positive numbers, found {shown(list(self.size))}")
        if np.prod(self.size, dtype=np.float64) > files.MAX_PIXELS:
            raise MaskweaveError(f"value.size {list(self.size)} has more than {files.MAX_PIXELS:,} points")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise MaskweaveError(f"value.channels must be 1 to {MAX_CHANNELS:,}, found {self.channels}")
        if self.bands and len(self.size) != 2:
            raise MaskweaveError(
                f"value.bands are those of TIFF files, which hold two axes; found value.size {list(self.size)}"
            )
        if self.bands and len(self.bands) != self.channels:
            raise MaskweaveError(f"value.bands needs one band per channel ({self.channels}), found {len(self.bands)}")

    # Values

    @property
    def selection(self) -> Selection:
        return replace(super().selection, bands=self.bands)

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

    how_unknown: ClassVar[str] = "values of this type have none; use crop or resize"
    """How an entry says that points may be unknown, for messages."""

    @property
    def follows_view(self) -> bool:
        return len(self.size) > 1 and self.ways in (("crop",), ("refuse",))

    def fit_sizes(self, value: np.ndarray, where: str) -> np.ndarray:
        found, size = self.extent(value), tuple(self.size)
        if found == size:
            return value
        as_plane = self.ways[0] if len(size) > 1 and len(self.ways) == 1 else ""
        if as_plane == "crop":
            if differing(found[-2:], size[-2:]):
                remark(f"values of other sizes than {by(size)}, cropped to the center and resized")
            along: tuple[Fit, ...] = ("crop", "refuse", "refuse")
            return self.fit_along(value, (*size[:-2], *found[-2:]), along[3 - len(size) :], where)
        if as_plane == "pad":
            remark(f"values of other sizes than {by(size)}, resized to fit inside")
            factor = min(s / n for n, s in zip(found, size, strict=True))
            inner = tuple(min(max(round(n * factor), 1), s) for n, s in zip(found, size, strict=True))
            value = replace(self, size=inner).transform(value, Geometry())
            return fit_axes(value, size, ("pad", "pad"), self.padding)
        ways = self.ways if len(self.ways) == len(size) else self.ways * len(size)
        return self.fit_along(value, size, ways, where)

    def fit_along(self, value: np.ndarray, size: tuple[int, ...], ways: Sequence[Fit], where: str) -> np.ndarray:
        """Cuts or extends a value along each axis; those to be resized stay as they are."""
        found = self.extent(value)
        for n, s, way in zip(found, size, ways, strict=True):
            if (
                (way == "refuse" and abs(n - s) > ROUNDING)
                or (way == "pad" and n > s)
                or (way == "crop" and n < s and self.padding is None)
            ):
                raise refuse(
                    where,
                    f"size {by(found)}",
                    by(size),
                    "set value.fit of the entry to resize, crop or pad, or change its value.size",
                )
        changed = [
            way
            for n, s, way in zip(found, size, ways, strict=True)
            if abs(n - s) > ROUNDING or (way != "refuse" and n != s)
        ]
        for way in dict.fromkeys(changed):
            remark(f"values of other sizes than {by(size)}, {FITTED[way]}")
        return fit_axes(value, size, ways, self.padding)

    def transform(self, value: np.ndarray, geometry: Geometry) -> np.ndarray:
        value = np.asarray(value)
        if len(self.size) == 2:
            same = geometry.crop == FULL and value.shape[:2] == tuple(self.size)
            out = value.copy() if same else self.resized(value, lambda plane: self.resize(plane, geometry))
            return self.mirror(out) if geometry.flip else out
        if len(self.size) == 3 and (self.follows_view or geometry.crop != FULL):
            plane: Dense = replace(self, size=self.size[1:], fit=())
            value = np.stack([plane.transform(part, geometry) for part in value])
            return value if len(value) == self.size[0] else self.resize_depth(value)
        same = value.shape[: len(self.size)] == tuple(self.size)
        out = value.copy() if same else self.resized(value, self.resize_axes)
        return np.stack([self.mirror(plane) for plane in out]) if geometry.flip and len(self.size) == 3 else out

    varied_by: ClassVar[tuple[str, ...]] = ("shift",)

    def vary(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        """Time is the last axis of a plane, such as a spectrogram, and otherwise the first. At least one known point stays inside."""
        axis = 1 if len(self.size) == 2 else 0
        points = round(variation.shift * self.size[axis])
        if not points:
            return value
        length = value.shape[axis]
        known = np.flatnonzero(np.moveaxis(known_points(value), axis, 0).reshape(length, -1).any(axis=1))
        if len(known):
            points = min(max(points, -int(known[-1])), length - 1 - int(known[0]))
        return shifted(value, points, axis, self.padding if self.has_unknown else None)

    def resize_depth(self, value: np.ndarray) -> np.ndarray:
        """Resize a volume whose planes have the entry's size along its first axis."""
        return self.resized(value, self.resize_axes)

    def resized(self, value: np.ndarray, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Resize a value whose points may be unknown."""
        return resize(value)

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

    def check_item(self, value: Any, where: str) -> np.ndarray:
        checked = super().check_item(value, where)
        if checked.shape[: len(self.size)] != tuple(self.size):
            raise refuse(
                where,
                f"shape {checked.shape}",
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
        scaled = self.scale(self.stack(values))
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled, -1, 1)))  # torch reorders several times slower

    def from_network(self, output: Tensor) -> np.ndarray:
        return self.unscale(output.detach().float().movedim(1, -1).contiguous().cpu().numpy())

    # Ensembles and figures

    def to_blend(self, value: Any) -> np.ndarray:
        array = np.asarray(value)
        return np.where(self.known(array), array, np.nan).astype(np.float32).reshape(*array.shape[: len(self.size)], -1)

    def from_blend(self, mean: np.ndarray) -> np.ndarray:
        mean = mean if self.has_unknown else np.nan_to_num(mean)
        return mean if self.channels > 1 else mean[..., 0]

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
        from maskweave.values.drawing import centered, flat, hatched

        array = self.drawable(value)
        colors = self.colors(array, span, reference)
        if self.has_unknown:
            colors = hatched(colors, np.any(self.known(array).reshape(*colors.shape[:-1], -1), axis=-1, keepdims=False))
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
        return ("png", *super().endings) if len(self.size) == 2 else super().endings

    def stored(self, content: bytes, ending: str, where: str) -> Stored:
        if ending == "png":
            return Stored(files.read_ids(content, ending, self.type, where))
        return super().stored(content, ending, where)

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        return self.stored(content, ending, where).ids()

    def write(self, value: Any) -> tuple[bytes, str]:
        return (files.write_png(value), "png") if len(self.size) == 2 else super().write(value)


@dataclass(frozen=True)
class UnknownNumbers(Dense):
    """Numbers at each point, NaN at unknown points."""

    one_or_list: ClassVar[tuple[str, ...]] = ("fit", "missing")

    how_unknown: ClassVar[str] = "set value.missing: nan"
    missing: Missing = field(default=(), kw_only=True)
    """Points may be unknown: NaN in arrays, and in files also these numbers, such as -9999 or 0 (`nan`: only NaN). Without this setting, a value
    with NaN is refused. A value without any known point counts as missing. `predicted`, also in a list with numbers: the model reads and predicts
    where nothing is known, and results have NaN there; the vocabulary of a grid then has one more code, for tokens without any known point."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", as_missing(self.missing))

    @property
    def has_unknown(self) -> bool:
        return bool(self.missing)

    @property
    def predicts_unknown(self) -> bool:
        return "predicted" in self.missing

    def with_unknown(self, values: np.ndarray, logits: Tensor) -> Any:
        known = logits.movedim(1, -1).cpu().numpy() > 0
        return np.where(known.reshape(values.shape), values, np.float32(np.nan))

    @property
    def padding(self) -> Any:
        return np.nan if self.has_unknown else None

    def is_missing(self, value: Any) -> bool:
        return self.has_unknown and not self.known(value).any()

    def hide(self, value: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.where(known.reshape(*known.shape, *(1,) * (value.ndim - known.ndim)), value, np.float32(np.nan))

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        array = super().parse(content, ending, where)
        return mark(array, self.missing) if self.missing and array.dtype.kind in "biuf" else array

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Unknown points become 0, the middle of the range."""
        out = super().normalize_rows(rows)
        return np.nan_to_num(out, copy=False) if self.has_unknown else out

    def finite(self, array: np.ndarray, where: str) -> np.ndarray:
        """Returns the array as float32; raises BadSample for infinite values, and for NaN if no points may be unknown."""
        advice = (
            "if they are unknown points, set the entry's value.missing: nan; otherwise fill them, or leave the file out"
        )
        return finite(array, where, self.has_unknown, "" if self.has_unknown else advice)

    def resized(self, value: np.ndarray, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return resize_known(resize, value) if self.has_unknown else resize(value)

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        """The mean over the known points. If the model predicts them, a point is known if it is in half of the values, otherwise if it is in any."""
        if not self.has_unknown:
            return super().merge(values, overlap)
        known = np.stack([self.known(value) for value in values])
        total = np.sum(np.where(known, np.stack(values), 0), axis=0, dtype=np.float64)
        count = known.sum(axis=0)
        least = len(values) / 2 if self.predicts_unknown else 1
        return np.where(count >= least, total / np.maximum(count, 1), np.nan).astype(values[0].dtype)


@dataclass(frozen=True)
class DenseNumbers(UnknownNumbers):
    """Numbers at each point. One axis is drawn as curves, one channel by its color scale, and several by their principal components."""

    varied_by: ClassVar[tuple[str, ...]] = ("shift", "noise")

    def vary(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        return self.with_noise(super().vary(value, variation), variation)

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
        from maskweave.values.drawing import curves, span_of

        if not self.curve:
            return super().draw(value, size, over, span, reference)
        array, span = self.drawable(value), span or self.full_span
        points = array.reshape(len(array), -1)
        scale = self.figure_scale(span or span_of([points], (0, 100)) or RELATIVE_SPAN)
        return curves(points, size, span, self.unit, self.curve_names(), *self.curve_points(), scale=scale)

    def figure_scale(self, span: tuple[float, float]) -> tuple[Scale, float]:
        """Scale of the numbers in figures that show numbers in `span`, and its softening."""
        return "linear", 1.0

    def curve_points(self) -> tuple[np.ndarray, str, bool, Sequence[str]]:
        """Coordinates of the entry's points along the axis of curves, its label, whether it is logarithmic, and the units of the channels, if they
        have units of their own."""
        return np.arange(self.size[0]), "", False, ()

    def curve_names(self) -> Sequence[str]:
        """Names of the channels in figures of curves; empty if they have none."""
        return ()

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        from maskweave.values.drawing import color_mapped, principal_components

        if array.ndim > len(self.size) and array.shape[-1] > 1:
            return principal_components(array, array if reference is None else self.drawable(reference))
        span = span or self.full_span or RELATIVE_SPAN
        with np.errstate(divide="ignore", invalid="ignore"):  # numbers below those of a logarithm are drawn as unknown
            on_scale = to_scale(array.reshape(array.shape[: len(self.size)]), *self.figure_scale(span))
        low, high = to_scale(span, *self.figure_scale(span)).tolist()
        return color_mapped(on_scale, low, high)

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import COMPONENTS, color_bar, swatches

        if self.curve:
            return None
        if self.channels > 1:
            return swatches(COMPONENTS, width)
        span = span or self.full_span or RELATIVE_SPAN
        scale = self.figure_scale(span)[0]
        words = ", ".join(filter(None, (self.shown_unit, f"{scale} scale" if scale != "linear" else "")))
        return color_bar(*span, words, min(width, 220))
