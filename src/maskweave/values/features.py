"""Unscaled outputs of another network at each point: features of CLIP, DINOv2 or ImageBind in 4M-21."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from maskweave.values.array import NUMBERS
from maskweave.values.base import TextLabels
from maskweave.values.dense import DenseNumbers
from maskweave.values.metrics import Metric, absolute_errors, mean, median


@dataclass(frozen=True)
class Features(DenseNumbers):
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

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        from maskweave.values.drawing import span_of

        return span_of(values, (0, 100)) if self.curve else None
