import sys
from pathlib import Path

import numpy as np
import pytest
from rounding import assert_nearest

from maskweave.retrieve import search
from maskweave.retrieve.search import Searcher


def unit(count: int, width: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_finds_what_sorting_finds(backend: search.Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(search, "BLOCK", 64)  # so that several blocks are merged
    vectors, queries = unit(300, 16, 0), unit(20, 16, 1)
    found = Searcher(vectors, backend=backend)(queries, 7)
    scores = queries @ vectors.T
    assert found.rows.shape == (20, 7)
    assert_nearest(found.rows, found.scores, scores)


def test_faiss_and_torch_give_the_same() -> None:
    pytest.importorskip("faiss")
    vectors, queries = unit(500, 24, 2), unit(30, 24, 3)
    a, b = (Searcher(vectors, backend=backend)(queries, 10) for backend in ("faiss", "torch"))
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
    for found in (a, b):
        assert_nearest(found.rows, found.scores, queries @ vectors.T)


def test_more_neighbors_than_vectors_are_all_of_them_and_equals_come_in_order() -> None:
    vectors = np.tile(np.float32([0.5, -0.5, 0.5, 0.5, 0, 0, 0, 0]), (3, 1))  # whose products no order of adding rounds
    for backend in ("auto", "torch"):
        found = Searcher(vectors, backend=backend)(vectors[:1], 10)
        assert found.rows.tolist() == [[0, 1, 2]]


def test_without_faiss_torch_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    vectors = unit(50, 8, 0)
    assert Searcher(vectors)(vectors, 1).rows[:, 0].tolist() == list(range(50))
    with pytest.raises(ImportError):
        Searcher(vectors, backend="faiss")


def test_many_vectors_are_searched_cell_by_cell_and_the_cells_are_kept(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    centers = unit(40, 16, 1)
    vectors = np.repeat(centers, 100, axis=0) + 0.1 * rng.normal(size=(4000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    saved = tmp_path / "view.faiss"
    searcher = Searcher(vectors, saved, large=4000)
    exact, found = Searcher(vectors, backend="torch")(vectors[::40], 10), searcher(vectors[::40], 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.rows, found.rows, strict=True)]) > 0.8
    written = saved.stat().st_mtime_ns
    again = Searcher(vectors, saved, large=4000)(vectors[::40], 10)
    assert saved.stat().st_mtime_ns == written and (again.rows == found.rows).all()
    Searcher(vectors[:3999], saved, large=3999)  # other vectors: made anew
    assert saved.stat().st_mtime_ns != written


def test_cells_that_hold_too_few_give_no_hits_that_are_none() -> None:
    """FAISS fills up with rows of -1, which would be the last vector."""
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    vectors = unit(1000, 8, 0)
    searcher = Searcher(vectors, large=1000, backend="faiss")
    assert searcher._faiss is not None
    searcher._faiss.nprobe = 1
    assert (searcher._faiss.search(vectors[:5], 200)[1] < 0).any()
    found, exact = searcher(vectors[:5], 200), Searcher(vectors, backend="torch")(vectors[:5], 200)
    assert (found.rows == exact.rows).all()
    np.testing.assert_allclose(found.scores, exact.scores, atol=1e-6)
