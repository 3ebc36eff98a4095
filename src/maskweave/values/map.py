"""Maps of numbers in a unit: depth, elevation, spectral bands, spectra, volumes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.values import files
from maskweave.values.array import NUMBERS, check_range
from maskweave.values.base import TextLabels, refuse
from maskweave.values.formats.base import Selection, Stored, as_floats
from maskweave.values.metrics import (
    Metric,
    absolute_errors,
    fullest_window,
    mean,
    mean_value,
    median,
    mostly_known,
    relative_errors,
    relative_median,
    root_mean,
    squared_errors,
    unknown_overlap,
    weighable,
    within_ratio,
)
from maskweave.values.remarks import remark
from maskweave.values.scaled import ScaledNumbers
from maskweave.values.variation import Variation

SLACK = 1e-3
"""Values outside the range by at most this share of it are rounding errors and are clipped."""
VARIANCE_EPSILON = 1e-6


@dataclass(frozen=True)
class Map(ScaledNumbers):
    """Numbers in a unit at each point."""

    type: ClassVar[str] = "map"
    python: ClassVar[str] = "float32 (*size, channels), or (*size) for one channel, in `unit`, within `range`"
    losses = NUMBERS
    can_be_weighted = True
    head = "points"
    renamed: ClassVar[dict[str, str]] = {"tails": "trim_quantile"}
    aliases: ClassVar[dict[str, str]] = {"scale": "file_scale", "offset": "file_offset"}
    is_mask = True
    default_metrics = ("mae", "rmse")

    channels: int = 1
    """Number of channels, or a list of their names, or of {name, unit}."""
    range: tuple[float, float] | tuple[tuple[float, float], ...] | None = None
    """Lowest and highest value, one for all channels or one per channel; checked, and scaled to [-1, 1] for the network. Instead of it,
    `mean` and `std`, or `scaling: fit`."""
    trim_quantile: float | None = None
    """Instead of a range, for maps of which only relative values matter: each map is standardized separately, channel by channel, by the
    mean and the standard deviation (the root of the variance + 1e-6) of its values from quantile `trim_quantile` to
    1 - `trim_quantile`, both included. A tokenizer returns values in these relative units, without a unit."""
    unit: str = ""
    """Unit of the numbers, for figures and messages."""
    outside: Literal["refuse", "clip", "missing"] = "refuse"
    """What happens to values with points outside of the range: they are refused, or these points are clipped to it or become unknown."""
    file_scale: float = field(default=1.0, kw_only=True)
    """Files hold other numbers than the map: value = number in the file · `scale` + `offset`. For depth in millimeters and a map in
    meters, `scale: 0.001`. Files that maskweave writes hold such numbers, too."""
    file_offset: float = field(default=0.0, kw_only=True)
    """See `scale`."""
    use_scale_tags: bool = field(default=False, kw_only=True)
    """Apply the scale and offset that a GeoTIFF states for each band, before `scale` and `offset`."""

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        ways = {
            "range": self.range is not None,
            "trim_quantile": self.trim_quantile is not None,
            "mean and std": bool(self.mean),
            "scaling": self.scaling is not None,
        }
        if sum(ways.values()) != 1:
            raise MaskweaveError(
                f"a map needs either value.range, its lowest and highest value in {self.unit or 'its unit'}; value.mean and value.std; "
                "value.scaling: fit, which learns them; or value.trim_quantile, which standardizes each map separately; "
                f"found {' and '.join(way for way, given in ways.items() if given) or 'none of them'}"
            )
        if self.range is not None:
            if len(self.limits) not in (1, self.channels):
                raise MaskweaveError(
                    f"value.range needs one range per channel ({self.channels}), found {len(self.limits)}"
                )
            for low, high in self.limits.tolist():
                check_range(low, high, "value.range")
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

    @property
    def limits(self) -> np.ndarray:
        """`range` as (1, 2), or (C, 2) if each channel has its own; (0, 2) without one."""
        return np.asarray(self.range or (), np.float64).reshape(-1, 2)

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
        if self.range is None:
            return super().describe_range() if self.trim_quantile is None else "standardized"
        low, high = self.limits.min(), self.limits.max()
        return f"{low:g} to {high:g}" + ", by channel" * (len(self.limits) > 1)

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        if self.outside == "missing":  # infinite numbers are outside of every range
            array = np.where(np.isinf(array), np.nan, array)
        array = super().check_numbers(array, where)
        if self.range is None:
            return array
        rows = array.reshape(-1, self.channels)
        low, high = self.limits.T.astype(np.float32)
        slack = SLACK * (high - low)
        beyond = (rows < low - slack) | (rows > high + slack)
        if beyond.any():
            c = int(beyond.any(axis=0).argmax())
            name = f" in channel {self.channel_labels[c]}" if len(low) > 1 else ""
            span = f"{low[c]:g} to {high[c]:g}" if len(low) > 1 else f"{low[0]:g} to {high[0]:g}"
            if self.outside == "refuse":
                one = rows[:, c] if name else rows
                raise refuse(
                    where,
                    f"values from {np.nanmin(one):.6g} to {np.nanmax(one):.6g}{name}, {np.mean(beyond):.2%} of them outside",
                    f"{span} {self.unit}".rstrip(),
                    "check the unit, widen the entry's value.range, or set its value.outside to clip or missing",
                )
            remark(f"values with points outside of {span}{name}, {'clipped' if self.outside == 'clip' else 'unknown'}")
            if self.outside == "missing":
                rows = np.where(beyond, np.float32(np.nan), rows)
        return np.clip(rows, low, high).reshape(array.shape)

    # Networks

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        if self.range is None:
            return super().factor_shift
        low, high = self.limits.T
        return (2 / (high - low)).astype(np.float32), (-(high + low) / (high - low)).astype(np.float32)

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
        out = super().scale(array)
        return out if self.range is None else np.clip(out, -1, 1, out=out)

    def with_noise(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        if self.trim_quantile is not None:  # it is standardized later: the noise is relative to the map's own deviation
            deviation = float(np.nanstd(value)) if self.known(value).any() else 0.0
            variation = replace(variation, noise=variation.noise * deviation)
        return super().with_noise(value, variation)

    def unscale(self, array: np.ndarray) -> np.ndarray:
        if self.range is None:
            return super().unscale(array)
        factor_C, shift_C = self.factor_shift
        return self.python_form(np.clip((array - shift_C) / factor_C, *self.limits.T))

    # Scores and figures

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`, `rmse`: per channel in the map's unit (in relative units if it is standardized). `abs_rel`, `delta1`: for positive
        quantities such as depth (https://arxiv.org/abs/1406.2283, section 4). `unknown_iou`: intersection over union of the unknown points, for
        `missing: predicted`."""
        names = self.channel_labels
        return {
            "mae": weighable("MAE", "lower", self.per_channel(absolute_errors), mean, median, names),
            "rmse": weighable("RMSE", "lower", self.per_channel(squared_errors), root_mean, mean_value, names),
            "abs_rel": weighable("AbsRel", "lower", relative_errors, mean, relative_median),
            "delta1": weighable("delta1", "higher", within_ratio, mean, fullest_window),
            "unknown_iou": Metric("IoU of unknown points", "higher", unknown_overlap, mean, mostly_known),
        }

    def per_channel(self, errors: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        statistics = super().per_channel(errors)
        if self.trim_quantile is None:
            return statistics
        return lambda prediction, truth, **weight: statistics(
            *(self.standardize(np.asarray(value, np.float64)) for value in (prediction, truth)), **weight
        )

    @property
    def full_span(self) -> tuple[float, float] | None:
        return (float(self.limits.min()), float(self.limits.max())) if self.range else None

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
