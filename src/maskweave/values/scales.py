"""Scales of numbers: linear, logarithmic, and asinh, which is linear around 0 and logarithmic far from it, on both sides.

Errors, averages and bins of values that span several powers of ten are meaningful on a logarithmic scale only.
"""

from typing import Any, Literal

import numpy as np

from maskweave.errors import MaskweaveError

Scale = Literal["linear", "log", "asinh"]


def to_scale(x: Any, scale: Scale, softening: float = 1.0) -> np.ndarray:
    """Returns numbers on a scale, float64: x, log10(x), or asinh(x / softening) / ln(10), which is close to ±log10(2|x| / softening) far from 0."""
    x = np.asarray(x, np.float64)
    match scale:
        case "log":
            return np.log10(x)
        case "asinh":
            return np.arcsinh(x / softening) / np.log(10)
        case _:
            return x


def from_scale(y: Any, scale: Scale, softening: float = 1.0) -> np.ndarray:
    """The reverse of `to_scale`."""
    y = np.asarray(y, np.float64)
    match scale:
        case "log":
            return np.power(10.0, y)
        case "asinh":
            return np.sinh(y * np.log(10)) * softening
        case _:
            return y


def check_scale(scale: Scale, softening: float, low: float | None, where: str) -> None:
    """Raise MaskweaveError if a scale cannot hold the lowest value (None: unknown), or if the softening is not above 0."""
    if not 0 < softening < np.inf:
        raise MaskweaveError(f"{where}softening must be a number above 0, found {softening}")
    if scale == "log" and low is not None and low <= 0:
        raise MaskweaveError(
            f"{where}scale 'log' needs a range above 0, found the lowest value {low:g}; raise it, or use 'asinh'"
        )
