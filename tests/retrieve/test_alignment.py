"""Projections that bring together what belongs together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_parts import check_parts
from small_bundle import catalog, scenes, small_bundle

from maskweave.errors import BadSample, MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.retrieve import alignment
from maskweave.retrieve import index as indexes
from maskweave.retrieve.alignment import LEAST, fit_projections, principal, ranks_of, unit
from maskweave.retrieve.features import Pooled
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.retrieve.pairs import PairSource
from maskweave.retrieve.recall import recall
from maskweave.retrieve.search import Searcher
from maskweave.synthetic.scenes import Scenes

pytestmark = pytest.mark.usefixtures("to_the_end")


def pairs_of(count: int, seed: int, shared: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of vectors that share six weak directions among strong ones of their own, turned differently."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    mixing = [fixed.normal(size=(40, 40)) for _ in range(2)]
    common = rng.normal(size=(count, shared))
    both = [np.concatenate([common, 3 * rng.normal(size=(count, 40 - shared))], axis=1) @ m + 5 for m in mixing]
    return both[0].astype(np.float32), both[1].astype(np.float32)


def test_new_pairs_are_found_after_the_projection_and_not_before() -> None:
    fitted = fit_projections(*pairs_of(1000, 0))
    assert fitted is not None and fitted.projections is not None and fitted.pairs == 1000
    query, view = (new - old.mean(axis=0) for new, old in zip(pairs_of(300, 1), pairs_of(1000, 0), strict=True))
    before = (ranks_of(query, view) <= 10).mean()
    after = (ranks_of(query @ fitted.projections.query, view @ fitted.projections.view) <= 10).mean()
    assert before < 0.15 and after > 0.8
    assert fitted.before < 0.2 and fitted.after == pytest.approx(after, abs=0.15), "of 200 pairs, not 300"


def test_directions_have_the_correlations_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Almost without shrinkage. Both sides of a direction are scaled by the square of its correlation, so their covariance is its fifth power."""
    from sklearn.cross_decomposition import CCA

    monkeypatch.setattr(alignment, "SHRINKAGE", (1e-9,))
    rng = np.random.default_rng(1)
    query, view = (x.astype(float) + 2 * rng.normal(size=x.shape) for x in pairs_of(1000, 0))
    fitted = fit_projections(query, view)
    assert fitted is not None and fitted.projections is not None
    sides = [(x - x.mean(axis=0)) @ p for x, p in zip((query, view), fitted.projections, strict=True)]
    found = np.array([np.corrcoef(sides[0][:, i], sides[1][:, i])[0, 1] for i in range(4)])
    assert found.min() > 0.3 and found.max() < 0.99
    one, other = CCA(4, scale=False, max_iter=2000).fit(query, view).transform(query, view)
    np.testing.assert_allclose(found, [np.corrcoef(one[:, i], other[:, i])[0, 1] for i in range(4)], atol=1e-3)
    np.testing.assert_allclose(np.mean(sides[0] * sides[1], axis=0)[:4], found**5, rtol=1e-3)


def test_what_is_not_clearly_better_is_not_projected() -> None:
    for seed in range(5):
        query, view = pairs_of(400, seed)[0], pairs_of(400, 10 + seed)[1]
        fitted = fit_projections(query, view)
        assert fitted is not None and fitted.projections is None, "nothing in common"
        assert fitted.after == fitted.before < 0.35 and fitted.held == 80
    same = fit_projections(query, query)
    assert same is not None and same.projections is None and same.before == 1, "nothing is better than finding each"
    constant = fit_projections(np.ones((100, 4), np.float32), np.ones((100, 4), np.float32))
    assert constant is not None and constant.projections is None


def test_few_or_infinite_numbers_are_no_pairs() -> None:
    query, view = pairs_of(LEAST, 0)
    assert fit_projections(query, view) is not None
    assert fit_projections(query[1:], view[1:]) is None and fit_projections(query[:0], view[:0]) is None
    query, view = pairs_of(1000, 0)
    query[3, 2], view[40, 1] = np.nan, np.inf
    fitted = fit_projections(query, view)
    assert fitted is not None and fitted.pairs == 998 and fitted.after > 0.8


