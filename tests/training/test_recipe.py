"""Recipes: read, overridden, checked; every message names the file, the key and what was expected."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from maskweave.config import plain
from maskweave.errors import MaskweaveError
from maskweave.families.base import family_named
from maskweave.families.fourm import FourMSettings
from maskweave.families.m3ae import M3AESettings
from maskweave.masking.fourm import MaskingConfig
from maskweave.modality.catalogs import load_catalog
from maskweave.models.m3ae import M3AEConfig
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import held_out_seed
from maskweave.transfer.recipe import load_transfer

BASE: dict[str, Any] = {"catalog": "scenes", "data": {"samples": 10}}


def recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
    return path


def test_a_short_recipe_is_complete_with_defaults(tmp_path: Path) -> None:
    found = load_recipe(recipe(tmp_path))
    assert found.data.samples == 10 and found.data.source == "scenes" and found.model.size == "nano"
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(plain(found)), encoding="utf-8")
    assert load_recipe(again) == found


def test_dotted_overrides_replace_and_add_keys(tmp_path: Path) -> None:
    path = recipe(tmp_path, train={"steps": 5, "batch_size": 3})
    found = load_recipe(path, {"train.steps": 200, "tokenizers.train.steps": 7, "tokenizers.steps.depth": 9, "seed": 4})
    assert (found.train.steps, found.train.batch_size, found.tokenizers.train.steps, found.seed) == (200, 3, 7, 4)
    assert found.tokenizers.steps == {"depth": 9}
    assert load_recipe(path).train.steps == 5, "the file is as it was"
    with pytest.raises(MaskweaveError, match=r"own.yaml: override 'seed.x': 'seed' is not a group of keys"):
        load_recipe(recipe(tmp_path, seed=3), {"seed.x": 1})


def test_groups_of_keys_are_joined_with_the_file_s(tmp_path: Path) -> None:
    path = recipe(tmp_path, tokenizers={"steps": {"depth": 3, "edges": 4}})
    assert load_recipe(path, {"tokenizers.steps": {"edges": 5}}).tokenizers.steps == {"depth": 3, "edges": 5}


def test_several_data_sets(tmp_path: Path) -> None:
    mix = {"a": {"source": "/x", "weight": 3}, "b": {"source": "scenes", "samples": 5, "sidecar": "/y"}}
    found = load_recipe(recipe(tmp_path, data={"mix": mix, "validation": 8, "seed": 2}))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(plain(found), sort_keys=False), encoding="utf-8")
    assert load_recipe(again) == found
    assert found.data.weights == {"a": 3, "b": 1}
    assert held_out_seed(found) is None, "one of them is a fixed data set"
    a, b = found.data.sets().values()
    assert (a.source, a.samples, a.sidecar, a.validation, a.seed) == ("/x", 0, "", 6, 2)
    assert (b.source, b.samples, b.sidecar, b.validation, b.seed) == ("scenes", 5, "/y", 2, 2)
    rare = load_recipe(
        recipe(tmp_path, data={"mix": {"a": {"source": "x", "weight": 99}, "b": {"source": "y"}}, "validation": 4})
    )
    assert [one.validation for one in rare.data.sets().values()] == [4, 1], "at least one of each is held out"
    alone = load_recipe(recipe(tmp_path)).data
    assert alone.sets() == {"": alone} and alone.weights == {"": 1}
    assert held_out_seed(load_recipe(recipe(tmp_path, data={"samples": 9, "seed": 4}))) == 5


def test_a_recipe_includes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_dump(load_catalog("scenes").subset(["depth", "rgb"]).to_plain())
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "own-catalog.yaml").write_text(content, encoding="utf-8")
    base = recipe(
        tmp_path / "base", catalog="own-catalog.yaml", train={"steps": 5, "batch_size": 3, "betas": [0.8, 0.9]}
    )
    over = tmp_path / "over.yaml"
    over.write_text(
        yaml.safe_dump({"include": "base/own.yaml", "train": {"steps": 7, "betas": [0.5, 0.6]}, "seed": 3}),
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path / "base")
    found = load_recipe(over, {"train.batch_size": 4})
    assert (found.train.steps, found.train.batch_size, found.train.betas, found.seed) == (7, 4, (0.5, 0.6), 3)
    assert set(found.load_catalog()) == {"rgb", "depth"} and found.data.samples == 10
    assert "include" not in plain(found) and load_recipe(base).train.steps == 5
    for name, words in (
        ("over.yaml", "this recipe includes itself"),
        ("gone.yaml", "no such file"),
        (3, "expected the path of a .yaml recipe"),
    ):
        over.write_text(yaml.safe_dump({"include": name}), encoding="utf-8")
        with pytest.raises(MaskweaveError, match=words):
            load_recipe(over)


def test_a_catalog_lies_beside_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    content = yaml.safe_dump(load_catalog("scenes").subset(["depth"]).to_plain())
    (tmp_path / "here" / "own-catalog.yaml").write_text(content, encoding="utf-8")
    path = recipe(tmp_path / "here", catalog="own-catalog.yaml")
    monkeypatch.chdir(tmp_path)
    found = load_recipe(path.relative_to(tmp_path))
    assert list(found.load_catalog()) == ["depth"]
    moved = tmp_path / "copy.yaml"  # as a run's recipe.yaml is
    moved.write_text(yaml.safe_dump(plain(found)), encoding="utf-8")
    assert load_recipe(moved) == found
    typed = load_recipe(recipe(tmp_path / "here", catalog="gone.yaml"), {"catalog": "here/own-catalog.yaml"})
    assert typed == found, "what is typed is a path from the working folder"


def test_a_part_of_a_catalog_brings_what_it_reads(tmp_path: Path) -> None:
    assert list(load_recipe(recipe(tmp_path, modalities=["tok_rgb", "caption"])).load_catalog()) == [
        "rgb",
        "tok_rgb",
        "caption",
    ]


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("catalogue", "scenes", "catalog"),  # codespell:ignore
        ("drawing", {"input_tokens": 3}, "model.masking"),
        ("objective", "m3ae", "model.family"),
        ("loss", "token", "model.loss"),
        ("m3ae", {"model": {"size": "B"}}, "model"),
        ("data", {"beside": "x"}, "data.sidecar"),
        ("data", {"mix": {"a": {"source": "x", "beside": "y"}}}, "data.mix.a.sidecar"),
        ("model", {"informed": True}, "model.init_from_tokenizers"),
        ("model", {"family": "m3ae", "normalised_patches": True}, "model.normalized_patches"),  # codespell:ignore
    ],
)
def test_old_keys_name_the_new_ones(tmp_path: Path, old: str, value: Any, new: str) -> None:
    with pytest.raises(MaskweaveError, match=f"own.yaml: the key '{old}.*' is now '{new}'; rename it"):
        load_recipe(recipe(tmp_path, **{old: value}))


def test_old_keys_of_overrides_entries_and_transfers_name_the_new_ones(tmp_path: Path) -> None:
    with pytest.raises(MaskweaveError, match="the key 'drawing' is now 'model.masking'"):
        load_recipe(recipe(tmp_path), {"drawing.input_tokens": 3})
    entries = yaml.safe_dump(load_catalog("scenes").subset(["depth"]).to_plain())
    (tmp_path / "old.yaml").write_text(entries.replace("quantizer", "quantiser"), encoding="utf-8")  # codespell:ignore
    with pytest.raises(
        MaskweaveError,
        match="'depth': the key 'tokenizer.quantiser' is now 'tokenizer.quantizer'",  # codespell:ignore
    ):  # codespell:ignore
        load_catalog(tmp_path / "old.yaml")
    with pytest.raises(MaskweaveError, match="own.yaml: the key 'catalogue' is now 'catalog'"):  # codespell:ignore
        load_transfer(recipe(tmp_path, catalogue="scenes", start="x", inputs=["rgb"]))  # codespell:ignore


def test_settings_are_those_of_the_family(tmp_path: Path) -> None:
    any_to_any = load_recipe(recipe(tmp_path, model={"tied": True, "masking": {"input_tokens": 5}, "loss": "token"}))
    assert any_to_any.model == FourMSettings(tied=True, masking=MaskingConfig(input_tokens=5), loss="token")
    assert any_to_any.family is family_named("fourm") and any_to_any.family.generates
    masked = load_recipe(recipe(tmp_path, modalities=["rgb", "caption"], model={"family": "m3ae", "depth": 3}))
    assert masked.model == M3AESettings(depth=3) and masked.model.family == "m3ae" and not masked.family.generates
    own = masked.model.resolved()
    assert (type(own), own.depth, own.width) == (M3AEConfig, 3, 128), "the architecture alone"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"traiin": {}}, ["unknown key 'traiin'", "did you mean 'train'"]),
        ({"train": {"step": 3}}, ["unknown key 'train.step'", "'train.steps'"]),
        ({"nothing like it": 1}, ["unknown key", "known keys: catalog, modalities"]),
        ({"train": {"steps": "many"}}, ["'train.steps'", "whole number", "'many'"]),
        ({"train": {"steps": 2.5}}, ["'train.steps'", "whole number", "2.5"]),
        ({"train": {"compile": 1}}, ["'train.compile'", "true or false"]),
        ({"train": {"precision": "fp8"}}, ["'train.precision'", "float32, bf16"]),
        ({"train": {"steps": 0}}, ["steps is 0", "1 or more"]),
        ({"train": None}, ["'train'", "expected keys and values", "None"]),
        ({"catalog": "scene"}, ["no catalog 'scene'", "scenes"]),
        ({"catalog": "gone.yaml"}, ["gone.yaml", "no such file"]),
        ({"modalities": ["depht"]}, ["unknown modality 'depht'", "depth"]),
        ({"model": {"size": "huge"}}, ["unknown size 'huge'", "nano"]),
        ({"model": {"width": 100, "heads": 3}}, ["width 100", "multiple of heads 3"]),
        ({"tokenizers": {"steps": {"caption": 3}}}, ["tokenizers.steps has 'caption'", "not a modality of kind grid"]),
        ({"tokenizers": {"steps": {"depth": 0}}}, ["tokenizers.steps.depth must be 1 or more", "found 0"]),
        ({"seed": -1}, ["seed and evaluate.seed must be 0 or more", "found -1 and 0"]),
        ({"data": {"samples": 9, "seed": -2}}, ["data.seed must be 0 or more", "found -2"]),
        ({"data": {"samples": 9, "limit": 2}}, ["data.limit must be a share from 0 to 1", "found 2"]),
        ({"tokenizers": {"jobs": 0}}, ["tokenizers.jobs", "1 or more"]),
        ({"tokenizers": {"train": {"processes": 4}}}, ["tokenizers.train.processes is 4", "set tokenizers.jobs"]),
        ({"train": {"lazy_embeddings": True, "processes": 2}}, ["'train'", "lazy_embeddings works only with one process", "processes is 2"]),
        ({"data": {"source": "scenes"}}, ["data.samples must be 1 or more", "found 0"]),
        ({"data": {"mix": {"a": {"source": "x", "weight": 0}}}}, ["data.mix.a.weight must be a number above 0", "found 0"]),
        ({"data": {"mix": {"a": {"source": "x", "weight": float("inf")}}}}, ["data.mix.a.weight must be a number above 0", "found inf"]),
        ({"data": {"mix": {"a": {"source": "x"}, "b": {"source": "y", "weight": 1e-5}}}}, ["data.mix.b.weight is 1e-05", "less than 1 in 1000"]),
        ({"data": {"mix": {"a": {"weight": 1}}}}, ["data.mix.a.source is missing", "named source such as 'scenes'"]),
        ({"data": {"mix": {"a/b": {"source": "x"}}}}, ["data.mix: 'a/b' cannot be used as a folder name", "letters, digits"]),
        ({"data": {"mix": {"a": {"source": "scenes"}}}}, ["data.mix.a.samples must be 1 or more for scenes", "found 0"]),
        ({"data": {"mix": {"a": {"source": "x", "share": 1}}}}, ["unknown key 'data.mix.a.share'", "source, weight"]),
        ({"data": {"mix": {"a": {"source": "x"}}, "source": "scenes"}}, ["data.source is for one data set", "data.mix"]),
        ({"data": {"mix": {"a": {"source": "x"}}, "samples": 9}}, ["data.samples is for one data set", "data.mix.NAME.samples"]),
        ({"data": {"mix": {"a": {"source": "x"}}, "sidecar": "y"}}, ["data.sidecar is for one data set", "data.mix.NAME.sidecar"]),
        ({"data": {"samples": 9, "validation": 0}}, ["data.validation must be 1 or more", "found 0"]),
        ({"evaluate": {"requests": [{"inputs": ["rbg"], "targets": ["depth"]}]}}, ["evaluate.requests.0 has 'rbg'", "rgb"]),
        ({"evaluate": {"sheets": [{"inputs": ["depth"], "targets": ["rgb"]}]}}, ["evaluate.sheets.0", "'rgb' is of kind patches", "cannot predict"]),
        ({"evaluate": {"requests": [{"inputs": ["rgb"]}]}}, ["'evaluate.requests.0.targets' is missing"]),
        ({"evaluate": {"requests": [{"inputs": ["rgb"], "targets": []}]}}, ["evaluate.requests.0.targets is empty"]),
        ({"evaluate": {"requests": [{"inputs": ["rgb"], "targets": ["depth", "depth"]}]}}, ["evaluate.requests.0.targets has 'depth' twice"]),
        ({"evaluate": {"requests": [{"inputs": ["rgb"], "via": ["boxes", "boxes"], "targets": ["depth"]}]}}, ["evaluate.requests.0.via has 'boxes' twice"]),
        ({"evaluate": {"requests": [{"inputs": ["caption"], "targets": ["tok_rgb"], "read": ["boxes", "boxes"]}]}}, ["evaluate.requests.0.read has 'boxes' twice"]),
        ({"evaluate": {"sheets": [{"inputs": ["rgb"], "via": ["depth"], "targets": ["depth"]}]}}, ["evaluate.sheets.0: 'depth' is both in via and in targets"]),
        ({"evaluate": {"sheets": [{"inputs": [], "targets": ["depth"]}]}}, ["evaluate.sheets.0.inputs is empty", "model.masking.unconditional"]),
        ({"evaluate": {"requests": [{"inputs": "rgb", "targets": ["depth"]}]}}, ["'evaluate.requests.0.inputs'", "a list", "'rgb'"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    path = recipe(tmp_path, **changes)
    with pytest.raises(MaskweaveError) as refused:
        load_recipe(path)
    said = str(refused.value)
    assert str(path) in said and "\n" not in said
    for word in words:
        assert word in said, said


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    for content, word in (
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- 1", "expected a mapping"),
        (b"", "expected a mapping"),
    ):
        path.write_bytes(content)
        with pytest.raises(MaskweaveError, match=word):
            load_recipe(path)
    with pytest.raises(MaskweaveError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(MaskweaveError, match="no such file"):
        load_recipe(tmp_path / "gone.yaml")


def test_a_model_trained_without_inputs_needs_none(tmp_path: Path) -> None:
    request = {"inputs": [], "targets": ["depth"]}
    path = recipe(tmp_path, model={"masking": {"unconditional": 0.1}}, evaluate={"requests": [request]})
    assert load_recipe(path).evaluate.requests[0].inputs == []
