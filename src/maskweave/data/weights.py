"""Weights of a sample's values, which another modality holds (the entry's `weight`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.modality.entry import Modality
from maskweave.values.geometry import nearest_along_axes
from maskweave.values.metrics import Weights
from maskweave.values.weights import Weighting


def weights_of(sample: Mapping[str, Any], entry: Modality) -> np.ndarray:
    """Returns the raw weight of each number of a fitted value, float32 in its shape: 0 where it is unknown or the weight is not above 0; NaN if the sample has no weights.

    Args:
        sample: has a value of the entry.
        entry: has `weight`, and no `source`.
    """
    value = np.asarray(sample[entry.name])
    if (weight := sample.get(entry.weight)) is None:
        return np.full(value.shape, np.nan, np.float32)
    axes = len(entry.value.size)
    raw = nearest_along_axes(np.asarray(weight), value.shape[:axes]) if axes else np.asarray(weight)
    raw = raw if raw.ndim == value.ndim else raw[..., None]
    return np.where((raw > 0) & entry.value.known(value), raw, 0).astype(np.float32)


def scaled_weights_of(samples: Sequence[Mapping[str, Any]], entry: Modality) -> Weights:
    """Returns the weights of the values of several samples, scaled together; None if the entry has none. Arguments as for `weights_of`."""
    return scaled_together([weights_of(sample, entry) for sample in samples], entry) if entry.weight else None


def scaled_together(raw: Sequence[np.ndarray] | None, entry: Modality | None) -> Weights:
    """Returns raw weights of several values of an entry, scaled together; None if there are none."""
    if raw is None or entry is None:
        return None
    weighting = Weighting.fit(raw, entry.value.channels)
    return [weighting(each) for each in raw]
