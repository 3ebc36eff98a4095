from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from job_parts import check_parts
from small_bundle import m3ae_bundle, save, scenes

from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import read_json, read_json_lines
from maskweave.generate.bundle import load
from maskweave.label import features
from maskweave.label.features import Extracted, extract_features
from maskweave.modality.catalogs import Catalog
from maskweave.ranks import JobPart
from maskweave.retrieve.features import Pooled
from maskweave.training.pipeline import run_recipe
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.sources import open_source

pytestmark = pytest.mark.usefixtures("to_the_end")

RECIPE = """\
catalog: scenes-global
modalities: [rgb, caption, global]
data: {source: scenes, sidecar: SIDECAR, samples: 12, validation: 4, shard_size: 5}
tokenizers: {samples: 12, train: {steps: 2, batch_size: 4}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 32, target_tokens: 32}}
train: {steps: 2, batch_size: 4}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("SIDECAR", str(tmp_path / "sidecar")), encoding="utf-8")
    return load_recipe(path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(m3ae_bundle(width=128), tmp_path_factory.mktemp("runs") / "m3ae"))


def test_a_network_s_features_become_a_modality_that_is_learned(recipe: Recipe, encoder: str, tmp_path: Path) -> None:
    folder, skips, _ = extract_features(recipe, encoder, "global")
    assert folder == tmp_path / "sidecar" and skips.seen == 16 and not skips.skipped
    catalog = recipe.load_catalog()
    for part, count, seed in (("train", 12, 0), ("validation", 4, 1)):
        source = open_source(recipe, catalog, part)
        assert len(source) == count and source.names == ("rgb", "caption", "global")
        samples = [source[i] for i in range(count)]
        vectors = Pooled(load(encoder))([{"rgb": scenes(count, seed)[i]["rgb"]} for i in range(count)])
        np.testing.assert_allclose(np.stack([sample["global"] for sample in samples]), vectors, atol=1e-5)
        assert all(sample["caption"] for sample in samples)
    # Other scenes than the recipe's have no vector, and are read all the same.
    assert "global" not in open_source(recipe, catalog, "validation", seed=5)[0]

    run_recipe(recipe, tmp_path / "run", "")
    bundle = load(tmp_path / "run")
    vector = bundle.generate({"caption": "1 object: a red cube."}, ["global"])["global"]
    assert vector.shape == (128,) and np.isfinite(vector).all()


def test_going_on_makes_only_what_is_missing(recipe: Recipe, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = extract_features(recipe, encoder, "global", ["rgb"]).folder
    before = {path.name: path.read_bytes() for path in (folder / "global").iterdir()}
    assert sorted(before) == [
        "features.json",
        *(f"{shard}.{end}" for shard in ("train-00000", "train-00001", "train-00002") for end in ("json", "tar")),
        "validation-00000.json",
        "validation-00000.tar",
    ]
    (folder / "global" / "train-00001.tar").unlink()
    encoded = []
    whole = Pooled.__call__
    monkeypatch.setattr(Pooled, "__call__", lambda self, samples: encoded.extend(samples) or whole(self, samples))
    extract_features(recipe, encoder, "global", ["rgb"])
    assert len(encoded) == 5
    assert {path.name: path.read_bytes() for path in (folder / "global").iterdir()} == before


def test_bad_samples_are_named_beside_the_record(recipe: Recipe, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[np.ndarray] = []
    whole = Pooled.__call__

    def refusing(self: Pooled, samples: list) -> np.ndarray:
        first.append(samples[0]["rgb"])
        if any(np.array_equal(sample["rgb"], first[0]) for sample in samples):
            raise BadSample("not this one")
        return whole(self, samples)

    monkeypatch.setattr(Pooled, "__call__", refusing)
    lenient = replace(recipe, data=replace(recipe.data, limit=0.2))
    folder, skips, _ = extract_features(lenient, encoder, "global", ["rgb"])
    assert len(skips.skipped) == 1 and skips.skipped[0][1] == "not this one"
    records = {path.stem: read_json(path) for path in (folder / "global").glob("*-*.json")}
    assert {shard: facts["skipped"] for shard, facts in records.items() if facts["skipped"]} == {"train-00000": 1}
    rows = list(read_json_lines(folder / "global" / "train-00000.skipped.jsonl"))
    assert [tuple(row) for row in rows] == skips.skipped
    assert extract_features(lenient, encoder, "global", ["rgb"])[1].skipped == skips.skipped


def test_what_is_not_finished_is_not_read(recipe: Recipe, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = recipe.load_catalog()
    with pytest.raises(MaskweaveError, match="no such folder; create it with 'maskweave data features'"):
        open_source(recipe, catalog, "train")
    whole, calls = Pooled.__call__, []

    def stop(self: Pooled, samples: list) -> np.ndarray:
        calls.append(samples)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, samples)

    monkeypatch.setattr(Pooled, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        extract_features(recipe, encoder, "global")
    with pytest.raises(MaskweaveError, match="the values of global are not complete"):
        open_source(recipe, catalog, "train")
    extract_features(recipe, encoder, "global")
    assert len(open_source(recipe, catalog, "train")) == 12


def test_misfits_are_told(recipe: Recipe, encoder: str, tmp_path: Path) -> None:
    small = str(save(m3ae_bundle(width=32), tmp_path / "small"))
    with pytest.raises(MaskweaveError, match="declare value: {type: vector, channels: 32}"):
        extract_features(recipe, small, "global")
    with pytest.raises(MaskweaveError, match="'rgb' has values of type 'image'"):
        extract_features(recipe, encoder, "rgb")
    with pytest.raises(MaskweaveError, match="unknown modality"):
        extract_features(recipe, encoder, "global", ["depht"])
    extract_features(recipe, encoder, "global")
    other = str(save(m3ae_bundle(width=128, seed=1), tmp_path / "other"))
    with pytest.raises(MaskweaveError, match="made with other settings \\(encoder differ\\)"):
        extract_features(recipe, other, "global")
    with pytest.raises(MaskweaveError, match="\\(inputs differ\\)"):
        extract_features(recipe, encoder, "global", ["rgb", "caption"])
    path = tmp_path / "plain.yaml"
    path.write_text(RECIPE.replace(", sidecar: SIDECAR", ""), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="no data.sidecar"):
        extract_features(load_recipe(path), encoder, "global")
    path.write_text(
        RECIPE.replace("source: scenes, sidecar: SIDECAR, samples: 12", "mix: {a: {source: scenes, samples: 12}}"),
        encoding="utf-8",
    )
    with pytest.raises(
        MaskweaveError, match="of one data set at a time: .* in a mix the folder is data.mix.NAME.sidecar"
    ):
        extract_features(load_recipe(path), encoder, "global")


def test_parts_of_features_make_the_whole(recipe: Recipe, encoder: str, tmp_path: Path) -> None:
    def job(folder: Path, part: JobPart) -> Extracted:
        data = replace(recipe.data, sidecar=str(folder), samples=10, validation=3)
        return extract_features(replace(recipe, data=data), encoder, "global", ["rgb"], part=part)

    assert check_parts(job, tmp_path).skips.seen == 13


@pytest.mark.parametrize("parts", [1, 2])
def test_shards_without_inputs_are_finished(
    recipe: Recipe, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    whole = features.given

    def given(sample: dict, catalog: Catalog, *names: str) -> dict | None:
        lacks = any(np.array_equal(sample["rgb"], scenes(12, 0)[i]["rgb"]) for i in range(5, 10))  # the second shard
        return None if lacks else whole(sample, catalog, *names)

    monkeypatch.setattr(features, "given", given)
    for index in range(parts):
        found = extract_features(recipe, encoder, "global", ["rgb"], part=JobPart(index, parts))
    folder = tmp_path / "sidecar" / "global"
    assert not found.unfinished and found.skips.seen == 16 and read_json(folder / "features.json")["finished"]
    tars, records = ({path.stem: path for path in folder.glob(f"*-*.{ending}")} for ending in ("tar", "json"))
    assert set(records) - set(tars) == {"train-00001"}
    assert {name: read_json(path)["vectors"] for name, path in records.items()} == {
        "train-00000": 5,
        "train-00001": 0,
        "train-00002": 2,
        "validation-00000": 4,
    }
    monkeypatch.setattr(features, "_write", lambda *args: pytest.fail("computed again"))
    extract_features(recipe, encoder, "global", ["rgb"])
