"""Variations: changes of a value that keep its size, for augmentation: brightness and colors, noise, a shift along time.

Shapes: *size the points along each axis, C channels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""Share of red, green and blue in the brightness of a color (ITU-R BT.601)."""


@dataclass(frozen=True)
class Variation:
    """One drawn variation. The values of a view share all but the noise."""

    brightness: float = 1.0
    """Factor of all colors."""
    contrast: float = 1.0
    """Factor of the distance of all colors from the mean brightness."""
    saturation: float = 1.0
    """Factor of the distance of all colors from gray."""
    shift: float = 0.0
    """Shift along time, as a share of the length, from -1 to 1; positive: later."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise, in the scale of a network's input, where most values are in [-1, 1]."""
    seed: tuple[int, ...] = (0,)
    """Seed of the noise."""

    @property
    def changes_colors(self) -> bool:
        return (self.brightness, self.contrast, self.saturation) != (1.0, 1.0, 1.0)

    def gaussian(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the noise of a value of this shape."""
        return self.noise * np.random.default_rng(self.seed).standard_normal(shape, np.float32)


def jitter(picture: np.ndarray, variation: Variation) -> np.ndarray:
    """Change brightness, contrast and saturation, in this order, of a uint8 picture (*size, C) with 1 to 4 channels; the fourth is kept."""
    colors = picture[..., :3].astype(np.float32) * variation.brightness
    gray = (colors @ GRAY)[..., None] if colors.shape[-1] == 3 else colors
    middle = gray.mean()
    colors = middle + variation.contrast * (colors - middle)
    gray = middle + variation.contrast * (gray - middle)
    colors = gray + variation.saturation * (colors - gray)
    return np.concatenate([np.rint(colors).clip(0, 255).astype(np.uint8), picture[..., 3:]], axis=-1)


def shifted(value: np.ndarray, points: int, axis: int, padding: Any) -> np.ndarray:
    """Move a value by so many points along an axis. The points that it leaves get `padding`, or the value at its edge if that is None."""
    length = value.shape[axis]
    index = np.arange(length) - points
    out = np.take(value, index.clip(0, length - 1), axis)
    if padding is not None:
        np.moveaxis(out, axis, 0)[(index < 0) | (index >= length)] = padding
    return out
