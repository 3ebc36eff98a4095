"""Early stopping on the validation loss: one policy for tokenizers, models and transfers."""

import math
from dataclasses import dataclass
from typing import Any

from maskweave.errors import MaskweaveError

SPLIT = "early_stopping"
"""Split of the line of metrics.jsonl with the result of early stopping."""


@dataclass(frozen=True)
class EarlyStopping:
    """When training stops before its last step. In any case the weights of the best validation are saved as the model."""

    patience: int = 5
    """Validations in a row without a better loss after which training stops."""
    min_delta: float = 0.0
    """How much lower than the best a validation loss must be to count as better."""

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise MaskweaveError(f"patience must be 1 or more, found {self.patience}")
        if not 0 <= self.min_delta < math.inf:
            raise MaskweaveError(f"min_delta must be a number of 0 or more, found {self.min_delta}")


@dataclass
class Best:
    """The best validation so far."""

    step: int = 0
    """Its step; 0: none yet."""
    loss: float = math.inf
    waited: int = 0
    """Validations since then."""

    def update(self, step: int, loss: float, settings: EarlyStopping) -> bool:
        """Takes the loss of a validation; returns whether it is the best. A loss that is not finite never is."""
        if loss < self.loss - settings.min_delta:
            self.step, self.loss, self.waited = step, loss, 0
            return True
        self.waited += 1
        return False

    def is_over(self, settings: EarlyStopping | None) -> bool:
        """Whether training should stop."""
        return settings is not None and self.waited >= settings.patience

    def state(self) -> dict[str, Any]:
        """Returns the content for a checkpoint."""
        return {"step": self.step, "loss": self.loss if self.step else None, "waited": self.waited}

    @classmethod
    def from_state(cls, state: Any) -> "Best":
        """Returns the best of a checkpoint; a new one if it has none."""
        if not isinstance(state, dict):
            return cls()
        loss = state.get("loss")
        return cls(int(state.get("step", 0)), math.inf if loss is None else float(loss), int(state.get("waited", 0)))
