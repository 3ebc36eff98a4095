"""The base class of values that are arrays of numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError, reason, shown
from maskweave.values import files, formats
from maskweave.values.base import Loss, ValueType, refuse
from maskweave.values.formats.base import Selection, Stored
from maskweave.values.losses import mse, negative_cosine, smooth_l1
from maskweave.values.variation import Variation

MAX_CHANNELS = 2**16
NUMBERS: Mapping[str, Loss] = {"smooth_l1": smooth_l1, "mse": mse, "cosine": negative_cosine}
"""Losses for numbers, by name."""


@dataclass(frozen=True)
class Array(ValueType):
    """Arrays of numbers."""

    accepts: ClassVar[tuple[str, str]] = ("fiu", "numbers")
    """NumPy dtype kinds that a value may have, and their name in messages."""
    mergeable: ClassVar[bool] = True

    array: str | tuple[str, ...] = field(default="", kw_only=True)
    """Array to read from files that hold several: key of an npz file, dataset of an HDF5, NetCDF or Zarr file, HDU or column of a FITS file,
    column of a csv file. Not needed if a file holds only one ([files.md](files.md)). Of values with a `size`, a list of arrays of one size has one for
    each channel."""

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        """The part of `check` that checks the numbers of an array of the right type and shape."""
        return finite(array, where)

    def from_python(self, value: Any, where: str) -> np.ndarray:
        return as_numbers(of_tensor(value, where), where)

    def as_array(self, value: Any, where: str) -> np.ndarray:
        """Returns the value as an array of an accepted type, or raises BadSample."""
        array = as_numbers(value, where)
        if array.dtype.kind not in self.accepts[0]:
            raise refuse(where, f"values of type {array.dtype}", f"{self.accepts[1]} for a value of type {self.type!r}")
        return array

    @property
    def endings(self) -> tuple[str, ...]:
        return formats.array_endings(len(self.size), self.channels)

    @property
    def selection(self) -> Selection:
        """What is read from a file."""
        name = self.array if isinstance(self.array, str) else ""
        return Selection(name, axes=len(self.size), channels=self.channels)

    def stored(self, content: bytes, ending: str, where: str) -> Stored:
        """Returns the array in a file's bytes as stored, and which points the file marks as missing."""
        if isinstance(self.array, str) or ending in formats.UNNAMED:
            return formats.read(content, ending, where, self.selection)
        each = replace(self.selection, channels=1, columns=())
        return stacked(
            {name: formats.read(content, ending, where, replace(each, array=name)) for name in self.array}, where
        )

    def check_array_names(self) -> None:
        """Raise MaskweaveError unless `array` is a name, or one for each of several channels of a dense value."""
        if not isinstance(self.array, str) and not (self.size and len(self.array) == self.channels > 1):
            raise MaskweaveError(
                f"value.array may list one array for each channel of values with a size, found {len(self.array)} arrays and {self.channels} channels; name one array"
            )

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        return self.stored(content, ending, where).numbers()

    def write(self, value: Any) -> tuple[bytes, str]:
        return files.write_npy(value), "npy"

    def normalize_rows(self, rows: np.ndarray) -> np.ndarray:
        return self.scale(rows.reshape(-1, self.channels)).reshape(rows.shape)

    def scale(self, array: np.ndarray) -> np.ndarray:
        """Scales values (…, C) for the network, float32."""
        return affine(array, *self.factor_shift)

    def unscale(self, array: np.ndarray) -> np.ndarray:
        """The reverse of `scale`, in the Python form."""
        factor_C, shift_C = self.factor_shift
        return ((array - shift_C) / factor_C).astype(np.float32)

    def with_noise(self, value: np.ndarray, variation: Variation) -> np.ndarray:
        """Returns a checked value with the variation's noise."""
        if not variation.noise:
            return value
        scaled = self.scale(value.reshape(-1, self.channels))
        return self.unscale(scaled + variation.gaussian(scaled.shape)).reshape(value.shape)

    @property
    def factor_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor and shift that scale a value for the network, per channel or for all channels."""
        return np.ones(1, np.float32), np.zeros(1, np.float32)

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        return np.mean(np.stack(values), axis=0, dtype=np.float64).astype(values[0].dtype)

    def spread(self, values: Sequence[np.ndarray]) -> np.ndarray | None:
        if not self.size or len({value.shape for value in values}) > 1:
            return None
        variance = np.var(np.stack(values), axis=0, dtype=np.float64)
        return np.sqrt(variance if variance.ndim == len(self.size) else variance.mean(axis=-1)).astype(np.float32)


def of_tensor(value: Any, where: str) -> Any:
    """Returns a tensor of any device and layout as an array; other values as they are.

    Raises:
        BadSample: the tensor cannot be an array, for instance because it has no content.
    """
    if not isinstance(value, Tensor):
        return value
    try:
        value = value.detach().cpu().resolve_conj().resolve_neg()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise refuse(
            where, f"a tensor that cannot become an array ({reason(error)})", "a dense tensor or an array"
        ) from error


def as_numbers(value: Any, where: str) -> np.ndarray:
    """Returns an array of numbers or booleans; raises BadSample for anything else, such as text or rows of different lengths."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # rows of different lengths
        array = None
    if array is None or array.dtype.kind not in "biuf":
        raise refuse(where, shown(value), "an array of numbers, all rows of one length")
    return array


