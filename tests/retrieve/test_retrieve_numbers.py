"""Weights of queries, ranks, nDCG, sources and sheets of an index, with numbers computed by hand."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_bundle import scenes, small_bundle

from maskweave.errors import BadSample, MaskweaveError
from maskweave.families.sheets import Tile, TileRow
from maskweave.generate.bundle import Bundle
from maskweave.generate.token_state import Tokens
from maskweave.retrieve import recall as recalls
from maskweave.retrieve import sheet, sources
from maskweave.retrieve.features import features_of, given, vectors_of
from maskweave.retrieve.index import Hit, Index, check_weights
from maskweave.retrieve.indexing import keys_of, make_index
from maskweave.retrieve.recall import Recall, describe, ndcg, recall
from maskweave.values.bootstrap import sample_counts


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, {"a": 1.0, "b": 1.0}), ({}, {"a": 1.0, "b": 1.0}), ({"b": -2.0}, {"a": 1.0, "b": -2.0}), ({"a": 0.0, "b": 0.5}, {"b": 0.5}),
    ],
)  # fmt: skip
def test_weights_of_inputs(weights: dict[str, float] | None, expected: dict[str, float]) -> None:
    assert check_weights({"a": 1, "b": 2}, weights) == expected


@pytest.mark.parametrize(
    ("inputs", "weights", "message"),
    [
        ({}, None, "a query needs one input or more"),
        ({"a": 1}, {"c": 1.0}, "weight of 'c': not among the inputs a"),
        ({"a": 1}, {"a": 0.0}, "at least one of them not 0"),
        ({"a": 1}, {"a": float("inf")}, "weights must be finite"),
        ({"a": 1, "b": 1}, {"a": float("nan")}, "weights must be finite"),
    ],
)
def test_weights_that_cannot_be(inputs: dict[str, Any], weights: dict[str, float] | None, message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        check_weights(inputs, weights)


def test_the_score_is_the_weighted_mean_of_the_cosines(bundle: Bundle, tmp_path: Path) -> None:
    """Negative weights count by their size."""
    make_index(bundle, scenes(5), tmp_path / "index", views=["depth"])
    index = Index(tmp_path / "index", bundle)
    sample = index.bundle.read({name: scenes(5)[2][name] for name in ("rgb", "depth")})
    one, two = (index.vectors([{name: sample[name]}], "depth") for name in ("rgb", "depth"))
    both = index.vectors([sample], "depth", {"rgb": -3.0})
    assert np.allclose(both, (-3 * one + two) / 4, atol=1e-6) and np.allclose(np.linalg.norm(two), 1, atol=1e-5)
    assert np.allclose(index.vectors([sample], "depth"), (one + two) / 2, atol=1e-6)
    hit = index.query({"depth": scenes(5)[2]["depth"]}, k=1)[0]
    assert (hit.number, hit.key) == (2, "7-0000002") and hit.score == pytest.approx(1, abs=2e-3)
    assert len(index) == 5 and index.views == ["depth"]
    for k, message in ((0, "k must be 1 or more, found 0"), (-1, "found -1")):
        with pytest.raises(MaskweaveError, match=message):
            index.query({"depth": scenes(5)[2]["depth"]}, k=k)
    assert len(index.query({"depth": scenes(5)[2]["depth"]}, k=9)) == 5


def test_centers_are_means_over_evenly_spaced_samples(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskweave.retrieve import indexing

    monkeypatch.setattr(indexing, "CENTER_SAMPLES", 3)
    make_index(bundle, scenes(9), tmp_path / "index", views=["depth"], quarters=False)
    index, features = Index(tmp_path / "index", bundle), features_of(bundle)
    for name in ("depth", "caption"):
        expected = features([{name: scenes(9)[i][name]} for i in (0, 4, 8)]).mean(axis=0)
        assert np.allclose(index._center(name, "depth"), expected, atol=1e-5)
    assert np.array_equal(index._center("global", "depth"), index._center("depth", "depth")), (
        "of the view, where the data lack one"
    )


def test_ndcg_by_hand() -> None:
    assert np.allclose(ndcg(np.array([1, 2, 3, 7]), 3), [1, 1 / np.log2(3), 0.5, 0])


def test_recall_counts_ties_against_the_query(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    make_index(bundle, scenes(8), tmp_path / "index", views=["depth", "rgb"], shard_size=3, quarters=False)
    index = Index(tmp_path / "index", bundle)
    own = recall(index, scenes(8), ["depth"], ks=(1, 2))
    assert (own.view, own.query, own.queries, own.vectors) == ("depth", ["depth"], 8, 8)
    assert own.at == {1: 1.0, 2: 1.0} and own.median_rank == 1 and own.chance == {1: 1 / 8, 2: 2 / 8}
    assert own.ndcg == {1: 1.0, 2: 1.0}
    assert own.ndcg_chance == {1: pytest.approx(1 / 8), 2: pytest.approx((1 + 1 / np.log2(3)) / 8)}
    for batch in (1, 3):
        monkeypatch.setattr(recalls, "BATCH", batch)
        assert recall(index, scenes(8), ["depth"], ks=(1, 2)) == own, "whatever the batches are"
    monkeypatch.setattr(
        Index, "vectors", lambda self, samples, view, weights=None: np.zeros((len(samples), 32), np.float32)
    )
    tied = recall(index, scenes(8), ["caption"], "rgb", ks=(1, 8, 20))
    assert tied.at == {1: 0.0, 8: 1.0, 20: 1.0} and tied.median_rank == 8 and tied.chance[20] == 1.0
    with pytest.raises(MaskweaveError, match="recall at k needs k of 1 or more, found 0"):
        recall(index, scenes(8), ["depth"], ks=(5, 0))


def test_recall_ndcg_and_median_rank_have_intervals(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_index(bundle, scenes(12), tmp_path / "index", views=["rgb"])
    index = Index(tmp_path / "index", bundle)
    vectors = index.view("rgb").vectors
    queries = vectors + np.random.default_rng(0).normal(0, 1.0, vectors.shape).astype(np.float32)
    monkeypatch.setattr(Index, "vectors", lambda self, samples, view, weights=None: queries)
    found = recall(index, scenes(12), ["rgb"], ks=(1, 5))
    scores = queries @ vectors.T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    assert len(set(ranks.tolist())) > 3 and found.median_rank == np.median(ranks)
    replicates = [np.repeat(ranks, counts) for counts in sample_counts(range(12), 0)]

    def expected(score: Any) -> tuple[float, float]:
        return tuple(
            np.quantile([score(some) for some in replicates], [(1 - 0.95) / 2, (1 + 0.95) / 2], method="inverted_cdf")
        )

    for k in (1, 5):
        assert found.intervals[k] == pytest.approx(expected(lambda some, k=k: np.mean(some <= k)))
        gain = lambda some, k=k: np.mean([1 / np.log2(1 + rank) if rank <= k else 0 for rank in some])  # noqa: E731
        assert found.ndcg_intervals[k] == pytest.approx(expected(gain))
        assert found.ndcg_intervals[k][0] < found.ndcg[k] < found.ndcg_intervals[k][1]
    assert found.median_rank_interval == expected(np.median)
    assert found.median_rank_interval[0] <= found.median_rank <= found.median_rank_interval[1]
    assert found.median_rank_interval[0] < found.median_rank_interval[1]


def test_recall_in_words() -> None:
    rows = [
        Recall(["rgb", "caption"], "depth", "", {1: 0.12345, 5: 0.5}, {1: 0.1, 5: 0.25}, 3.5, 9, 10, ndcg={1: 0.1, 5: 0.4567}),
        Recall(["rgb"], "depth", "global", {1: 0.1, 5: 1.0}, {1: 0.1, 5: 0.25}, 2, 9, 10),
    ]  # fmt: skip
    assert describe(rows).splitlines() == [
        "query          view   feature_modality  R@1 (chance)   R@5 (chance)   nDCG@5  median rank  of",
        "rgb + caption  depth  pooled            0.123 (0.100)  0.500 (0.250)  0.457   3.5          10",
        "rgb            depth  global            0.100 (0.100)  1.000 (0.250)  –       2            10",
    ]


def test_which_values_of_a_sample_are_given(bundle: Bundle) -> None:
    sample = {"depth": 1, "caption": None}
    assert given(sample, bundle.catalog, "depth") == {"depth": 1}
    assert given(sample, bundle.catalog, "depth", "caption") is None and given(sample, bundle.catalog, "rgb") is None


def test_keys_have_a_fingerprint_of_their_order() -> None:
    names = b"7-0000000\n7-0000001\n7-0000002"
    assert keys_of(scenes(3)) == hashlib.sha256(names).hexdigest()[:16]
    assert keys_of(scenes(3)) != keys_of(scenes(4)) != keys_of(scenes(4, seed=8))


def test_batches_with_a_bad_sample_are_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskweave.retrieve import features

    calls: list[list[int]] = []

    def compute(samples: Any) -> np.ndarray:
        calls.append([sample["n"] for sample in samples])
        if any(sample["n"] == 2 for sample in samples):
            raise BadSample("two")
        return np.array([[float(sample["n"])] for sample in samples])

    monkeypatch.setattr(features, "BATCH", 2)
    found = vectors_of(compute, [{"n": n} for n in range(5)])  # type: ignore[arg-type]
    assert calls == [[0, 1], [2, 3], [2], [3], [4]]
    assert [str(v) if isinstance(v, BadSample) else float(v[0]) for v in found] == [0, 1, "two", 3, 4]


def test_endless_sources_give_1000_samples_of_seed_1(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(sources, "open_data", lambda data, catalog, **options: asked.append({"data": data, **options}))
    for options in ({}, {"samples": 3}, {"seed": 0}, {"samples": 3, "seed": 9}):
        sources.open_indexed("scenes", bundle.catalog, **options)
    sources.open_indexed("a/folder", bundle.catalog)
    assert [(one["data"], one["samples"], one["seed"]) for one in asked] == [
        ("scenes", 1000, 1), ("scenes", 3, 1), ("scenes", 1000, 0), ("scenes", 3, 9), ("a/folder", 0, None),
    ]  # fmt: skip


def test_an_index_needs_a_run_whose_data_are_found_from_any_folder(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(sources, "open_source", lambda *given: opened.append(given))
    for source, is_found in (("data", False), (str(tmp_path / "data"), True), ("scenes", True), ("s3://a/b", True)):
        recipe = {"catalog": "scenes", "data": {"source": source}, "train": {"steps": 1}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        if is_found:
            sources.open_indexed("", bundle.catalog, run=str(tmp_path))
        else:
            with pytest.raises(MaskweaveError, match=r"data\.source is the relative path 'data', .* such as /"):
                sources.open_indexed("", bundle.catalog, run=str(tmp_path))
    assert len(opened) == 3


def test_an_index_that_names_code_needs_leave(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)
    facts = {"data": {"data": "python: own_sources:fixed", "samples": 0, "seed": None, "run": ""}}
    with pytest.raises(MaskweaveError, match="the data of the index is code, python: own_sources:fixed"):
        sources.reopen_indexed(facts, bundle.catalog)
    opened = sources.reopen_indexed({"data": {"data": "scenes", "samples": 2, "seed": 4}}, bundle.catalog)
    assert [opened.key(i) for i in range(len(opened))] == ["4-0000000", "4-0000001"]


def test_rows_of_a_sheet_have_five_results(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(sheet, "contact_sheet", lambda rows, catalog, **options: made.update(rows=rows, **options))
    source = scenes(8)

    class Torn:
        def __getitem__(self, i: int) -> dict[str, Any]:
            if i == 6:
                raise BadSample("torn")
            return {"depth": i, "rgb": f"picture {i}"}

    hits = [Hit(i, f"key{i}", 0.5 + i / 100) for i in range(7)]
    inputs = {"rgb": "asked", "caption": "words", "depth": Tokens(np.zeros(64))}
    sheet.sheet_of(inputs, hits, Torn(), bundle.catalog, "depth")  # type: ignore[arg-type]
    first, second = made["rows"]
    assert isinstance(first, TileRow) and [len(row.tiles) for row in (first, second)] == [6, 3]
    assert first.tiles[0] == Tile("rgb", "asked", "rgb", "asked") and second.tiles[0] == Tile(
        "caption", "words", "caption", "asked"
    )
    assert first.tiles[1] == Tile("depth", 0, "1.  0.500  key0", "picture 0")
    assert second.tiles[2] == Tile("depth", None, "7.  0.560  key6", None), "shown as missing"
    assert (made["headings"], made["divider"]) == (("query", "found"), 1) and len(source) == 8
    sheet.sheet_of({"rgb": 1, "caption": 2}, hits[:2], Torn(), bundle.catalog, "depth")  # type: ignore[arg-type]
    assert [len(row.tiles) for row in made["rows"]] == [3, 1]
