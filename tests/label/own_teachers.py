"""Functions that the tests use as teachers (`model: "python: own_teachers:NAME"`). They count their calls."""

from typing import Any

import numpy as np

from maskweave.errors import BadSample
from maskweave.label.teachers.base import TeacherLabel

BATCHES: list[int] = []
"""Number of values of each call."""


def brightness(pictures: list[np.ndarray], scale: float = 1.0) -> list[Any]:
    """A map of the mean of the colors, 0 to 1, which is sure of bright points."""
    BATCHES.append(len(pictures))
    maps = [(picture.mean(axis=-1) / 255 * scale).astype(np.float32) for picture in pictures]
    return [TeacherLabel(level, np.clip(level, 0, 1)) for level in maps]


def redness(pictures: list[np.ndarray]) -> list[np.ndarray]:
    return [(picture[..., 0] / 255).astype(np.float32) for picture in pictures]


def darker(pictures: list[np.ndarray]) -> list[np.ndarray]:
    return [picture // 2 for picture in pictures]


def shape_in_words(pictures: list[np.ndarray]) -> list[str]:
    return [f"{picture.shape[0]} by {picture.shape[1]}" for picture in pictures]


def letters(texts: list[str]) -> list[np.ndarray]:
    """A vector for each letter."""
    return [np.array([[ord(letter), len(text)] for letter in text], np.float32) for text in texts]


def wide_only(pictures: list[np.ndarray]) -> list[Any]:
    """Refuses all pictures at once if one is not wide, as a network might."""
    if any(picture.shape[0] >= picture.shape[1] for picture in pictures):
        raise BadSample("a picture that is not wide")
    return [f"width {picture.shape[1]}" for picture in pictures]


def three_boxes(pictures: list[np.ndarray]) -> list[Any]:
    boxes = [{"class": "face", "box": [0.1 * n, 0.1, 0.1 * n + 0.1, 0.2]} for n in range(3)]
    return [TeacherLabel(boxes, [0.9, 0.5, 0.1]) for _ in pictures]


def unsure_of_tall(pictures: list[np.ndarray]) -> list[Any]:
    return [TeacherLabel("seen", 0.1 if picture.shape[0] >= picture.shape[1] else 0.8) for picture in pictures]


def too_few(pictures: list[np.ndarray]) -> list[str]:
    return ["one"]
