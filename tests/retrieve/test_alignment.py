"""Projections that bring together what belongs together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_parts import check_parts
from small_bundle import catalog, scenes, small_bundle

from maskweave.errors import MaskweaveError
from maskweave.files import read_json
from maskweave.generate.bundle import Bundle
from maskweave.retrieve import alignment
from maskweave.retrieve.alignment import LEAST, fit_projections, ranks_of, unit
from maskweave.retrieve.features import Pooled
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.retrieve.recall import recall
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


def test_what_has_nothing_in_common_is_not_projected() -> None:
    query, view = pairs_of(400, 0)[0], pairs_of(400, 1)[1]
    fitted = fit_projections(query, view)
    assert fitted is not None and fitted.before == pytest.approx(10 / 80, abs=0.12)
    if fitted.projections is None:
        assert fitted.after == fitted.before
    same = fit_projections(query, query)
    assert same is not None and same.projections is None, "nothing is better than finding each"
    assert fit_projections(query[: LEAST - 1], view[: LEAST - 1]) is None
    constant = fit_projections(np.ones((100, 4), np.float32), np.ones((100, 4), np.float32))
    assert constant is not None and constant.projections is None


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def aligned(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "aligned"
    made = make_index(bundle, scenes(20), folder, views=["rgb", "depth"], align=train(), shard_size=8)
    assert {(one.query, one.view) for one in made.alignment} >= {("caption", "rgb"), ("depth", "rgb"), ("rgb", "depth")}
    assert {one.pairs for one in made.alignment} == {120}
    return folder


def train(count: int = 120) -> Scenes:
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
    projections = fitted.projections if name != view else None
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
    assert (aligned / "alignment.safetensors").read_bytes() == before and len(again.alignment) == 4
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
    assert {one.query for one in last.alignment} == {"depth", "caption"}


def test_pairs_that_are_missing_or_broken_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    class Few:
        names = ("rgb", "caption", "depth")

        def __len__(self) -> int:
            return 60

        def key(self, i: int) -> str:
            return str(i)

        def __getitem__(self, i: int) -> dict[str, Any]:
            sample = dict(train()[i])
            if i < 15:
                del sample["depth"]
            if i == 20:
                sample["caption"] = 3
            return sample

    made = make_index(bundle, scenes(8), tmp_path / "index", views=["rgb"], align=Few())
    assert [(one.query, one.pairs) for one in made.alignment] == [("caption", 59)], "45 pairs with depth are too few"
    assert read_json(tmp_path / "index/alignment.json")["samples"] == 60
    assert Index(tmp_path / "index", bundle).query({"depth": scenes(8)[1]["depth"]}, k=1)
    with pytest.raises(MaskweaveError, match="leave out either align or feature_modality"):
        make_index(bundle, scenes(8), tmp_path / "other", feature_modality="global", align=train())
