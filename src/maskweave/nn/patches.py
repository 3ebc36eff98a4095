"""Split arrays over a grid of one to three axes into patches, and join patches again.

A patch is flattened as (row, column, channel), as in the published 4M files. Works on NumPy arrays and on tensors.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def patchify(array: Array, grid: Sequence[int]) -> Array:
    """(B, *size, C) to (B, tokens, patch · C): one token for each grid position, row by row. `grid` must divide `size`."""
    B, *size, C = array.shape
    split = [n for s, g in zip(size, grid, strict=True) for n in (g, s // g)]
    order = (0, *range(1, 2 * len(size), 2), *range(2, 2 * len(size) + 1, 2), 2 * len(size) + 1)
    tokens = math.prod(grid)
    return _permute(array.reshape(B, *split, C), order).reshape(B, tokens, math.prod(size) // tokens * C)


def unpatchify(rows: Array, grid: Sequence[int], patch: Sequence[int]) -> Array:
    """(B, tokens, patch · C) to (B, *size, C), the reverse of `patchify`."""
    B, C = rows.shape[0], rows.shape[-1] // math.prod(patch)
    order = (0, *(n for k in range(1, len(grid) + 1) for n in (k, len(grid) + k)), 2 * len(grid) + 1)
    size = [g * p for g, p in zip(grid, patch, strict=True)]
    return _permute(rows.reshape(B, *grid, *patch, C), order).reshape(B, *size, C)


def _permute(array: Array, order: tuple[int, ...]) -> Array:
    return array.permute(order) if isinstance(array, Tensor) else array.transpose(order)
