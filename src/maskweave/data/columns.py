"""What a batch of samples holds of one modality: token ids or raw rows, and which samples have it.

Dimension letters: B samples, L tokens of a modality, C width of a raw row.
"""

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """What a batch of samples holds of one modality."""

    present: np.ndarray
    """(B,) bool; a missing part is never drawn."""
    ids: np.ndarray | None = None
    """(B, L) token ids of grids and sequences."""
    length: np.ndarray | None = None
    """(B,) tokens of a sequence, end token included, or number of vectors."""
    rows: np.ndarray | None = None
    """(B, L, C) raw rows of patches or vectors."""

    def keep(self, mask: np.ndarray) -> "Column":
        """The samples where `mask` (B,) is True."""
        ids, length, rows = (None if a is None else a[mask] for a in (self.ids, self.length, self.rows))
        return Column(self.present[mask], ids, length, rows)
