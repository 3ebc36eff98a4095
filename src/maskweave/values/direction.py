"""Unit vectors at each point: surface normals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from maskweave.values.array import NUMBERS, check_channels
from maskweave.values.base import Loss, TextLabels, refuse
from maskweave.values.dense import UnknownNumbers
from maskweave.values.geometry import Geometry, nearest_along_axes, resize_area, resize_axes, resize_nearest
from maskweave.values.metrics import Metric, angles, geodesic_median, mean
from maskweave.values.unknown import resize_known

LENGTHS = (0.9, 1.1)
"""Vectors of other lengths are refused."""
ROUNDING = 1e-3
"""Lengths this close to 1 are kept, as rounding (of half precision, for instance); others within `LENGTHS` are scaled to 1."""


@dataclass(frozen=True)
class Direction(UnknownNumbers):
    """Unit vectors in the camera frame: x right, y up, z towards the viewer."""

    type: ClassVar[str] = "direction"
    python: ClassVar[str] = "float32 (*size, 3), unit vectors in the camera frame: x right, y up, z towards the viewer"
    accepts: ClassVar[tuple[str, str]] = ("f", "numbers")
    losses: ClassVar[Mapping[str, Loss]] = {name: NUMBERS[name] for name in ("cosine", "mse", "smooth_l1")}
    head = "points"
    default_metrics = ("angle",)

    channels: int = 3

    def check_settings(self, kind: str) -> None:
        super().check_settings(kind)
        check_channels(self, (3,))

    def with_unknown(self, values: np.ndarray, logits: Tensor) -> np.ndarray:
        """A direction is known as a whole."""
        return super().with_unknown(values, logits.mean(dim=1, keepdim=True).expand_as(logits))

    def describe_range(self) -> str:
        return "unit vectors"

    def check_numbers(self, array: np.ndarray, where: str) -> np.ndarray:
        array = self.finite(array, where)
        if self.has_unknown:  # a vector is known as a whole
            array = np.where(np.isnan(array).any(axis=-1, keepdims=True), np.float32(np.nan), array)
        length = np.linalg.norm(array, axis=-1, keepdims=True)
        if np.isnan(length).all():
            return array
        shortest, longest = float(np.nanmin(length)), float(np.nanmax(length))
        if shortest < LENGTHS[0] or longest > LENGTHS[1]:
            raise refuse(
                where,
                f"vectors of length {shortest:.3g} to {longest:.3g}",
                "unit vectors (x right, y up, z towards the viewer)",
                "divide each by its length",
            )
        return array if shortest > 1 - ROUNDING and longest < 1 + ROUNDING else array / length

    def resized(self, value: np.ndarray, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return resize(value)  # which takes means over known points before it scales to length 1

    def resize(self, plane: np.ndarray, geometry: Geometry) -> np.ndarray:
        mean = resize_known(lambda part: resize_area(part, self.size, geometry), plane)
        return _unit(mean, resize_nearest(plane, self.size, geometry))

    def mirror(self, plane: np.ndarray) -> np.ndarray:
        out = super().mirror(plane)
        out[..., 0] *= -1
        return out

    def resize_axes(self, value: np.ndarray) -> np.ndarray:
        mean = resize_known(lambda part: resize_axes(part, self.size), value)
        return _unit(mean, nearest_along_axes(value, self.size))

    def from_network(self, output: Tensor) -> np.ndarray:
        x = output.detach().float().movedim(1, -1)
        return F.normalize(x, dim=-1, eps=1e-6).contiguous().cpu().numpy()

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`angle`: mean angle in degrees."""
        return {"angle": Metric("angle", "lower", angles, mean, geodesic_median)}

    def from_blend(self, mean: np.ndarray) -> np.ndarray:
        out = _unit(mean, np.array([0, 0, 1], np.float32))
        return (
            out.astype(np.float32) if not self.has_unknown else np.where(np.isnan(mean), np.nan, out).astype(np.float32)
        )

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        return _unit(super().merge(values, overlap), values[0]).astype(values[0].dtype)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        from maskweave.values.drawing import to_bytes

        return to_bytes((np.nan_to_num(array) + 1) / 2)

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import swatches

        axes = {"x right": (1, 0, 0), "y up": (0, 1, 0), "z to viewer": (0, 0, 1)}
        return swatches([(name, tuple(round(127.5 * (a + 1)) for a in axis)) for name, axis in axes.items()], width)


def _unit(vectors: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; vectors that canceled to 0 are taken from `instead`, and unknown ones stay unknown."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length <= 1e-3, instead, vectors / np.maximum(length, 1e-3)).astype(np.float32)
