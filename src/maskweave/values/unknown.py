"""Unknown points of dense values: NaN in arrays of numbers, −1 in arrays of ids. Losses, resizing and figures skip them.

Shapes: B batch, C channels, T frames; *size the points.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from maskweave.values.losses import negative_cosine

UNKNOWN_ID = -1
MOSTLY = 0.5
"""A resized point is known if at least this share of its area is."""
Missing = tuple[Literal["nan", "predicted"] | float, ...]
"""Numbers that mark unknown points in files; NaN is written as "nan". "predicted": tokens whose points are all unknown are predicted, too."""


def as_missing(numbers: Sequence[Literal["nan", "predicted"] | float]) -> Missing:
    """Returns the numbers with NaN as text: NaN does not equal itself, but entries are compared."""
    return tuple("nan" if n != n else n for n in numbers)


def mark(array: np.ndarray, numbers: Missing) -> np.ndarray:
    """Returns a file's numbers as float32, NaN where they are one of `numbers`."""
    out = array.astype(np.float32)
    for number in numbers:
        if not isinstance(number, str):
            out[array == number] = np.nan
    return out


def known_points(array: np.ndarray) -> np.ndarray:
    """Which elements of an array of numbers or ids are known, bool."""
    return ~np.isnan(array) if array.dtype.kind == "f" else np.asarray(array != UNKNOWN_ID)


def resize_known(resize: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """Resize an array of numbers by the mean over the known part of each resized point; NaN where less than `MOSTLY` of it is known."""
    known = known_points(array)
    if known.all():
        return resize(array)
    share = resize(known.astype(np.float32))
    total = resize(np.where(known, array, 0).astype(np.float32))
    return np.where(share >= MOSTLY, total / np.maximum(share, MOSTLY), np.nan).astype(np.float32)


def with_validity(x: Tensor) -> Tensor:
    """Replace NaN by 0 in the input of a network, (B, C, *size), and append a validity channel for each channel: 1 where it is known, else −1."""
    unknown = x.isnan()
    return torch.cat([x.masked_fill(unknown, 0), 1 - 2 * unknown.to(x.dtype)], dim=1)


def over_known(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns the loss over the known elements of a target (B, C, *size), or its known vectors if it compares vectors; 0 if there are none."""

    def masked(output: Tensor, target: Tensor, *weight: Tensor) -> Tensor:
        known = ~target.isnan()
        given = (output, target, *weight)
        if loss is negative_cosine:
            known, given = known.all(dim=1), tuple(x.movedim(1, -1) for x in given)
        return loss(*(x[known] for x in given)) if bool(known.any()) else output.sum() * 0

    return masked
