"""One modality of a batch of samples: token ids or raw rows, and which samples have it.

Dimension letters: B samples, L tokens of a modality, C width of a raw row.
"""

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """One modality of a batch of samples."""

    present: np.ndarray
    """(B,) bool; tokens of a missing modality are never inputs or targets."""
    ids: np.ndarray | None = None
    """(B, L) token ids of grids and sequences."""
    length: np.ndarray | None = None
    """(B,) number of tokens of a sequence, including the end token, or number of vectors."""
    rows: np.ndarray | None = None
    """(B, L, C) raw rows of patches or vectors."""

    def keep(self, mask: np.ndarray) -> "Column":
        """The samples where `mask` (B,) is True."""
        ids, length, rows = (None if a is None else a[mask] for a in (self.ids, self.length, self.rows))
        return Column(self.present[mask], ids, length, rows)
