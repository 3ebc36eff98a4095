"""The base class of dense numbers whose channels have names, units and a scaling of their own.

Shapes: *size points, C channels, S training values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from maskweave.errors import MaskweaveError
from maskweave.values.array import affine
from maskweave.values.base import ValueType, refuse
from maskweave.values.dense import DenseNumbers
from maskweave.values.scales import Scale
from maskweave.values.scaling import Statistics, check_channel_words, expand_channels, fit_statistics
from maskweave.values.variation import Variation

SCALES: Mapping[str | None, Scale] = {"fit": "linear", "fit_log": "log", "fit_asinh": "asinh"}
"""Scale of each `scaling`."""


@dataclass(frozen=True)
class ScaledNumbers(DenseNumbers):
    """Numbers at each point, scaled for the network channel by channel."""

    one_or_list: ClassVar[tuple[str, ...]] = ("fit", "missing", "mean", "std")
    report_facts = ("unit", "channel_names", "channel_units")

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
    """`fit`: median and robust standard deviation of each channel are learned from the training samples and stored with the tokenizer.
    `fit_log`: the same of the logarithms, for numbers above 0 that span powers of ten; `fit_asinh`: for such numbers of both signs."""
    fitted: Statistics | None = field(default=None, kw_only=True)
    """What `scaling` learned. Training writes it into the tokenizer's files; leave it out of catalogs."""

    @classmethod
    def expand(cls, content: dict[str, Any], where: str, key: str) -> dict[str, Any]:
        """Writes short forms of an entry's settings in full; see `maskweave.config`."""
        return expand_channels(content, where, key)

    # The entry

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
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
        if self.scaling and kind == "patches":
            raise MaskweaveError(
                f"value.scaling: {self.scaling} is learned with a tokenizer, which patches do not have; give value.mean and value.std, or make it a grid"
            )
        if self.fitted and (not self.scaling or len(self.fitted.center) != self.channels):
            raise MaskweaveError("value.fitted is what value.scaling learned for each channel; leave it out")

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """Names of the channels, or their indices; empty if there is one channel."""
        return () if self.channels == 1 else self.channel_names or tuple(map(str, range(self.channels)))

    def describe_range(self) -> str:
        return self.scaling or ("standardized" if self.mean else super().describe_range())

    # Checks

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        array = self.finite(array, where)
        if self.scaling == "fit_log" and not (array > 0)[self.known(array)].all():
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
        if not self.scaling or self.fitted:
            return self
        return replace(self, fitted=fit_statistics(np.asarray(values), SCALES[self.scaling], self.channels))

    def fitted_like(self, other: ValueType) -> Self:
        if not self.scaling or self.fitted:
            return self
        return replace(self, fitted=getattr(other, "fitted", None))

    # Networks

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.mean:
            return super().factor_shift
        std = np.asarray(self.std, np.float64)
        return (1 / std).astype(np.float32), (-np.asarray(self.mean) / std).astype(np.float32)

    def scale(self, array: np.ndarray) -> np.ndarray:
        if self.scaling:
            return self._statistics.scale(array, SCALES[self.scaling])
        if self.mean:  # in float64, as numbers may be far from 0
            return ((array - np.asarray(self.mean, np.float64)) / np.asarray(self.std, np.float64)).astype(np.float32)
        return affine(array, *self.factor_shift)

    def unscale(self, array: np.ndarray) -> np.ndarray:
        if self.scaling:
            out = self._statistics.unscale(array, SCALES[self.scaling])
        elif self.mean:
            out = array * np.asarray(self.std, np.float64) + np.asarray(self.mean, np.float64)
        else:
            factor_C, shift_C = self.factor_shift
            out = (array - shift_C) / factor_C
        return self.python_form(out)

    def with_noise(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        """The noise is relative to the learned deviations, or to those of the value itself before they are learned."""
        if variation.noise and self.scaling and not self.fitted:
            return self.fit_to(value[None]).with_noise(value, variation)
        return super().with_noise(value, variation)

    def python_form(self, array: np.ndarray) -> np.ndarray:
        """Returns numbers (..., C) as float32, without the last axis if there is one channel."""
        limit = np.finfo(np.float32).max
        out = np.clip(array, -limit, limit).astype(np.float32)
        return out[..., 0] if self.channels == 1 else out

    @property
    def _statistics(self) -> Statistics:
        if self.fitted is None:
            raise MaskweaveError(
                f"value.scaling: {self.scaling} is learned when a tokenizer is trained, and here is none; give value.mean and value.std instead"
            )
        return self.fitted

    # Scores

    def per_channel(self, errors: Callable[[Any, Any, int], np.ndarray]) -> Callable[[Any, Any], np.ndarray]:
        """Returns statistics of a metric for each channel, (2, C)."""
        return lambda prediction, truth: errors(prediction, truth, len(self.size))

    def curve_names(self) -> Sequence[str]:
        """Name and unit of each channel, for figures; empty if neither is known."""
        if not (self.channel_names or self.channel_units):
            return ()
        units = self.channel_units or (self.unit,) * self.channels
        names = self.channel_names or tuple(map(str, range(self.channels)))
        return [f"{name} ({unit})" if unit else name for name, unit in zip(names, units, strict=True)]
