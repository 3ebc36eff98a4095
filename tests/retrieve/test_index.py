import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from job_parts import check_parts
from PIL import Image
from small_bundle import catalog, m3ae_bundle, scenes, small_bundle

from maskweave.data.pictures import Pictures
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import write_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import bulk_precision
from maskweave.generate.token_state import pack_inputs, token_states
from maskweave.modality.catalogs import load_catalog
from maskweave.models.contrastive import Contrastive, ContrastiveConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.retrieve import indexing
from maskweave.retrieve.features import Pooled, Predicted, fourths_of, vectors_of
from maskweave.retrieve.index import Index
from maskweave.retrieve.indexing import make_index
from maskweave.retrieve.recall import describe, ndcg, recall
from maskweave.retrieve.sheet import sheet_of
from maskweave.retrieve.sources import SEED, open_indexed

pytestmark = pytest.mark.usefixtures("to_the_end")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def indexed(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "scenes"
    make_index(bundle, scenes(20), folder, views=["rgb", "depth"], shard_size=8)
    return folder


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_pooled_features_are_the_mean_over_the_tokens_that_are_there(bundle: Bundle) -> None:
    samples = [{"caption": s["caption"]} for s in scenes(5)]
    known = token_states(bundle.catalog, samples, bundle.tokenizers)
    slots, rows = pack_inputs(bundle.catalog, known, [frozenset(known)], np.arange(5))
    with torch.inference_mode():
        encoded = bundle.model.encode(slots, rows)
    expected = [x[there].mean(dim=0).numpy() for x, there in zip(encoded, slots.modality != 0, strict=True)]
    np.testing.assert_allclose(Pooled(bundle)(samples), np.stack(expected), atol=1e-5)


def test_each_quarter_of_a_picture_has_its_own_features(bundle: Bundle) -> None:
    samples = [{"rgb": s["rgb"]} for s in scenes(3)]
    cells = bundle.encoder(["rgb"])(samples).feature_map("rgb").numpy()  # (3, D, 8, 8)
    quarters = [cells[:, :, r : r + 4, c : c + 4].mean(axis=(2, 3)) for r in (0, 4) for c in (0, 4)]
    np.testing.assert_allclose(Pooled(bundle, quarters=True)(samples), np.concatenate(quarters, axis=1), atol=1e-5)
    captions = [{"caption": s["caption"]} for s in scenes(3)]
    np.testing.assert_array_equal(Pooled(bundle, quarters=True)(captions), np.tile(Pooled(bundle)(captions), 4))


@pytest.mark.parametrize("model", [M3AE, Contrastive])
def test_a_quarter_that_is_unknown_takes_the_features_of_the_whole(model: Any, tmp_path: Path) -> None:
    value = {"type": "map", "size": [16, 16], "range": [0, 1], "missing": "nan"}
    write_yaml(
        tmp_path / "mine.yaml", {"modalities": {"map": {"id": 1, "kind": "patches", "grid": [4, 4], "value": value}}}
    )
    mine = load_catalog(str(tmp_path / "mine.yaml"))
    torch.manual_seed(0)
    config = {"width": 16, "depth": 1, "heads": 2}
    bundle = Bundle(
        mine,
        {},
        M3AE(mine, M3AEConfig(**config, decoder_width=16, decoder_depth=1, decoder_heads=2))
        if model is M3AE
        else Contrastive(mine, ContrastiveConfig(**config)),
    )
    values = np.random.default_rng(0).random((2, 16, 16)).astype(np.float32)
    values[0, :8, :8] = np.nan
    samples = [{"map": value} for value in values]
    quarters, whole = Pooled(bundle, quarters=True)(samples), Pooled(bundle)(samples)
    assert np.isfinite(quarters).all()
    np.testing.assert_allclose(quarters[0, :16], whole[0], atol=1e-6)
    assert not np.allclose(quarters[0, 16:32], whole[0], atol=1e-3)
    assert not np.allclose(quarters[1, :16], whole[1], atol=1e-3)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((), []),
        ((3,), []),
        ((6,), [[0, 1], [2, 3], [4], [5]]),
        ((1, 8), []),
        ((2, 3), [[0, 1], [2], [3, 4], [5]]),
        ((2, 2, 2), [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ],
)
def test_fourths_of_a_grid(grid: tuple[int, ...], expected: list[list[int]]) -> None:
    assert [part.tolist() for part in fourths_of(grid)] == expected


def test_features_of_an_m3ae(tmp_path: Path) -> None:
    bundle = m3ae_bundle()
    make_index(bundle, scenes(6), tmp_path / "index", views=["rgb", "caption"])
    index = Index(tmp_path / "index", bundle)
    assert index.query({"caption": scenes(6)[4]["caption"]}, view="caption", k=1)[0].number == 4


def test_scores_are_cosines_of_centered_vectors(bundle: Bundle, indexed: Path) -> None:
    features = Pooled(bundle, quarters=True)
    by = {n: features([{n: s[n]} for s in scenes(20)]) for n in ("rgb", "depth", "caption")}
    centered = {name: unit(x - x.mean(axis=0)) for name, x in by.items()}
    query = {name: scenes(20)[3][name] for name in ("depth", "caption")}
    hits = Index(indexed, bundle).query(query, weights={"caption": 0.5}, k=20)
    expected = (centered["depth"][3] + 0.5 * centered["caption"][3]) / 1.5 @ centered["rgb"].T
    assert sorted(hit.number for hit in hits) == list(range(20))
    found = np.array([hit.score for hit in hits])
    assert (np.diff(found) <= 0).all()
    np.testing.assert_allclose(found, expected[[hit.number for hit in hits]], atol=5e-3)  # stored in 16 bits
    assert hits[0].key == scenes(20).key(hits[0].number)


def test_both_searches_give_the_same(bundle: Bundle, indexed: Path) -> None:
    pytest.importorskip("faiss")
    found = [Index(indexed, bundle, backend).query({"depth": scenes(20)[2]["depth"]}) for backend in ("faiss", "torch")]
    np.testing.assert_allclose(*([hit.score for hit in hits] for hits in found), atol=1e-6)
    scores = [{hit.number: hit.score for hit in hits} for hits in found]
    worst = min(scores[0].values())
    for one, other in (scores, scores[::-1]):  # only the last may differ, where two are as good
        assert all(other.get(number, worst) == pytest.approx(score, abs=1e-6) for number, score in one.items())


def test_a_sample_finds_itself_and_an_unwanted_one_comes_last(bundle: Bundle, indexed: Path) -> None:
    index = Index(indexed, bundle)
    picture = scenes(20)[11]["rgb"]
    [first] = index.query({"rgb": picture}, k=1)
    assert first.number == 11 and first.score == pytest.approx(1, abs=1e-3)
    last = index.query({"rgb": picture}, weights={"rgb": -1}, k=20)[-1]
    assert last.number == 11 and last.score == pytest.approx(-1, abs=1e-3)


def test_going_on_makes_only_what_is_missing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    make_index(bundle, scenes(20), folder, shard_size=8)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "shard-00001.json").unlink()
    with pytest.raises(MaskweaveError, match="not finished; run the same"):
        Index(folder, bundle)
    encoded = []
    whole = Pooled.__call__
    monkeypatch.setattr(Pooled, "__call__", lambda self, samples: encoded.extend(samples) or whole(self, samples))
    made = make_index(bundle, scenes(20), folder, shard_size=8)
    assert len(encoded) == 8 and made.vectors == {"rgb": 20} and made.skips.seen == 20
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_record_of_a_shard_is_read_once(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = indexing.read_json
    monkeypatch.setattr(indexing, "read_json", lambda path, **more: read.append(path.name) or whole(path, **more))
    made = make_index(bundle, scenes(20), tmp_path / "index", shard_size=8)
    assert made.vectors == {"rgb": 20} and made.skips.seen == 20
    assert sorted(name for name in read if name.startswith("shard")) == [f"shard-0000{n}.json" for n in range(3)]


def test_another_model_is_told(bundle: Bundle, indexed: Path) -> None:
    other = small_bundle(seed=1)
    with pytest.raises(MaskweaveError, match="does not match its model"):
        Index(indexed, other)
    with pytest.raises(MaskweaveError, match="made with other settings \\(model differ\\)"):
        make_index(other, scenes(20), indexed, views=["rgb", "depth"], shard_size=8)
    with pytest.raises(MaskweaveError, match="keys, samples differ"):
        make_index(bundle, scenes(21), indexed, views=["rgb", "depth"], shard_size=8)


class Broken:
    """Scenes of which some cannot be read, some lack a picture, and some have one that does not fit."""

    names = ("rgb", "depth", "caption")

    def __len__(self) -> int:
        return 10

    def key(self, i: int) -> str:
        return f"number {i}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i == 2:
            raise BadSample("number 2: torn")
        sample = scenes(10)[i]
        if i == 5:
            del sample["rgb"]
        if i == 7:
            sample["rgb"] = sample["rgb"][:32]
        return sample


def test_bad_samples_are_skipped_and_counted(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="2 of 10 samples are unusable"):
        make_index(bundle, Broken(), tmp_path / "index", views=["depth", "rgb"])
    made = make_index(bundle, Broken(), tmp_path / "index", views=["depth", "rgb"], limit=0.2)
    assert made.vectors == {"depth": 8, "rgb": 7}
    assert [key for key, _ in made.skips.skipped] == ["number 2", "number 7"]
    again = make_index(bundle, Broken(), tmp_path / "index", views=["depth", "rgb"], limit=0.2)
    assert again.skips.skipped == made.skips.skipped
    assert json.loads((tmp_path / "index" / "shard-00000.json").read_text(encoding="utf-8"))["skipped"] == 2
    index = Index(tmp_path / "index", bundle)
    assert [hit.number for hit in index.query({"rgb": scenes(10)[9]["rgb"]}, view="rgb", k=1)] == [9]
    assert {hit.number for hit in index.query({"rgb": scenes(10)[9]["rgb"]}, view="rgb")} == {0, 1, 3, 4, 6, 8, 9}


def test_a_damaged_or_missing_index_is_told(bundle: Bundle, indexed: Path, tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="has no index.json"):
        Index(tmp_path, bundle)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="contains other files but no index"):
        make_index(bundle, scenes(4), tmp_path)
    facts = json.loads((indexed / "index.json").read_text(encoding="utf-8"))
    (tmp_path / "index.json").write_text(json.dumps({**facts, "format": 0}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="has format 0, expected"):
        Index(tmp_path, bundle)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"inputs": {}}, "one input or more"),
        ({"inputs": {"rgd": 1}}, "unknown modality 'rgd'"),
        ({"inputs": {"caption": "a cube"}, "weights": {"depth": 1}}, "weight of 'depth': not among the inputs caption"),
        ({"inputs": {"caption": "a cube"}, "weights": {"caption": 0}}, "at least one of them not 0"),
        ({"inputs": {"caption": "a cube"}, "view": "caption"}, "'caption' is not indexed; choose one of rgb, depth"),
        ({"inputs": {"caption": "a cube"}, "k": 0}, "k must be 1 or more"),
    ],
)
def test_bad_queries_are_refused(bundle: Bundle, indexed: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        Index(indexed, bundle).query(**asked)


def test_views_must_be_there(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        MaskweaveError,
        match="'global' cannot be indexed; the model reads these modalities of the data set: rgb, depth, caption",
    ):
        make_index(bundle, scenes(4), tmp_path / "index", views=["global"])
    with pytest.raises(MaskweaveError, match="unknown modality"):
        make_index(bundle, scenes(4), tmp_path / "index", views=["rgp"])
    with pytest.raises(MaskweaveError, match="expected kind grid with values of type 'vector'.*global"):
        make_index(bundle, scenes(4), tmp_path / "index", feature_modality="depth")


def test_what_has_no_tokenizer_is_left_aside(bundle: Bundle, tmp_path: Path) -> None:
    """As in bundles of published checkpoints, to which tokenizers are given for some grids alone."""
    without = Bundle(bundle.catalog, {"caption": bundle.tokenizers["caption"]}, bundle.model)
    make_index(without, scenes(6), tmp_path / "index")
    assert Index(tmp_path / "index", without).query({"rgb": scenes(6)[2]["rgb"]}, k=1)[0].number == 2
    with pytest.raises(
        MaskweaveError,
        match="'depth' cannot be indexed; the model reads these modalities of the data set: rgb, caption",
    ):
        make_index(without, scenes(6), tmp_path / "other", views=["depth"])


def test_through_a_predicted_modality(bundle: Bundle, tmp_path: Path) -> None:
    class WithVectors(type(scenes(1))):  # type: ignore[misc]
        names = ("rgb", "depth", "caption", "global")

        def __getitem__(self, i: int) -> dict[str, Any]:
            vector = np.random.default_rng(i).normal(size=128).astype(np.float32)
            return {**super().__getitem__(i), "global": vector}

    source = WithVectors(catalog("rgb", "depth", "caption"), 12, 7)
    make_index(bundle, source, tmp_path / "index", views=["rgb", "global"], feature_modality="global", shard_size=5)
    index = Index(tmp_path / "index", bundle)
    # What lies in the index is what the model predicts of each picture, whatever shard or batch it stood in ...
    [alone] = vectors_of(Predicted(bundle, "global"), [{"rgb": source[9]["rgb"]}])
    vectors = np.stack([bundle.generate({"rgb": source[i]["rgb"]}, ["global"])["global"] for i in range(12)])
    np.testing.assert_allclose(vectors[9], alone, atol=1e-5)
    expected = unit(vectors - vectors.mean(axis=0))
    np.testing.assert_allclose(index.view("rgb").vectors, expected, atol=2e-2)
    # ... or, of a sample that has the vector, that vector as its tokens have it.
    tokenizer = bundle.tokenizers["global"]
    [reconstructed] = tokenizer.decode(tokenizer.encode([source[9]["global"]]))
    np.testing.assert_allclose(Predicted(bundle, "global")([{"global": source[9]["global"]}])[0], reconstructed)
    assert index.query({"global": source[9]["global"]}, view="global", k=1)[0].number == 9
    # Inputs without weights predict together.
    both = {name: source[3][name] for name in ("rgb", "caption")}
    together = bundle.generate(both, ["global"])["global"]
    score = unit(together - vectors.mean(axis=0)) @ expected.T
    np.testing.assert_allclose(index.vectors([both], "rgb")[0] @ index.view("rgb").vectors.T, score, atol=2e-2)


def test_recall_of_what_is_the_same_and_of_what_is_not(bundle: Bundle, indexed: Path) -> None:
    index = Index(indexed, bundle)
    same = recall(index, scenes(20), ["rgb"], ks=(1, 3))
    assert same.at == {1: 1.0, 3: 1.0} and same.median_rank == 1 and same.chance == {1: 0.05, 3: 0.15}
    assert same.ndcg == {1: 1.0, 3: 1.0} and same.intervals == {1: (1.0, 1.0), 3: (1.0, 1.0)}
    index.view("rgb").vectors[:] = index.view("rgb").vectors[0]  # nothing tells them apart: equal ones count against it
    lost = recall(index, scenes(20), ["caption", "depth"])
    assert lost.at[10] == 0 and lost.median_rank == 20 and lost.queries == lost.vectors == 20
    assert "caption + depth" in describe([lost])
    with pytest.raises(MaskweaveError, match="no indexed sample has global"):
        recall(index, scenes(20), ["global"])


def test_ndcg_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    scores = np.random.default_rng(0).random((30, 12))
    relevant = np.eye(12)[np.arange(30) % 12]
    ranks = 1 + (scores > (scores * relevant).sum(axis=1, keepdims=True)).sum(axis=1)
    for k in (1, 5, 12):
        assert ndcg(ranks, k).mean() == pytest.approx(ndcg_score(relevant, scores, k=k))


def test_a_folder_of_pictures(bundle: Bundle, tmp_path: Path) -> None:
    for i, sample in enumerate(scenes(3)):
        (tmp_path / "a" / "b").mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample["rgb"]).resize((96, 80)).save(tmp_path / "a" / ("b" if i else "") / f"{i}.png")
    (tmp_path / ".hidden.png").write_bytes(b"left aside")
    (tmp_path / "a" / "torn.jpg").write_bytes(b"no picture")
    source = open_indexed(str(tmp_path), bundle.catalog)
    assert isinstance(source, Pictures) and source.names == ("rgb",)
    assert [source.key(i) for i in range(len(source))] == ["a/0.png", "a/b/1.png", "a/b/2.png", "a/torn.jpg"]
    assert source[1]["rgb"].shape == (64, 64, 3)
    assert len(open_indexed(str(tmp_path), bundle.catalog, samples=2)) == 2
    with pytest.raises(MaskweaveError, match="remove the seed"):
        open_indexed(str(tmp_path), bundle.catalog, seed=1)
    made = make_index(bundle, source, tmp_path.parent / "index of pictures", limit=0.5)
    assert made.vectors == {"rgb": 3} and [key for key, _ in made.skips.skipped] == ["a/torn.jpg"]


