"""Unscaled outputs of another network at each point: features of CLIP, DINOv2 or ImageBind in 4M-21."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maskweave.values.array import NUMBERS
from maskweave.values.base import Size, TextLabels
from maskweave.values.dense import Dense
from maskweave.values.metrics import Metric, absolute_errors, mean, median


@dataclass(frozen=True)
class Features(Dense):
    """A vector of numbers of any scale at each point."""

    type: ClassVar[str] = "features"
    python: ClassVar[str] = "float32 (*size, channels), the unscaled outputs of another network"
    losses = NUMBERS
    default_metrics = ("mae",)

    channels: int = 1
    unit: str = ""
    """Unit of the numbers, for figures and messages."""

    def describe(self) -> str:
        return f"{super().describe()}, {self.channels} channels"

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`: over all channels."""
        return {"mae": Metric("MAE", "lower", absolute_errors, mean, median)}

    @property
    def curve(self) -> bool:
        return len(self.size) == 1

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        from maskweave.values.drawing import curves

        if not self.curve:
            return super().draw(value, size, over, span, reference)
        array = self.drawable(value)
        return curves(array.reshape(len(array), -1), size, span, self.unit)

    def colors(self, array: np.ndarray, span: tuple[float, float] | None, reference: Any) -> np.ndarray:
        from maskweave.values.drawing import color_mapped, principal_components

        if array.ndim > len(self.size) and array.shape[-1] > 1:
            return principal_components(array, array if reference is None else self.drawable(reference))
        return color_mapped(array.reshape(array.shape[: len(self.size)]), *(span or (-3.0, 3.0)))

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        from maskweave.values.drawing import span_of

        return span_of(values, (0, 100)) if self.curve else None

    def legend(self, span: tuple[float, float] | None, values: Sequence[Any] | None, width: int) -> np.ndarray | None:
        from maskweave.values.drawing import COMPONENTS, color_bar, swatches

        if self.curve:
            return None
        return (
            swatches(COMPONENTS, width)
            if self.channels > 1
            else color_bar(*(span or (-3.0, 3.0)), self.unit, min(width, 220))
        )
