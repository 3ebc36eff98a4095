"""Unit quaternions as a value type of another package, in one file.

`q` and `-q` are the same rotation, so values are stored with w ≥ 0, and the loss and the metric treat both as equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError
from maskweave.values.array import Array
from maskweave.values.base import Loss, Size, TextLabels, refuse
from maskweave.values.metrics import Metric, mean, pair


def rotation_loss(output: Tensor, target: Tensor) -> Tensor:
    """1 − cos²(angle / 2), averaged over the batch, for rotations (B, 4)."""
    cosine = torch.nn.functional.cosine_similarity(output, target, dim=1, eps=1e-6)
    return (1 - cosine.square()).mean()


@dataclass(frozen=True)
class Quaternion(Array):
    """A rotation as a unit quaternion."""

    type: ClassVar[str] = "quaternion"
    python: ClassVar[str] = "float32 (4,), w, x, y, z of length 1, w ≥ 0"
    kinds: ClassVar[tuple[str, ...]] = ("grid",)
    losses: ClassVar[Mapping[str, Loss]] = {"rotation": rotation_loss}
    default_metrics = ("angle",)
    mergeable = True

    order: str = "wxyz"
    """Order of the components in files: wxyz or xyzw."""

    @property
    def channels(self) -> int:
        return 4

    def check_settings(self, kind: str) -> None:
        if self.order not in ("wxyz", "xyzw"):
            raise MaskweaveError(f"value.order must be wxyz or xyzw, found {self.order!r}")

    def check(self, value: Any, where: str) -> np.ndarray:
        array = self.check_numbers(self.as_array(value, where), where)
        length = np.linalg.norm(array) if array.shape == (4,) else 0
        if not 0.9 < length < 1.1:
            raise refuse(where, f"shape {array.shape} of length {length:.3g}", "a unit quaternion (4,)")
        return array / length * np.float32(-1 if array[0] < 0 else 1)

    def parse(self, content: bytes, ending: str, where: str) -> np.ndarray:
        array = super().parse(content, ending, where)
        return np.roll(array, 1) if self.order == "xyzw" else array

    def write(self, value: Any) -> tuple[bytes, str]:
        return super().write(np.roll(value, -1) if self.order == "xyzw" else value)

    def to_network(self, values: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack(values)) if len(values) else torch.zeros(0, 4)

    def from_network(self, output: Tensor) -> np.ndarray:
        q = torch.nn.functional.normalize(output.detach().float(), dim=1).cpu().numpy()
        return np.where(q[:, :1] < 0, -q, q)

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        return {"angle": Metric("angle", "lower", _degrees, mean, lambda values: self.merge(values, 0))}

    def merge(self, values: Sequence[np.ndarray], overlap: float) -> np.ndarray:
        """The mean rotation: the eigenvector with the largest eigenvalue of the sum of outer products."""
        _, vectors = np.linalg.eigh(sum(np.outer(q, q) for q in np.asarray(values, np.float64)))
        q = vectors[:, -1]
        return (q * np.sign(q[0] or 1)).astype(np.float32)

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws the rotated axes x (red), y (green) and z (blue), viewed along z."""
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (size[1], size[0]), "white")
        pen, middle = ImageDraw.Draw(picture), (size[1] / 2, size[0] / 2)
        w, v = value[0], np.asarray(value[1:])
        for axis, color in zip(np.eye(3), ("red", "green", "blue"), strict=True):
            x, y, _ = axis + 2 * np.cross(v, np.cross(v, axis) + w * axis)
            pen.line((*middle, middle[0] * (1 + 0.9 * x), middle[1] * (1 - 0.9 * y)), fill=color, width=3)
        return np.asarray(picture)


def _degrees(prediction: Any, truth: Any) -> np.ndarray:
    p, t = pair(prediction, truth)
    return np.array([np.degrees(2 * np.arccos(min(abs(float(p @ t)), 1.0))), 1.0])
