"""Recall at k: how often a query finds the sample that it was taken from, next to chance; and nDCG, which counts how far up it is.

With one sample to be found, the normalized discounted cumulative gain at k is 1 / log2(1 + rank) if the rank is at most k, and 0 otherwise
(https://doi.org/10.1145/582415.582418). Intervals: `maskweave.values.bootstrap`, over the queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from maskweave.data.reading import read
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.progress import progress
from maskweave.report.tables import text_table
from maskweave.retrieve.features import BATCH, given
from maskweave.retrieve.index import Index
from maskweave.values.bootstrap import UNKNOWN, Interval, bootstrap


@dataclass(frozen=True)
class Recall:
    """Recall of queries with one or several modalities against one view."""

    query: list[str]
    view: str
    feature_modality: str
    """Modality whose predicted vector was compared; empty: pooled features."""
    at: dict[int, float]
    """Fraction of queries whose own sample is among the first k, by k."""
    chance: dict[int, float]
    """The same for a random order."""
    median_rank: float
    """Median rank of the own sample, from 1; (vectors + 1) / 2 by chance."""
    queries: int
    vectors: int
    intervals: dict[int, Interval] = field(default_factory=dict)
    """95% interval of each of `at`."""
    ndcg: dict[int, float] = field(default_factory=dict)
    """Mean nDCG at k."""
    ndcg_chance: dict[int, float] = field(default_factory=dict)
    ndcg_intervals: dict[int, Interval] = field(default_factory=dict)
    """95% interval of each of `ndcg`."""
    median_rank_interval: Interval = UNKNOWN
    """95% interval of `median_rank`."""


def recall(
    index: Index, source: Source, query: Sequence[str], view: str = "", ks: Sequence[int] = (1, 5, 10), workers: int = 0
) -> Recall:
    """Query with every sample of the indexed data.

    Args:
        source: the indexed data.
        query: input modalities.
        view: the view to search; by default the first of the index.

    Raises:
        MaskweaveError: no sample has the query modalities and the view, or a k is below 1.
    """
    view = view or index.views[0]
    vectors, numbers = index.view(view, query)
    if min(ks) < 1:
        raise MaskweaveError(f"recall at k needs k of 1 or more, found {min(ks)}")
    # The scores of equal vectors may differ by this much, depending on their row in the product. It is below the resolution of float16, in
    # which the vectors are stored.
    rounding = vectors.shape[1] * np.finfo(np.float32).eps
    row_of = {number: row for row, number in enumerate(numbers.tolist())}
    ranks: list[int] = []
    with progress("recall", len(numbers)) as bar:
        batch: list[tuple[int, dict]] = []
        for number, item in zip(row_of, read(source, list(row_of), workers), strict=True):
            sample = None if item.error else given(item.sample, index.bundle.catalog, *query)
            if sample is not None:
                batch.append((row_of[number], sample))
            bar.advance()
            if len(batch) == BATCH or (bar.done == bar.total and batch):
                scores = index.vectors([sample for _, sample in batch], view) @ vectors.T
                own = scores[np.arange(len(batch)), [row for row, _ in batch]]
                ranks += (scores >= (own - rounding)[:, None]).sum(axis=1).tolist()  # ties count against the query
                batch = []
    if not ranks:
        raise MaskweaveError(f"no indexed sample has {' and '.join(query)}; query with other modalities")
    rank = np.array(ranks)
    return Recall(
        list(query),
        view,
        index.facts["feature_modality"],
        {k: float((rank <= k).mean()) for k in ks},
        {k: min(1.0, k / len(vectors)) for k in ks},
        float(np.median(rank)),
        len(rank),
        len(vectors),
        {k: _interval_of_mean(rank <= k) for k in ks},
        {k: float(ndcg(rank, k).mean()) for k in ks},
        {k: float(ndcg(np.arange(1, len(vectors) + 1), k).mean()) for k in ks},
        {k: _interval_of_mean(ndcg(rank, k)) for k in ks},
        bootstrap(lambda some: float(np.median(rank[some])), len(rank)),
    )


def _interval_of_mean(scores: np.ndarray) -> Interval:
    return bootstrap(lambda some: float(scores[some].mean()), len(scores))


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """Returns the nDCG at k of queries whose only relevant vector has these ranks, from 1."""
    return np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)


def describe(rows: Sequence[Recall]) -> str:
    """Returns the rows as a plain-text table."""
    ks = sorted({k for row in rows for k in row.at})
    heads = [
        "query",
        "view",
        "feature_modality",
        *(f"R@{k} (chance)" for k in ks),
        f"nDCG@{ks[-1]}",
        "median rank",
        "of",
    ]
    return text_table(
        heads,
        [
            [
                " + ".join(row.query),
                row.view,
                row.feature_modality or "pooled",
                *(f"{row.at[k]:.3f} ({row.chance[k]:.3f})" for k in ks),
                f"{row.ndcg[max(row.ndcg)]:.3f}" if row.ndcg else "–",
                f"{row.median_rank:g}",
                str(row.vectors),
            ]
            for row in rows
        ],
    )
