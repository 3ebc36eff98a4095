"""Figures of values: what every value type says about how it is drawn. Part of `maskweave.values.base.ValueType`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskweave.values.playable import Playable

Size = tuple[int, int]
"""Height and width of a figure in pixels."""


class Drawn(ABC):
    """Values of which figures can be made."""

    @property
    def size(self) -> tuple[int, ...]:
        """Points along each axis of a dense value."""
        return ()

    def natural_size(self) -> Size:
        """Height and width of a figure of its own size."""
        return 128, 128

    @abstractmethod
    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws one checked value as a picture, uint8 (*size, 3).

        Args:
            over: picture, uint8 (H, W, 3), drawn under boxes, instances and the like.
            span: lowest and highest number of the color scale or of a curve's axis; see `span`.
            reference: value whose principal components give the colors, so that two values can be compared.
        """

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        """Lowest and highest number that figures of these values should show; None: the default of `draw`."""
        return None

    def playable(self, value: Any) -> Playable | None:
        """Returns what a page can play of a checked or predicted value; None for values that neither sound nor move."""
        return None

    @property
    def curve(self) -> bool:
        """Whether figures are curves; their axis must include every value."""
        return False

    @property
    def wide(self) -> bool:
        """Whether figures need more width than height."""
        return self.curve

    @property
    def aspect(self) -> float:
        """Width of figures over their height."""
        if len(self.size) == 2 and not self.wide:
            return min(2.0, max(0.5, self.size[1] / self.size[0]))
        return 1.5 if self.wide else 1.0

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        """Draws a legend of the colors, uint8 (height, width or less, 3); None if figures need none.

        Args:
            values: values in the figures; None: the legend covers all possible values.
            width: maximum width in pixels.
        """
        return None
