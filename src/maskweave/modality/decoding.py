"""Default settings for generating a modality."""

import math
from dataclasses import dataclass
from typing import Literal

from maskweave import limits
from maskweave.config import check_types
from maskweave.errors import MaskweaveError, shown

LEAST = 1e-6
"""Lowest temperature above 0: logits divided by less overflow. 0 takes the likeliest token."""

MOST_POWER = 50
"""Largest POWER of an `onex` schedule; larger ones overflow."""


@dataclass(frozen=True)
class Decoding:
    """How a modality is generated, unless a request overrides it."""

    scheme: Literal["maskgit", "roar", "autoregressive"] = "roar"
    steps: int = 8
    """Passes over a grid; sequences take one per token."""
    token_schedule: Literal["auto", "cosine", "linear"] = "auto"
    """How many tokens of a grid each step fixes: few at first, or the same number. `auto`: cosine for MaskGIT, linear for ROAR."""
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    """`constant`; `linear`, which falls evenly towards 0; or `onex:MIN:POWER`, temperature / step ** POWER (steps count from 1), at least MIN."""
    guidance: float = 1.0
    """Weight of the inputs, in u + guidance * (c - u): c with the inputs, u without. 1: no guidance, at half the cost."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    detokenize: Literal["sampled", "mean"] = "sampled"
    """How a grid's tokens become a value: `sampled` decodes the sampled tokens; `mean` decodes, at each token, the mean of the codebook vectors
    weighted by their probabilities. The mean has a lower error where the inputs leave the value open, as for numbers, but blurs pictures."""

    def __post_init__(self) -> None:
        check_types(self)
        for key, holds, expected in (
            ("steps", self.steps >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < math.inf, "a number of 0 or more"),
            (
                "temperature_schedule",
                self.onex is not None,
                f"constant, linear or onex:MIN:POWER, two numbers of 0 or more, POWER at most {MOST_POWER}",
            ),
            ("guidance", math.isfinite(self.guidance), "a finite number"),
            ("guidance", abs(self.guidance) <= limits.GUIDANCE, f"-{limits.GUIDANCE} to {limits.GUIDANCE}"),
            ("temperature", self.temperature == 0 or self.temperature >= LEAST, f"0, or {LEAST} or more"),
            ("top_p", 0 < self.top_p <= 1, "a share above 0, up to 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
        ):
            if not holds:
                raise MaskweaveError(f"{key} is {shown(getattr(self, key))}; expected {expected}")
        limits.check_most("steps", self.steps, limits.TOKENS)

    @property
    def onex(self) -> tuple[float, ...] | None:
        """MIN and POWER of an `onex` temperature schedule; empty for the other schedules; None if the schedule is invalid."""
        name, *numbers = self.temperature_schedule.split(":")
        if name in ("constant", "linear") and not numbers:
            return ()
        try:
            least, power = map(float, numbers)
        except ValueError:
            return None
        return (least, power) if name == "onex" and 0 <= least < math.inf and 0 <= power <= MOST_POWER else None


DEFAULT = Decoding()
"""Stands in entries that have no `decoding`, until the check of the entry replaces it by the value type's defaults."""
