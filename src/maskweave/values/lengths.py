"""Values of varying length along their first axis: what is past the end of a shorter one is unknown.

Shapes: B batch, T the entry's length, n the value's own, C channels.
"""

from collections.abc import Sequence

import numpy as np


def known_length(array: np.ndarray) -> int:
    """Returns the length of a value (n[, C]) without the unknown points at its end."""
    known = ~np.isnan(array.reshape(len(array), -1)).all(axis=1)
    return int(np.flatnonzero(known)[-1]) + 1 if known.any() else 0


def cut_end(array: np.ndarray) -> np.ndarray:
    """Returns a value without the unknown points at its end; of a value without any known point, the first point is left."""
    return array[: max(known_length(array), 1)]


def pad_end(array: np.ndarray, length: int) -> np.ndarray:
    """Returns a value (n[, C]) extended by unknown points to a length, as floats; longer values stay as they are."""
    if len(array) >= length:
        return array
    out = np.full((length, *array.shape[1:]), np.nan, np.result_type(array.dtype, np.float32))
    out[: len(array)] = array
    return out


def likely_lengths(logits_BT: np.ndarray, least: int = 0) -> np.ndarray:
    """Returns the most probable length of each value (B,), given the logit that each point is known and that known points come first: the n with
    the largest sum of the logits before n, minus those from n on.

    Args:
        least: shortest length.
    """
    gain = np.concatenate([np.zeros((len(logits_BT), 1)), np.cumsum(logits_BT, axis=1, dtype=np.float64)], axis=1)
    return gain[:, least:].argmax(axis=1) + least


def mostly_known_length(known_share_T: np.ndarray) -> int:
    """Returns the length up to the last frame of which at least half is known, at least 1."""
    frames = np.flatnonzero(known_share_T >= 0.5)
    return int(frames[-1]) + 1 if len(frames) else 1


def filled_up(array: np.ndarray, length: int) -> np.ndarray:
    """Returns a value (n[, C]) at a length, with the nearest known number of the channel at unknown points; 0 in channels that are unknown."""
    rows = pad_end(np.asarray(array, np.float64), length)
    flat = rows.reshape(len(rows), -1).copy()
    points = np.arange(len(flat))
    for c in range(flat.shape[1]):
        known = np.flatnonzero(np.isfinite(flat[:, c]))
        if len(known):
            after = known[np.searchsorted(known, points).clip(max=len(known) - 1)]
            before = known[(np.searchsorted(known, points, "right") - 1).clip(min=0)]
            flat[:, c] = flat[np.where(np.abs(after - points) < np.abs(points - before), after, before), c]
        else:
            flat[:, c] = 0
    return flat.reshape(rows.shape)


def aligned(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns values extended by unknown points to the longest of them."""
    longest = max(map(len, values))
    return [pad_end(np.asarray(value), longest) for value in values]
