"""Several data sets as one, by weight, as 4M-21 is trained on CC12M, COYO and C4 (https://arxiv.org/abs/2406.09406).

Each data set keeps its own samples, shards and tokens. Indices count through the data sets one after the other. A modality that a data set lacks
is missing from its samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskweave.data.columns import Column, StoredRows
from maskweave.data.source import Source, text_labels_of
from maskweave.data.token_store import Columns, TokenData


def apportion(weights: Sequence[float], total: int) -> np.ndarray:
    """Integers that sum to `total`, in proportion to the weights: rounded down, plus one for the largest remainders."""
    exact = np.array(weights, float) / sum(weights) * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def interleave(counts: Sequence[int], first: int = 0, last: int | None = None) -> np.ndarray:
    """Indices through data sets one after the other, those of each data set in order and evenly spread among the others.

    Args:
        first, last: the part of the result that is returned; the whole of it would have one index per sample.
    """
    total = sum(counts)
    first, last = min(first, total), total if last is None else min(last, total)
    if len(counts) == 1 or first == last:
        return np.arange(first, last)
    # Item k of a data set is at (k + 0.5) / count. All items before `low` come before rank `first`; those between `low` and `high` are sorted.
    margin = 2 * len(counts) + 2
    low, high = (first - margin) / total, (last + margin) / total
    sizes = np.array(counts)
    begin, end = (np.ceil(edge * sizes - 0.5).clip(0, sizes).astype(np.int64) for edge in (low, high))
    positions = [(np.arange(b, e) + 0.5) / count for b, e, count in zip(begin, end, counts, strict=True)]
    starts = np.cumsum([0, *counts[:-1]]) + begin
    indices = np.concatenate([np.arange(s, s + len(p)) for s, p in zip(starts, positions, strict=True)])
    before = int(begin.sum())
    return indices[np.concatenate(positions).argsort(kind="stable")][first - before : last - before]


class Mixed:
    """All samples of several sources. Samples of each source are in order and evenly spread among the others.

    Args:
        sources: by name; the name is a prefix of the keys.
    """

    def __init__(self, sources: Mapping[str, Source]):
        self.sources = dict(sources)
        self._counts = [len(source) for source in self.sources.values()]
        self._starts = np.cumsum([0, *self._counts])
        first, *others = [text_labels_of(source) for source in self.sources.values()]
        self.text_labels = first if all(other == first for other in others) else None  # all texts need the same scores

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.sources.values() for name in source.names))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        name, j = self._locate(i)
        return self.sources[name][j]

    def key(self, i: int) -> str:
        name, j = self._locate(i)
        return f"{name}/{self.sources[name].key(j)}"

    def _locate(self, i: int) -> tuple[str, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        index = interleave(self._counts, i, i + 1)[0]
        d = int(np.searchsorted(self._starts, index, side="right")) - 1
        return list(self.sources)[d], int(index - self._starts[d])


class MixedTokens:
    """Token shards of several data sets, with the interface of `TokenData`.

    Args:
        parts: the data sets; all have the same catalog.
        weights: how often samples of each data set are seen, relative to the others.
    """

    def __init__(self, parts: Sequence[TokenData], weights: Sequence[float]):
        self.parts, self.weights = parts, tuple(weights)
        self.catalog = parts[0].catalog
        self.counts = tuple(len(part) for part in parts)
        self.windows = tuple(window for part in parts for window in part.windows)
        self._starts = np.cumsum([0, *self.counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def columns(self, indices: np.ndarray) -> Columns:
        """The tokens of the samples `indices` (B,), in that order. Modalities that none of their data sets has are left out."""
        set_of = np.searchsorted(self._starts, indices, side="right") - 1
        columns_of = [
            (np.flatnonzero(set_of == d), self.parts[d].columns(indices[set_of == d] - self._starts[d]))
            for d in np.unique(set_of)
        ]
        names = [name for name in self.catalog if any(name in columns for _, columns in columns_of)]
        return {
            name: _joined([(rows, columns[name]) for rows, columns in columns_of if name in columns], len(indices))
            for name in names
        }


def _joined(parts: Sequence[tuple[np.ndarray, Column]], samples: int) -> Column:
    """Merge the columns of one modality, each at its rows of the batch. In all other rows the modality is missing."""
    joined: dict[str, Any] = {}
    for field in Column._fields:
        given = [(rows, array) for rows, column in parts if (array := getattr(column, field)) is not None]
        if given and isinstance(given[0][1], StoredRows):
            joined[field] = StoredRows.scattered(given, samples)
        elif given:
            arrays = [array for _, array in given]
            joined[field] = np.zeros((samples, *arrays[0].shape[1:]), np.result_type(*arrays))
            for rows, array in given:
                joined[field][rows] = array
    return Column(**joined)
