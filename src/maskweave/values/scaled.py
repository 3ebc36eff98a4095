"""The base class of dense numbers whose channels have names, units and a scaling of their own.

Shapes: *size points, C channels, S training values.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np

from maskweave.errors import BadSample, MaskweaveError
from maskweave.values import formats
from maskweave.values.array import affine
from maskweave.values.axis import CoordinateAxis
from maskweave.values.base import ValueType, refuse
from maskweave.values.dense import DenseNumbers
from maskweave.values.formats.base import Selection
from maskweave.values.remarks import remark
from maskweave.values.scales import Scale
from maskweave.values.scaling import Statistics, check_channel_words, expand_channels, fit_statistics
from maskweave.values.variation import Variation

SCALES: Mapping[str | None, Scale] = {"fit": "linear", "fit_log": "log", "fit_asinh": "asinh"}
"""Scale of each `scaling`."""
LINEAR_PART = 1e-3
"""Part of the largest number up to which figures on an asinh scale are linear."""


@dataclass(frozen=True)
class ScaledNumbers(DenseNumbers):
    """Numbers at each point, scaled for the network channel by channel."""

    one_or_list: ClassVar[tuple[str, ...]] = ("fit", "missing", "mean", "std")
    report_facts = ("unit", "channel_names", "channel_units", "axis.name", "axis.unit")

    channel_names: tuple[str, ...] = field(default=(), kw_only=True)
    """Names of the channels, for scores and figures; by default their indices. `channels: [red, green]` and
    `channels: [{name: red, unit: W}, …]` set `channels`, `channel_names` and `channel_units` at once."""
    channel_units: tuple[str, ...] = field(default=(), kw_only=True)
    """Unit of each channel, where they differ."""
    mean: tuple[float, ...] = field(default=(), kw_only=True)
    """Mean of the values, one for all channels or one per channel: with `std`, numbers are standardized for the network."""
    std: tuple[float, ...] = field(default=(), kw_only=True)
    """Standard deviation of the values, one for all channels or one per channel."""
    scaling: Literal["fit", "fit_log", "fit_asinh"] | None = field(default=None, kw_only=True)
    """`fit`: median and robust standard deviation of each channel are learned from the training samples and stored with the tokenizer; those of raw patches in the run's entries.
    `fit_log`: the same of the logarithms, for numbers above 0 that span powers of ten; `fit_asinh`: for such numbers of both signs."""
    fitted: Statistics | None = field(default=None, kw_only=True)
    """What `scaling` learned. A run writes it into its files; leave it out of catalogs."""

    axis: CoordinateAxis | None = field(default=None, kw_only=True)
    """Coordinates of the points of values over one axis, such as wavelengths: for figures, and to resample files that have their own."""

    @classmethod
    def expand(cls, content: dict[str, Any], where: str, key: str) -> dict[str, Any]:
        """Writes short forms of an entry's settings in full; see `maskweave.config`."""
        return expand_channels(content, where, key)

    # The entry

    @property
    def learned(self) -> Literal["fit", "fit_log", "fit_asinh"] | None:
        """What is learned from training values: `scaling`, or the type's default."""
        return self.scaling

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        if self.axis:
            self.axis.check(len(self.size), math.prod(self.size))
            if self.axis.array and not self.has_unknown:
                raise MaskweaveError(
                    "value.axis.array resamples values, which are unknown where files do not reach; also set value.missing: nan or predicted"
                )
        check_channel_words(self.channel_names, self.channel_units, self.channels)
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, 1, self.channels):
            raise MaskweaveError(
                f"value.mean and value.std need one number each, or one per channel ({self.channels}), found {len(self.mean)} and {len(self.std)}"
            )
        if not np.isfinite(self.mean).all() or any(not 0 < s < np.inf for s in self.std):
            raise MaskweaveError(
                f"value.mean must be finite and value.std above 0, found {list(self.mean)} and {list(self.std)}"
            )
        if self.mean and self.scaling:
            raise MaskweaveError(
                f"value.scaling: {self.scaling} learns the mean and deviation; remove it, or value.mean and value.std"
            )
        if self.fitted and (not self.learned or len(self.fitted.center) != self.channels):
            raise MaskweaveError("value.fitted is what value.scaling learned for each channel; leave it out")

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """Names of the channels, or their indices; empty if there is one channel."""
        return () if self.channels == 1 else self.channel_names or tuple(map(str, range(self.channels)))

    def describe_range(self) -> str:
        return self.learned or ("standardized" if self.mean else super().describe_range())

    # Files

    @property
    def selection(self) -> Selection:
        columns = self.channel_names if self.channels > 1 else ()
        return replace(super().selection, coordinates=self.axis.array if self.axis else "", columns=columns)

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        """Values of files with coordinates are resampled onto the axis. Arrays in npy files lie on it."""
        if not self.axis or not self.axis.array or ending == "npy":
            return super().parse(content, ending, where)
        try:
            coordinates = formats.read(content, ending, where, Selection(self.axis.array, axes=1)).numbers()
        except BadSample as error:
            raise BadSample(str(error).replace("value.array", "value.axis.array")) from error
        return self.on_axis(super().parse(content, ending, where), coordinates, where)

    def from_python(self, value: Any, where: str) -> np.ndarray:
        """Takes also a tuple of coordinates and values, if the entry has an axis."""
        if self.axis and isinstance(value, tuple) and len(value) == 2:
            coordinates, array = (super(ScaledNumbers, self).from_python(part, where) for part in value)
            return self.on_axis(array, coordinates, where)
        return super().from_python(value, where)

    def on_axis(self, array: np.ndarray, coordinates: np.ndarray, where: str) -> np.ndarray:
        """Returns an array (n[, C]) with coordinates (n,) at the points of the axis."""
        assert self.axis is not None
        if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
            raise refuse(where, f"an array of shape {array.shape}", f"(points, {self.channels}) or (points,)")
        remark(f"values resampled onto {self.size[0]} points of the axis {self.axis.name}".rstrip())
        return self.axis.resampled(array, coordinates, self.size[0], where)

    # Checks

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        array = self.finite(array, where)
        if self.learned == "fit_log" and not (array > 0)[self.known(array)].all():
            raise refuse(
                where,
                f"{np.nanmin(array):.6g}",
                "numbers above 0",
                "the entry's value.scaling is fit_log; use fit_asinh",
            )
        return array

    # Learned statistics

    def fit_to(self, values: np.ndarray) -> Self:
        """Returns the value type with the statistics of its `scaling`, learned from checked training values (S, *size[, C]); itself if there is
        nothing to learn."""
        if not self.learned or self.fitted:
            return self
        return replace(self, fitted=fit_statistics(np.asarray(values), SCALES[self.learned], self.channels))

    def fitted_like(self, other: ValueType) -> Self:
        found = getattr(other, "fitted", None)
        return replace(self, fitted=found) if self.learned and found else self

    # Networks

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.mean:
            return super().factor_shift
        std = np.asarray(self.std, np.float64)
        return (1 / std).astype(np.float32), (-np.asarray(self.mean) / std).astype(np.float32)

    def scale(self, array: np.ndarray) -> np.ndarray:
        if self.learned:
            return self._statistics.scale(array, SCALES[self.learned])
        if self.mean:  # in float64, as numbers may be far from 0
            return ((array - np.asarray(self.mean, np.float64)) / np.asarray(self.std, np.float64)).astype(np.float32)
        return affine(array, *self.factor_shift)

    def unscale(self, array: np.ndarray) -> np.ndarray:
        if self.learned:
            out = self._statistics.unscale(array, SCALES[self.learned])
        elif self.mean:
            out = array * np.asarray(self.std, np.float64) + np.asarray(self.mean, np.float64)
        else:
            factor_C, shift_C = self.factor_shift
            out = (array - shift_C) / factor_C
        return self.python_form(out)

    def python_form(self, array: np.ndarray) -> np.ndarray:
        """Returns numbers (..., C) as float32, without the last axis if there is one channel."""
        limit = np.finfo(np.float32).max
        out = np.clip(array, -limit, limit).astype(np.float32)
        return out[..., 0] if self.channels == 1 else out

    @property
    def _statistics(self) -> Statistics:
        if self.fitted is None:
            raise MaskweaveError(
                f"value.scaling: {self.learned} is learned in a run from its training samples, and was not here; give value.mean and value.std instead"
            )
        return self.fitted

    def with_noise(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        if not variation.noise or not self.learned or self.fitted:
            return super().with_noise(value, variation)
        return self.fit_to(value).with_noise(value, variation)  # without a tokenizer, by the value's own deviation

    # Scores

    def per_channel(self, errors: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        """Returns statistics of a metric for each channel, (2, C)."""
        return partial(errors, axes=len(self.size))

    def figure_scale(self, span: tuple[float, float]) -> tuple[Scale, float]:
        """That of `scaling`; without learned statistics, asinh is linear up to a thousandth of the largest number."""
        scale = SCALES.get(self.learned, "linear")
        if scale == "log" and span[0] <= 0:
            return "linear", 1.0
        if scale == "asinh":
            return scale, float(np.median(self.fitted.softening)) if self.fitted else LINEAR_PART * max(map(abs, span))
        return scale, 1.0

    def curve_names(self) -> Sequence[str]:
        """Name and unit of each channel, for figures; empty if neither is known."""
        if not (self.channel_names or self.channel_units):
            return ()
        units = self.channel_units or (self.unit,) * self.channels
        names = self.channel_names or tuple(map(str, range(self.channels)))
        return [f"{name} ({unit})" if unit else name for name, unit in zip(names, units, strict=True)]

    def curve_points(self) -> tuple[np.ndarray, str, bool, Sequence[str]]:
        points, label, is_log, _ = super().curve_points()
        if self.axis:
            points, label, is_log = self.axis.points(self.size[0]), self.axis.label, self.axis.scale == "log"
        return points, label, is_log, self.channel_units
