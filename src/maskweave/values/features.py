"""Unscaled outputs of another network at each point: features of CLIP, DINOv2 or ImageBind in 4M-21."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from maskweave.values.array import NUMBERS
from maskweave.values.base import TextLabels
from maskweave.values.metrics import Metric, absolute_errors, mean, median, weighable
from maskweave.values.scaled import ScaledNumbers


@dataclass(frozen=True)
class Features(ScaledNumbers):
    """A vector of numbers of any scale at each point."""

    type: ClassVar[str] = "features"
    python: ClassVar[str] = "float32 (*size, channels), the unscaled outputs of another network"
    losses = NUMBERS
    can_be_weighted = True
    default_metrics = ("mae",)

    channels: int = 1
    """Number of channels, or a list of their names, or of {name, unit}."""
    unit: str = ""
    """Unit of the numbers, for figures and messages."""

    def describe(self) -> str:
        return f"{super().describe()}, {self.channels} channels"

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae`: over all channels, and of each channel if they have names."""
        if not self.channel_names or self.channels == 1:
            return {"mae": weighable("MAE", "lower", absolute_errors, mean, median)}
        return {"mae": weighable("MAE", "lower", self.per_channel(absolute_errors), mean, median, self.channel_names)}

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        from maskweave.values.drawing import span_of

        return span_of(values, (0, 100)) if self.curve else None
