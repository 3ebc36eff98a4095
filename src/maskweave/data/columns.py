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
    valid: np.ndarray | None = None
    """(B, L) bool; a token of a grid or patches whose points are all unknown is False and is never input or target. None: all are valid."""

    def keep(self, mask: np.ndarray) -> "Column":
        """The samples where `mask` (B,) is True."""
        parts = (self.ids, self.length, self.rows, self.valid)
        return Column(self.present[mask], *(None if part is None else part[mask] for part in parts))

    def tokens(self, most: int) -> np.ndarray:
        """(B, most) bool, which tokens can be inputs or targets: those of present values that are valid and not padding."""
        length = np.full(len(self.present), most) if self.length is None else self.length
        usable = (np.arange(most) < length[:, None]) & self.present[:, None]
        return usable if self.valid is None else usable & self.valid
