"""Counts of updates that were skipped."""

from dataclasses import asdict, dataclass
from typing import Any

from maskweave.errors import MaskweaveError

WITHOUT_TARGETS = 100
"""Updates without targets in a row after which training stops."""
MORE_TARGETS = "raise model.masking.target_tokens or model.mask_ratio, or use modalities that can be predicted"


@dataclass
class Skipped:
    """Updates that changed no weights, over all starts of a run."""

    without_targets: int = 0
    nonfinite: int = 0
    """The loss or the gradient was not finite."""
    without_targets_in_a_row: int = 0
    nonfinite_in_a_row: int = 0

    def note_targets(self, there: bool) -> None:
        """Counts an update by whether it has targets.

        Raises:
            MaskweaveError: the last `WITHOUT_TARGETS` updates have none.
        """
        self.without_targets += not there
        self.without_targets_in_a_row = 0 if there else self.without_targets_in_a_row + 1
        if self.without_targets_in_a_row >= WITHOUT_TARGETS:
            raise MaskweaveError(
                f"the last {WITHOUT_TARGETS} updates had no targets, so nothing can be learned: {MORE_TARGETS}"
            )

    def note_finite(self, finite: bool) -> None:
        """Counts an update by whether its loss and gradient are finite."""
        self.nonfinite += not finite
        self.nonfinite_in_a_row = 0 if finite else self.nonfinite_in_a_row + 1

    def metrics(self) -> dict[str, float]:
        """Returns the counts that are not 0, to be logged."""
        counts = {"skipped/without_targets": self.without_targets, "skipped/nonfinite": self.nonfinite}
        return {name: float(n) for name, n in counts.items() if n}

    def state(self) -> dict[str, Any]:
        """Returns the counts for a checkpoint."""
        return asdict(self)
