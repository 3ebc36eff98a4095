"""Fitting a value's sizes to its entry's: each axis, or a plane as a whole, is resized, cropped, padded or refused.

Shapes: *size the points along each axis.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Fit = Literal["resize", "crop", "pad", "refuse"]
ROUNDING = 1
"""Sizes that differ by at most this many points are taken as equal: halved sizes are rounded to whole points."""
FITTED = {"resize": "resized", "crop": "cut or extended at their ends", "pad": "extended at their ends"}
"""What happened to a value, for remarks."""


def by(size: Sequence[int]) -> str:
    """A size in words, 64×48."""
    return "×".join(map(str, size))


def differing(found: Sequence[int], size: Sequence[int]) -> bool:
    """Whether sizes differ by more than rounding."""
    return any(abs(n - s) > ROUNDING for n, s in zip(found, size, strict=True))


def fit_axes(value: np.ndarray, size: Sequence[int], ways: Sequence[Fit], fill: Any) -> np.ndarray:
    """Cut or extend a value (*found[, C]) along its axes, at their ends: longer axes of `crop` are cut, shorter axes of `crop` and `pad` extended.

    Other axes keep their size.

    Args:
        fill: number at the new points, or one for each channel.
    """
    cut = tuple(slice(s) if way == "crop" else slice(None) for s, way in zip(size, ways, strict=True))
    value = value[cut]
    grown = [
        max(s - n, 0) if way in ("crop", "pad") else 0
        for n, s, way in zip(value.shape[: len(size)], size, ways, strict=True)
    ]
    if not any(grown):
        return value
    shape = [n + more for n, more in zip(value.shape[: len(size)], grown, strict=True)] + list(value.shape[len(size) :])
    out = np.full(shape, fill, np.result_type(value.dtype, np.int16) if np.all(np.asarray(fill) < 0) else value.dtype)
    out[tuple(slice(n) for n in value.shape[: len(size)])] = value
    return out