@pytest.mark.parametrize("count", [150, 900], ids=["fewer rows than columns", "more"])
def test_wide_features_are_reduced_to_their_principal_directions(count: int) -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(size=(count, 20)) @ rng.normal(size=(20, 700))
    basis = principal(low.astype(np.float32) + 3)
    assert basis.shape[0] == 700 and basis.shape[1] <= 512
    centered = low - low.mean(axis=0)
    np.testing.assert_allclose(centered @ basis @ basis.T, centered, atol=1e-3 * np.abs(centered).max())
    assert np.array_equal(principal(low[:, :512]), np.eye(512))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def aligned(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "aligned"
    made = make_index(bundle, scenes(20), folder, views=["rgb", "depth"], align=train(), shard_size=8)
    assert made.alignment is not None
    found = {(one.query, one.view): one for one in made.alignment.rows}
    assert found.keys() == {("caption", "rgb"), ("depth", "rgb"), ("rgb", "depth"), ("caption", "depth")}
    assert {one.held for one in found.values()} == {30} and found["depth", "rgb"].projected
    return folder


def train(count: int = 150) -> Scenes:
    return Scenes(catalog("rgb", "depth", "caption"), count, 70)


def by_hand(bundle: Bundle, name: str, view: str) -> tuple[np.ndarray, np.ndarray]:
    """The compared vectors of twenty scenes as queries and as a view, computed once more."""
    features = Pooled(bundle, quarters=True)
    pairs, new = (
        {n: features([{n: s[n]} for s in source]) for n in (name, view)} for source in (train(), scenes(20))
    )  # fmt: skip
    stored = new[view].astype(np.float16).astype(np.float32)
    fitted = fit_projections(*(pairs[n].astype(np.float16) for n in (name, view)))
    assert fitted is not None
    own = [new[name] - new[name].mean(axis=0), stored - new[view].mean(axis=0)]
    projections = fitted.projections if name != view else None  # as they are, of the same modality
    return tuple(unit(x @ p) for x, p in zip(own, projections, strict=True)) if projections else tuple(map(unit, own))  # type: ignore[return-value]


def test_scores_of_several_inputs_are_sums_over_their_own_projections(bundle: Bundle, aligned: Path) -> None:
    index, weights = Index(aligned, bundle), {"depth": 1.0, "caption": -0.5, "rgb": 0.25}
    expected = np.zeros(20)
    for name, weight in weights.items():
        query, view = by_hand(bundle, name, "rgb")
        expected += weight * (query[3] @ view.T) / 1.75
    hits = index.query({name: scenes(20)[3][name] for name in weights}, weights=weights, k=20)
    np.testing.assert_allclose([h.score for h in hits], expected[[h.number for h in hits]], atol=1e-3)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    query, view = by_hand(bundle, "rgb", "depth")
    only = index.query({"rgb": scenes(20)[3]["rgb"], "caption": "a cube"}, view="depth", weights={"caption": 0}, k=20)
    np.testing.assert_allclose([h.score for h in only], (query[3] @ view.T)[[h.number for h in only]], atol=1e-3)


def test_recall_is_that_of_the_queries(bundle: Bundle, aligned: Path) -> None:
    query, view = by_hand(bundle, "depth", "rgb")
    ranks = ((query @ view.T) >= np.diag(query @ view.T)[:, None] - 1e-3).sum(axis=1)
    found = recall(Index(aligned, bundle), scenes(20), ["depth"])
    assert found.median_rank == pytest.approx(np.median(ranks), abs=1)
    assert found.at[5] == pytest.approx((ranks <= 5).mean(), abs=0.11)


def test_an_alignment_stays_and_belongs_to_the_index(bundle: Bundle, aligned: Path) -> None:
    before = (aligned / "alignment.safetensors").read_bytes()
    options: dict[str, Any] = {"views": ["rgb", "depth"], "shard_size": 8}
    again = make_index(bundle, scenes(20), aligned, align=train(), **options)
    assert (aligned / "alignment.safetensors").read_bytes() == before
    assert again.alignment is not None and len(again.alignment.rows) == 4 and again.alignment.keys >= {"70-0000149"}
    for other in (train(100), None):
        with pytest.raises(MaskweaveError, match="made with other settings \\(aligned differ\\)"):
            make_index(bundle, scenes(20), aligned, align=other, **options)


def test_parts_have_the_same_alignment(bundle: Bundle, tmp_path: Path) -> None:
    last = check_parts(
        lambda folder, part: make_index(
            bundle, scenes(20), folder, views=["rgb"], align=train(), shard_size=8, part=part
        ),
        tmp_path,
    )
    assert last.alignment is not None and {one.query for one in last.alignment.rows} == {"depth", "caption"}


class Few:
    """Scenes of which some lack depth, and some cannot be read."""

    names = ("rgb", "caption", "depth")

    def __len__(self) -> int:
        return 130

    def key(self, i: int) -> str:
        return str(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i == 129:
            raise BadSample("129: torn")
        sample = dict(train()[i])
        if i < 40:
            del sample["depth"]
        if i == 20:
            sample["caption"] = 3
        return sample


def test_pairs_that_are_missing_or_broken_are_left_out_and_told(bundle: Bundle, tmp_path: Path) -> None:
    made = make_index(bundle, scenes(8), tmp_path / "index", views=["rgb"], align=PairSource("few", Few)).alignment
    assert made is not None and [(one.query, one.held) for one in made.rows] == [("caption", 26)], "89 with depth"
    assert (made.samples, made.unusable) == (130, 1)
    assert str(made).startswith("aligned with 129 samples of few (1 more cannot be read); recall at 10 among a fifth")
    assert Index(tmp_path / "index", bundle).query({"depth": scenes(8)[1]["depth"]}, k=1)
    with pytest.raises(MaskweaveError, match="give either align \\(--align\\) or feature_modality"):
        make_index(bundle, scenes(8), tmp_path / "other", feature_modality="global", align=train())


def test_pictures_alone_are_found_by_other_modalities(bundle: Bundle, tmp_path: Path) -> None:
    """Data without the query's modality: its mean is that of the pairs."""
    for name, source in (("all", scenes(40)), ("pictures", Scenes(catalog("rgb"), 40, 7))):
        make_index(bundle, source, tmp_path / name, views=["rgb"], align=train())
    both, alone = (Index(tmp_path / name, bundle) for name in ("all", "pictures"))
    queries = [{"depth": s["depth"]} for s in scenes(40)]
    scores = [index.vectors(queries, "rgb") @ index.view("rgb", ["depth"]).vectors.T for index in (both, alone)]
    ranks = [(s >= np.diag(s)[:, None]).sum(axis=1) for s in scores]
    assert np.median(ranks[1]) <= np.median(ranks[0]) + 2 < 20
    assert np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1] > 0.9


def test_pairs_that_are_not_required_may_be_missing(bundle: Bundle, tmp_path: Path) -> None:
    def missing() -> Scenes:
        raise MaskweaveError("data/x: no such folder; expected one of many layouts")

    def torn() -> Any:
        class Torn(Few):
            def __getitem__(self, i: int) -> dict[str, Any]:
                raise MaskweaveError("the storage fails")

        return Torn()

    def lacking() -> Scenes:
        return Scenes(catalog("depth", "caption"), 120, 70)

    for number, (source, told) in enumerate(
        [
            (missing, "mine cannot be read: data/x: no such folder"),
            (torn, "mine cannot be read: the storage fails"),
            (lacking, "the data lacks rgb, or has no other modality that the model reads"),
            (lambda: train(99), "fewer than 100 usable samples have rgb and another modality"),
        ]
    ):
        folder = tmp_path / str(number)
        made = make_index(bundle, scenes(8), folder, views=["rgb"], align=PairSource("mine", source, required=False))
        assert (
            str(made.alignment) == f"not aligned: {told}; name data with --align for better results across modalities"
        )
        assert Index(folder, bundle).query({"rgb": scenes(8)[2]["rgb"]}, k=1)[0].number == 2
        later = make_index(bundle, scenes(8), folder, views=["rgb"], align=PairSource("mine", train, required=False))
        assert later.alignment == made.alignment, "what an index has stays"
    with pytest.raises(MaskweaveError, match="data/x: no such folder"):
        make_index(bundle, scenes(8), tmp_path / "required", views=["rgb"], align=PairSource("mine", missing))


def test_the_search_of_several_inputs_has_files_of_its_own(
    bundle: Bundle, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(
        indexes, "Searcher", lambda vectors, saved, backend: made.append(saved) or Searcher(vectors, None, "torch")
    )
    index, sample = Index(aligned, bundle), scenes(20)[3]
    both = ["depth", "rgb"]
    for view, names in (("rgb", ["depth"]), ("rgb", ["rgb"]), ("rgb", both), ("depth", both), ("rgb", ["depth"]), ("rgb", both)):  # fmt: skip
        inputs = {name: sample[name] for name in names}
        hits = index.query(inputs, view=view, k=20)
        scores = index.vectors([inputs], view) @ index.view(view, names).vectors.T
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores[0])[::-1], atol=1e-5)
    assert [path.name for path in made] == [f"{name}.faiss" for name in ("rgb+depth", "rgb+=", "rgb+=+depth", "depth+=+rgb", "rgb+=+depth")], (
        "of several inputs, the last search is kept"
    )  # fmt: skip