def test_of_scenes_others_than_those_of_training_are_indexed(bundle: Bundle) -> None:
    source = open_indexed("scenes", bundle.catalog, samples=2)
    assert len(source) == 2 and source.key(0) == f"{SEED}-0000000"
    assert len(open_indexed("scenes", bundle.catalog)) == 1000
    assert open_indexed("scenes", bundle.catalog, samples=1, seed=0).key(0) == "0-0000000"


def test_data_that_are_not_there_are_told(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        MaskweaveError, match="no such folder; expected an imported data set .* or a named source \\(scenes"
    ):
        open_indexed(str(tmp_path / "missing"), bundle.catalog)
    with pytest.raises(MaskweaveError, match="contains no pictures"):
        open_indexed(str(tmp_path), bundle.catalog)
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    with pytest.raises(MaskweaveError, match="maskweave data import"):
        open_indexed(str(tmp_path), bundle.catalog)


def test_the_sheet_shows_query_and_results(bundle: Bundle, indexed: Path) -> None:
    index = Index(indexed, bundle)
    inputs = bundle.read({"caption": "a cube", "depth": scenes(20)[0]["depth"]})
    hits = index.query(inputs, k=7)
    sheet = sheet_of(inputs, hits, scenes(20), bundle.catalog, "rgb")
    blank = sheet_of(inputs, [], scenes(20), bundle.catalog, "rgb")
    assert sheet.width > blank.width + 4 * 144 and sheet.height > 2 * 144


def test_parts_of_an_index_make_the_whole(bundle: Bundle, tmp_path: Path) -> None:
    last = check_parts(
        lambda folder, part: make_index(bundle, scenes(20), folder, views=["rgb"], shard_size=8, part=part), tmp_path
    )
    assert last.vectors == {"rgb": 20} and not last.unfinished


def test_features_in_the_precision_of_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [{"rgb": s["rgb"]} for s in scenes(4)]
    exact = Pooled(bundle)(samples)
    assert bulk_precision(torch.device("cpu")) == "float32" and bulk_precision(torch.device("cuda")) == "bf16"
    monkeypatch.setattr("maskweave.retrieve.features.bulk_precision", lambda _: "bf16")
    rough = Pooled(bundle)(samples)
    assert rough.dtype == np.float32 and not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())