def stacked(arrays: Mapping[str, Stored], where: str) -> Stored:
    """Returns arrays of one shape as the channels of one array.

    Raises:
        BadSample: their shapes differ.
    """
    shapes = {name: stored.array.shape for name, stored in arrays.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise refuse(where, f"arrays of the shapes {found}", "one shape", "correct the entry's value.array")
    parts = list(arrays.values())
    known = None
    if any(part.known is not None for part in parts):
        known = np.stack([np.ones(p.array.shape, bool) if p.known is None else p.known for p in parts], axis=-1)
    return Stored(np.stack([part.array for part in parts], axis=-1), known)


def as_rate(value: Any) -> float:
    """Returns a rate that a user passes as a number; NaN if it is none."""
    try:
        return np.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def has_rate(value: Any) -> bool:
    """Whether a value is a pair whose second item is no array: an array and its rate."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and not isinstance(value[1], (list, tuple))
        and np.ndim(value[1]) == 0
    )


def finite(array: np.ndarray, where: str, unknown: bool = False, advice: str = "") -> np.ndarray:
    """Returns the array as float32; raises BadSample for infinite values, and for NaN.

    Args:
        unknown: NaN is allowed, for unknown points.
        advice: what to do about NaN.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 becomes infinite and is refused below
        array = array.astype(np.float32)
    bad = np.isinf(array) if unknown else ~np.isfinite(array)
    if bad.any():
        raise refuse(
            where,
            f"{int(bad.sum())} of {array.size} values {'' if unknown else 'NaN or '}infinite",
            "finite numbers",
            advice or "fill or crop these points, or leave the file out",
        )
    return array


def affine(array: np.ndarray, factor_C: np.ndarray, shift_C: np.ndarray) -> np.ndarray:
    """Returns array · factor + shift as float32."""
    out = array.astype(np.float32)  # a copy, so the rest works in place
    out *= factor_C
    out += shift_C
    return out


def check_channels(value: Any, allowed: tuple[int, ...]) -> None:
    """Raise MaskweaveError unless an entry has one of these numbers of channels."""
    if value.channels not in allowed:
        raise MaskweaveError(
            f"values of type {value.type!r} have {' or '.join(map(str, allowed))} channels, found value.channels {value.channels}"
        )


def check_range(low: float, high: float, what: str) -> None:
    """Raise MaskweaveError unless low and high are finite and low is below high."""
    if not -np.inf < low < high < np.inf:
        raise MaskweaveError(f"{what} must be [lowest, highest], both finite, found [{low}, {high}]")
