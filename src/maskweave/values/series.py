"""Series: numbers along one axis, such as joint angles over time, sensor readings or spectra, of any length up to the entry's.

Shapes: T the entry's length, n the value's own, C channels, B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.values.array import NUMBERS
from maskweave.values.base import Size, TextLabels, refuse
from maskweave.values.fitting import FITTED, Fit
from maskweave.values.geometry import Geometry
from maskweave.values.lengths import aligned, cut_end, filled_up, known_length, likely_lengths, pad_end
from maskweave.values.metrics import (
    Metric,
    Weights,
    absolute_errors,
    mean,
    mean_value,
    median,
    root_mean,
    squared_errors,
    weighable,
)
from maskweave.values.remarks import remark
from maskweave.values.scaled import ScaledNumbers
from maskweave.values.unknown import Missing


@dataclass(frozen=True)
class Series(ScaledNumbers):
    """Numbers over one axis, of any length up to the entry's size: joint angles, sensor readings, spectra."""

    type: ClassVar[str] = "series"
    python: ClassVar[str] = "float32 (length, channels), or (length,) for one channel; length is at most `size`"
    losses = NUMBERS
    blends_patches = True
    can_be_weighted = True
    head = "points"
    default_metrics = ("mae", "rmse", "length_error")

    channels: int = 1
    """Number of channels, or a list of their names, or of {name, unit}."""
    unit: str = ""
    """Unit of the numbers, for figures and messages, if all channels have the same."""
    missing: Missing = field(default=("predicted",), kw_only=True)
    """What is past the end of a series is unknown, and so is NaN. By default the model predicts it (`predicted`), so generated series have an end.
    With `nan`, it does not. Further numbers mark unknown points in files, such as `[predicted, -9999]`."""

    # The entry

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        if len(self.size) != 1:
            raise MaskweaveError(f"a series has one axis: value.size is its longest length, found {list(self.size)}")
        if not self.missing:
            raise MaskweaveError("value.missing of a series must be predicted or nan: it is unknown past its end")

    @property
    def learned(self) -> Any:
        """By default, the statistics of each channel are learned."""
        return self.scaling or (None if self.mean else "fit")

    def describe(self) -> str:
        return f"{super().describe()}, {self.channels} channel{'s' * (self.channels > 1)}"

    # Lengths

    def fit_sizes(self, value: np.ndarray, where: str) -> np.ndarray:
        """Extends shorter series by unknown points. Longer ones follow `fit`."""
        n, (length,) = len(value), self.size
        if self.axis and n != length and not self.fit:
            raise refuse(
                where,
                f"a series of {n} points without coordinates",
                f"{length}, the points of value.axis",
                "give its coordinates: name their array in value.axis.array, or pass (coordinates, values)",
            )
        way: Fit = self.ways[0]
        if n <= length:
            return pad_end(value, length)
        if way not in ("crop", "resize"):
            raise refuse(
                where,
                f"a series of {n} points",
                f"at most {length}",
                "raise value.size, or set value.fit to crop, which cuts the end, or resize, which changes its scale",
            )
        remark(f"series longer than {length} points, {'cut at their ends' if way == 'crop' else FITTED[way]}")
        return value[:length] if way == "crop" else value

    def transform(self, value: np.ndarray, geometry: Geometry) -> np.ndarray:
        return super().transform(self._extended(np.asarray(value)), geometry)

    def _extended(self, value: np.ndarray) -> np.ndarray:
        """Extends a series by unknown points, unless its points lie on an axis."""
        return value if self.axis else pad_end(value, self.size[0])

    def check_item(self, value: Any, where: str) -> np.ndarray:
        checked = self.check(self.from_python(value, where), where)
        return super().check_item(self._extended(checked), where)

    def write(self, value: Any) -> tuple[bytes, str]:
        return super().write(value if self.axis else cut_end(np.asarray(value)))

    def with_unknown(self, values: np.ndarray, logits: Tensor) -> Any:
        """Cuts each series at its most probable end, unless its points lie on an axis. A predicted series has one point at least, which is known."""
        if self.axis:
            return super().with_unknown(values, logits)
        lengths = likely_lengths(logits.mean(dim=1).cpu().numpy(), least=1)
        marked = super().with_unknown(values, logits)
        cut = [(series[:n], whole[:n]) for series, whole, n in zip(marked, values, lengths.tolist(), strict=True)]
        return [whole[:1] if np.isnan(series).all() else cut_end(series) for series, whole in cut]

    # Scores and ensembles

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`, `rmse`: over the points of the true series, per channel; a prediction that ends too early keeps its last numbers.
        `length_error`: difference of the lengths, in points; not of series on an axis."""
        names = self.channel_labels
        lengths = Metric("length error", "lower", _length_error, mean, _typical_length)
        return {
            "mae": weighable(
                "MAE", "lower", partial(self._errors, absolute_errors), mean, partial(_constant, median), names
            ),
            "rmse": weighable(
                "RMSE", "lower", partial(self._errors, squared_errors), root_mean, partial(_constant, mean_value), names
            ),
            **({} if self.axis else {"length_error": lengths}),
        }

    def _errors(self, measure: Any, prediction: Any, truth: Any, weight: np.ndarray | None = None) -> np.ndarray:
        p, t = aligned([prediction, truth])
        weight = None if weight is None else pad_end(weight, len(t))
        return measure(filled_up(np.asarray(prediction), len(p)), t, 1, weight)

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        """The mean over the known points, of the median length."""
        if self.axis:
            return super().merge(values, overlap)
        length = max(int(np.median([known_length(np.asarray(value)) for value in values])), 1)
        any_known = replace(self, missing=("nan",))
        return ScaledNumbers.merge(any_known, aligned(values), overlap)[:length]

    # Figures

    def natural_size(self) -> Size:
        return 128, 192

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        from maskweave.values.drawing import span_of

        return span_of(values, (0, 100))


def _constant(best: Any, values: Sequence[Any], weights: Weights = None) -> np.ndarray:
    return best(aligned([np.asarray(value) for value in values]), weights=None if weights is None else aligned(weights))


def _length_error(prediction: Any, truth: Any) -> np.ndarray:
    return np.array([abs(known_length(np.asarray(prediction)) - known_length(np.asarray(truth))), 1.0])


def _typical_length(values: Sequence[Any]) -> np.ndarray:
    """Zeros of the median length."""
    return np.zeros(max(int(np.median([known_length(np.asarray(value)) for value in values])), 1))
