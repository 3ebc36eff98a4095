"""Features of raw inputs for heads of a whole sample: what a linear model needs to do what the simplest methods do, beside the encoder's features.

Kinds, each over known points only:
    channels: mean and standard deviation of each channel;
    rows: the same of each row of a plane (each frequency of a spectrogram), along its columns;
    parts: the mean of each channel in equal parts of the value, as many as it has tokens. Along the last axis the parts divide what is known, so that a
        word spoken slowly looks like the same word spoken fast; the known share of that axis is a feature too;
    shape: the parts of a value of one axis, of each channel less their mean and divided by their deviation, so that a faint spectrum looks like a bright one.

Dimension letters: B samples, C channels, H rows, W length of the last axis, F features.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RawKind = Literal["channels", "rows", "parts", "shape"]
MOST_ROWS, MOST_PARTS = 512, 2048
"""Most features of a kind of one input; otherwise the kind is left out."""
_POOL: dict[int, Callable[[Tensor, Any], Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


@dataclass(frozen=True)
class RawFeatures:
    """The features of one raw input.

    Args:
        channels: C.
        size: points along each axis.
        parts: parts along each axis.
    """

    channels: int
    size: tuple[int, ...]
    parts: tuple[int, ...]

    @property
    def counts(self) -> dict[RawKind, int]:
        """Number of features of each kind."""
        counts: dict[RawKind, int] = {"channels": 2 * self.channels}
        if len(self.size) == 2 and 2 * self.channels * self.size[0] <= MOST_ROWS:
            counts["rows"] = 2 * self.channels * self.size[0]
        parts = self.channels * math.prod(self.parts)
        if len(self.parts) == len(self.size) and math.prod(self.parts) > 1 and parts < MOST_PARTS:
            counts["parts"] = parts + 1
            if len(self.size) == 1 and self.parts[0] > 2:
                counts["shape"] = parts
        return counts

    def __call__(self, raw: Tensor) -> dict[RawKind, Tensor]:
        """Returns (B, F) of each kind for values (B, C, *size), NaN at unknown points; NaN where nothing is known."""
        found: dict[RawKind, Tensor] = {"channels": mean_and_deviation(raw.flatten(2))}
        if "rows" in self.counts:
            found["rows"] = mean_and_deviation(raw.flatten(1, 2))
        if "parts" in self.counts:
            found["parts"] = self._parts(raw)
        if "shape" in self.counts:
            found["shape"] = self._shape(found["parts"])
        return found

    def _shape(self, parts: Tensor) -> Tensor:
        """Returns the shape of the `parts` of a value. Legend: P parts."""
        parts_BCP = parts[:, :-1].unflatten(1, (self.channels, -1))
        mean, deviation = mean_and_deviation(parts_BCP).unflatten(1, (2, self.channels)).unbind(1)
        return ((parts_BCP - mean[..., None]) / deviation.clamp_min(1e-6)[..., None]).flatten(1)

    def _parts(self, raw: Tensor) -> Tensor:
        known_BW = ~raw.isnan().flatten(1, -2).all(dim=1)
        width = known_BW.shape[1]
        length_B = (known_BW * torch.arange(1, width + 1, device=raw.device)).amax(dim=1).clamp_min(1)
        lengths = length_B.tolist()  # one device sync for the batch; values of one length are pooled together
        groups = {length: [i for i, n in enumerate(lengths) if n == length] for length in dict.fromkeys(lengths)}
        pool, order = _POOL[len(self.size)], [i for rows in groups.values() for i in rows]
        means = []
        for length, rows in groups.items():
            value = (raw if len(groups) == 1 else raw[rows])[..., :length]
            known = ~value.isnan()
            share = pool(known.to(value.dtype), self.parts)
            means.append((pool(value.masked_fill(~known, 0), self.parts) / share).flatten(1))
        mean = torch.cat(means)
        if len(groups) > 1:
            mean = mean[np.argsort(order).tolist()]
        return torch.cat([mean, (length_B / width).to(mean.dtype)[:, None]], dim=1)


def block_sizes(features: Mapping[str, RawFeatures]) -> dict[str, int]:
    """Returns the number of features of each kind that some input has."""
    sizes = {kind: sum(found.counts.get(kind, 0) for found in features.values()) for kind in get_args(RawKind)}
    return {kind: size for kind, size in sizes.items() if size}


def raw_blocks(features: Mapping[str, RawFeatures], raw: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the features of each kind that some input has, of all inputs, (B, F) each."""
    found = [of_input(raw[name]) for name, of_input in features.items()]
    return [torch.cat([kinds[kind] for kinds in found if kind in kinds], dim=1) for kind in block_sizes(features)]


def mean_and_deviation(x_BGP: Tensor) -> Tensor:
    """Returns (B, 2 G), the mean and the standard deviation of each group of points (B, G, P), skipping NaN; NaN for groups of nothing else."""
    known = ~x_BGP.isnan()
    count = known.sum(dim=-1).clamp_min(1)
    x_BGP = x_BGP.masked_fill(~known, 0)
    mean = x_BGP.sum(dim=-1) / count
    deviation = ((x_BGP - mean[..., None]).square() * known).sum(dim=-1) / count
    found = torch.cat([mean, deviation.sqrt()], dim=1)
    return found.masked_fill(~known.any(dim=-1).repeat(1, 2), torch.nan)
