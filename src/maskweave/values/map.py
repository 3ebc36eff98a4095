"""Maps of numbers in a unit: depth, elevation, spectral bands, spectra, volumes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.values import files
from maskweave.values.array import NUMBERS, affine, check_range
from maskweave.values.base import TextLabels, refuse
from maskweave.values.dense import DenseNumbers
from maskweave.values.formats.base import Selection, Stored, as_floats
from maskweave.values.metrics import (
    Metric,
    absolute_errors,
    fullest_window,
    mean,
    mean_value,
    median,
    relative_errors,
    root_mean,
    squared_errors,
    weighted_median,
    within_ratio,
)
from maskweave.values.remarks import remark
from maskweave.values.variation import Variation

SLACK = 1e-3
"""Values outside the range by at most this share of it are rounding errors and are clipped."""
VARIANCE_EPSILON = 1e-6


@dataclass(frozen=True)
class Map(DenseNumbers):
    """Numbers in a unit at each point."""

    type: ClassVar[str] = "map"
    python: ClassVar[str] = "float32 (*size, channels), or (*size) for one channel, in `unit`, within `range`"
    losses = NUMBERS
    head = "points"
    renamed: ClassVar[dict[str, str]] = {"tails": "trim_quantile"}
    aliases: ClassVar[dict[str, str]] = {"scale": "file_scale", "offset": "file_offset"}
    default_metrics = ("mae", "rmse")
    report_facts = ("unit", "channel_names")

    channels: int = 1
    range: tuple[float, float] | None = None
    """Lowest and highest value; checked, and scaled to [-1, 1] for the network."""
    trim_quantile: float | None = None
    """Instead of a range, for maps of which only relative values matter: each map is standardized separately, channel by channel, by the
    mean and the standard deviation (the root of the variance + 1e-6) of its values from quantile `trim_quantile` to
    1 - `trim_quantile`, both included. A tokenizer returns values in these relative units, without a unit."""
    unit: str = ""
    """Unit of the numbers, for figures and messages."""
    outside: Literal["refuse", "clip", "missing"] = "refuse"
    """What happens to values with points outside of the range: they are refused, or these points are clipped to it or become unknown."""
    channel_names: tuple[str, ...] = ()
    """Names of the channels, for scores; by default their indices."""
    file_scale: float = field(default=1.0, kw_only=True)
    """Files hold other numbers than the map: value = number in the file · `scale` + `offset`. For depth in millimeters and a map in
    meters, `scale: 0.001`. Files that maskweave writes hold such numbers, too."""
    file_offset: float = field(default=0.0, kw_only=True)
    """See `scale`."""
    use_scale_tags: bool = field(default=False, kw_only=True)
    """Apply the scale and offset that a GeoTIFF states for each band, before `scale` and `offset`."""

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        if (self.range is None) == (self.trim_quantile is None):
            raise MaskweaveError(
                f"a map needs either value.range, its lowest and highest value in {self.unit or 'its unit'}, or value.trim_quantile, "
                f"which standardizes each map separately; found {'both' if self.range else 'neither'}"
            )
        if self.range is not None:
            check_range(*self.range, "value.range")
        if self.trim_quantile is not None and not 0 <= self.trim_quantile < 0.5:
            raise MaskweaveError(f"value.trim_quantile must be a share from 0 to below 0.5, found {self.trim_quantile}")
        if self.trim_quantile is not None and kind == "patches":
            raise MaskweaveError("patches take maps with a value.range, found value.trim_quantile; make it a grid")
        if self.outside == "missing" and not self.missing:
            raise MaskweaveError("value.outside: missing makes points unknown; also set value.missing: nan")
        if not (self.file_scale != 0 and np.isfinite([self.file_scale, self.file_offset]).all()):
            raise MaskweaveError(
                f"value.scale must be finite and not 0, and value.offset finite, found {self.file_scale} and {self.file_offset}"
            )
        if self.channel_names and len(self.channel_names) != self.channels:
            raise MaskweaveError(f"value.channel_names needs {self.channels} names, found {len(self.channel_names)}")

    # Files

    @property
    def endings(self) -> tuple[str, ...]:
        return (*super().endings, "png") if len(self.size) == 2 and self.channels == 1 else super().endings

    @property
    def selection(self) -> Selection:
        return replace(super().selection, use_scale_tags=self.use_scale_tags)

    def stored(self, content: bytes, ending: str, where: str) -> Stored:
        if ending == "png":
            return Stored(files.read_levels(content, ending, where))
        return super().stored(content, ending, where)

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        array = super().parse(content, ending, where)
        return as_floats(array) * self.file_scale + self.file_offset if self.is_scaled else array

    def write(self, value: Any) -> tuple[bytes, str]:
        return super().write((value - self.file_offset) / self.file_scale if self.is_scaled else value)

    @property
    def is_scaled(self) -> bool:
        """Whether files hold other numbers than the map."""
        return (self.file_scale, self.file_offset) != (1.0, 0.0)

    # Checks

    def describe_range(self) -> str:
        return "standardized" if self.range is None else f"{self.range[0]:g} to {self.range[1]:g}"

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        if self.outside == "missing":  # infinite numbers are outside of every range
            array = np.where(np.isinf(array), np.nan, array)
        array = self.finite(array, where)
        if self.range is None:
            return array
        low, high = self.range
        slack = SLACK * (high - low)
        beyond = (array < low - slack) | (array > high + slack)
        if beyond.any():
            if self.outside == "refuse":
                raise refuse(
                    where,
                    f"values from {np.nanmin(array):.6g} to {np.nanmax(array):.6g}, {np.mean(beyond):.2%} of them outside",
                    f"{low:g} to {high:g} {self.unit}".rstrip(),
                    "check the unit, widen the entry's value.range, or set its value.outside to clip or missing",
                )
            remark(
                f"values with points outside of {low:g} to {high:g}, {'clipped' if self.outside == 'clip' else 'unknown'}"
            )
            if self.outside == "missing":
                array = np.where(beyond, np.float32(np.nan), array)
        return np.clip(array, low, high)

    # Networks

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.range or (-1.0, 1.0)
        return np.asarray([2 / (high - low)], np.float32), np.asarray([-(high + low) / (high - low)], np.float32)

    def stack(self, values: Sequence[Any]) -> np.ndarray:
        batch = super().stack(values)
        if self.trim_quantile is not None and len(batch):
            batch = np.stack([self.standardize(item) for item in batch])
        return batch

    def standardize(self, array: np.ndarray) -> np.ndarray:
        """Standardize a map (*size) or (*size, C) by `trim_quantile`, float32; a standardized map stays the same up to rounding."""
        assert self.trim_quantile is not None
        axes = tuple(range(len(self.size)))
        if np.isnan(array).all(axis=axes).any():  # a channel without any known point
            array = array.copy()
            array[..., np.isnan(array).all(axis=axes)] = 0
        quantile = np.nanquantile if self.has_unknown else np.quantile
        low = quantile(array, self.trim_quantile, axes, method="lower", keepdims=True)
        high = quantile(array, 1 - self.trim_quantile, axes, method="higher", keepdims=True)
        inside = (array >= low) & (array <= high)
        center = np.mean(array, axes, np.float64, keepdims=True, where=inside)
        variance = np.var(array, axes, np.float64, keepdims=True, where=inside)
        return ((array - center) / np.sqrt(variance + VARIANCE_EPSILON)).astype(np.float32)

    def scale(self, array: np.ndarray) -> np.ndarray:
        out = affine(array, *self.factor_shift)
        return out if self.range is None else np.clip(out, -1, 1, out=out)

    def with_noise(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        if self.range is None:  # it is standardized later: the noise is relative to the map's own deviation
            deviation = float(np.nanstd(value)) if self.known(value).any() else 0.0
            variation = replace(variation, noise=variation.noise * deviation)
        return super().with_noise(value, variation)

    def unscale(self, array: np.ndarray) -> np.ndarray:
        factor_C, shift_C = self.factor_shift
        out = (array - shift_C) / factor_C
        out = (out if self.range is None else np.clip(out, *self.range)).astype(np.float32)
        return out[..., 0] if self.channels == 1 else out

    # Scores and figures

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`, `rmse`: per channel in the map's unit (in relative units if it is standardized). `abs_rel`, `delta1`: for positive
        quantities such as depth (https://arxiv.org/abs/1406.2283, section 4)."""
        axes = len(self.size)
        names = self.channel_names or tuple(map(str, range(self.channels)))

        def per_channel(errors: Any) -> Any:
            def statistics(prediction: Any, truth: Any) -> np.ndarray:
                if self.trim_quantile is not None:
                    prediction, truth = (
                        self.standardize(np.asarray(prediction, np.float64)),
                        self.standardize(np.asarray(truth, np.float64)),
                    )
                return errors(prediction, truth, axes)

            return statistics

        names = () if self.channels == 1 else names
        return {
            "mae": Metric("MAE", "lower", per_channel(absolute_errors), mean, median, names),
            "rmse": Metric("RMSE", "lower", per_channel(squared_errors), root_mean, mean_value, names),
            "abs_rel": Metric("AbsRel", "lower", relative_errors, mean, weighted_median),
            "delta1": Metric("delta1", "higher", within_ratio, mean, fullest_window),
        }

    @property
    def full_span(self) -> tuple[float, float] | None:
        return self.range

    @property
    def shown_unit(self) -> str:
        return self.unit if self.trim_quantile is None else "standard deviations from the mean"

    def drawable(self, value: Any) -> np.ndarray:
        array = super().drawable(value)
        return array if self.trim_quantile is None else self.standardize(array)

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        from maskweave.values.drawing import span_of

        if self.trim_quantile is not None or (self.channels > 1 and not self.curve):
            return None
        return span_of(values, (0, 100) if self.curve else (1, 99))
