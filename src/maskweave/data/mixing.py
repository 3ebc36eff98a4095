"""Several data sets as one, by weight, as 4M-21 is trained on CC12M, COYO and C4 (https://arxiv.org/abs/2406.09406).

Each data set keeps its own samples, shards and tokens; indices run through them one data set after the other. A modality that one of them
lacks is missing from its samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.data.columns import Column
from maskweave.data.source import Source, text_labels_of
from maskweave.data.token_store import Columns, TokenData


def apportion(weights: Sequence[float], total: int) -> np.ndarray:
    """Whole numbers that sum to `total`, in proportion to the weights: rounded down, and one more for the largest remainders."""
    exact = np.array(weights, float) / sum(weights) * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def interleave(counts: Sequence[int]) -> np.ndarray:
    """All indices, (sum of counts,), each data set's in order and spread evenly over the whole."""
    places = [(np.arange(count) + 0.5) / count for count in counts]
    return np.concatenate(places).argsort(kind="stable")


class Mixed:
    """All samples of several sources, each source's in order and evenly among the others'.

    Args:
        sources: by name, which stands before their keys.
    """

    def __init__(self, sources: Mapping[str, Source]):
        self.sources = dict(sources)
        counts = [len(source) for source in self.sources.values()]
        self._starts = np.cumsum([0, *counts])
        self._order = interleave(counts)
        first, *others = [text_labels_of(source) for source in self.sources.values()]
        self.text_labels = first if all(other == first for other in others) else None  # texts of all are scored alike

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.sources.values() for name in source.names))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, i: int) -> dict[str, Any]:
        name, j = self._place(i)
        return self.sources[name][j]

    def key(self, i: int) -> str:
        name, j = self._place(i)
        return f"{name}/{self.sources[name].key(j)}"

    def _place(self, i: int) -> tuple[str, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        index = self._order[i]
        d = int(np.searchsorted(self._starts, index, side="right")) - 1
        return list(self.sources)[d], int(index - self._starts[d])


class MixedTokens:
    """Token shards of several data sets, read as `TokenData` is.

    Args:
        parts: the data sets, of one catalog.
        weights: how often samples of each are drawn, relative to the others.
    """

    def __init__(self, parts: Sequence[TokenData], weights: Sequence[float]):
        self.parts, self.weights = parts, tuple(weights)
        self.catalog = parts[0].catalog
        self.counts = tuple(len(part) for part in parts)
        self._starts = np.cumsum([0, *self.counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def columns(self, indices: np.ndarray) -> Columns:
        """The tokens of the samples `indices` (B,), in that order; modalities that none of them can have are left out."""
        set_of = np.searchsorted(self._starts, indices, side="right") - 1
        found = [
            (np.flatnonzero(set_of == d), self.parts[d].columns(indices[set_of == d] - self._starts[d]))
            for d in np.unique(set_of)
        ]
        names = [name for name in self.catalog if any(name in columns for _, columns in found)]
        return {
            name: _joined([(rows, columns[name]) for rows, columns in found if name in columns], len(indices))
            for name in names
        }


def _joined(parts: Sequence[tuple[np.ndarray, Column]], samples: int) -> Column:
    """One modality's columns, each at its rows of the batch; in the rows of no column it is missing."""
    joined = {}
    for field in Column._fields:
        given = [(rows, array) for rows, column in parts if (array := getattr(column, field)) is not None]
        if given:
            arrays = [array for _, array in given]
            joined[field] = np.zeros((samples, *arrays[0].shape[1:]), np.result_type(*arrays))
            for rows, array in given:
                joined[field][rows] = array
    return Column(**joined)
