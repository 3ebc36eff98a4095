"""Nearest-neighbor search by inner product, with FAISS (https://arxiv.org/abs/2401.08281) if it is installed, otherwise with torch.

Dimension letters: N vectors searched, Q queries, D width, K neighbors.
"""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from maskweave.deadline import check_time
from maskweave.files import write_aside

Backend = Literal["auto", "faiss", "torch"]
LARGE = 200_000
"""From this many vectors on, FAISS uses an inverted file, which searches only the cells near a query: the results are approximate. If these
cells hold fewer than k vectors, all vectors are compared."""
BLOCK = 2**16
"""Vectors that torch compares per product."""


class Nearest(NamedTuple):
    scores: np.ndarray
    """(Q, K) float32, descending."""
    rows: np.ndarray
    """(Q, K) int64; for equal scores in ascending order."""


class Searcher:
    """Finds neighbors among unit vectors (N, D). The results are exact with torch, and with FAISS for fewer than `large` vectors.

    Args:
        saved: file that caches the inverted file, which is slow to build; delete it when the vectors change.
        backend: `auto` uses FAISS if it is installed.
        large: see `LARGE`.

    Raises:
        ImportError: backend is `faiss`, and FAISS is not installed.
    """

    def __init__(
        self, vectors_ND: np.ndarray, saved: Path | None = None, backend: Backend = "auto", large: int = LARGE
    ):
        self.vectors_ND = np.ascontiguousarray(vectors_ND, np.float32)
        self._faiss = None if backend == "torch" else _faiss_index(self.vectors_ND, saved, large, backend == "faiss")

    def __call__(self, queries_QD: np.ndarray, k: int) -> Nearest:
        """Returns the `k` vectors with the largest inner product with each query, or all vectors if there are fewer."""
        queries_QD = np.ascontiguousarray(queries_QD, np.float32)
        k = min(k, len(self.vectors_ND))
        if self._faiss is None:
            scores, rows = self._with_torch(torch.from_numpy(queries_QD), k)
        else:
            scores, rows = self._faiss.search(queries_QD, k)
            missing_Q = (rows < 0).any(axis=1)  # the cells near these queries hold fewer than k vectors
            if missing_Q.any():
                scores[missing_Q], rows[missing_Q] = self._with_torch(torch.from_numpy(queries_QD[missing_Q]), k)
        order = np.lexsort((rows, -scores))
        return Nearest(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))

    def _with_torch(self, queries_QD: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = torch.empty(len(queries_QD), 0), torch.empty(len(queries_QD), 0, dtype=torch.long)
        for start in range(0, len(self.vectors_ND), BLOCK):
            check_time()
            block = queries_QD @ torch.from_numpy(self.vectors_ND[start : start + BLOCK]).T
            indices = torch.arange(start, start + block.shape[1]).expand_as(block)
            scores, best = torch.cat([scores, block], dim=1).topk(min(k, scores.shape[1] + block.shape[1]), dim=1)
            rows = torch.cat([rows, indices], dim=1).gather(1, best)
        return scores.numpy(), rows.numpy()


def _faiss_index(vectors_ND: np.ndarray, saved: Path | None, large: int, required: bool) -> Any:
    """Returns a FAISS index of the vectors; None if FAISS is not installed."""
    try:
        import faiss
    except ImportError:
        if required:
            raise
        return None
    count, width = vectors_ND.shape
    if count < large:
        index: Any = faiss.IndexFlatIP(width)
        index.add(vectors_ND)
        return index
    if saved is not None and saved.is_file():
        index = faiss.read_index(str(saved))
        if index.ntotal == count and index.d == width:
            return index
    cells = round(4 * math.sqrt(count))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors_ND[:: max(1, count // (64 * cells))])
    index.add(vectors_ND)
    index.nprobe = max(8, cells // 32)
    if saved is not None:
        with write_aside(saved) as aside:
            faiss.write_index(index, str(aside))
    return index
