"""Bundles on disk: what is refused, what is recorded beside the weights, and which weights a smaller copy rounds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_bundle import m3ae_bundle, save, small_bundle

import maskweave
from maskweave.bundle import compress as compression
from maskweave.bundle.io import load_bundle, save_bundle, trained_settings
from maskweave.errors import MaskweaveError
from maskweave.families.base import family_named
from maskweave.files import write_yaml
from maskweave.generate.bundle import Bundle
from maskweave.provenance import Provenance


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


def saved(bundle: Bundle, place: Path, **options: Any) -> Path:
    found = save_bundle(bundle.catalog, bundle.model, bundle.tokenizers, place, **options)
    assert isinstance(found, Path)
    return found


def test_a_new_folder_or_an_empty_one(bundle: Bundle, tmp_path: Path) -> None:
    assert saved(bundle, tmp_path / "a") == tmp_path / "a"
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"modalities.yaml", "model", "tokenizers"}, "nothing is recorded that is not known"
    (tmp_path / "empty").mkdir()
    saved(bundle, tmp_path / "empty", calibration={"depth": 1.5}, provenance=Provenance("mit"))
    parts = load_bundle(tmp_path / "empty")
    assert parts.calibration == {"depth": 1.5} and parts.provenance == Provenance("mit")
    (tmp_path / "file").touch()
    for place in ("a", "file"):
        with pytest.raises(MaskweaveError, match=f"{place}: exists already; choose another folder for the bundle"):
            saved(bundle, tmp_path / place)


def test_a_text_tokenizer_must_be_there(bundle: Bundle, tmp_path: Path) -> None:
    grids = {name: tokenizer for name, tokenizer in bundle.tokenizers.items() if name != "caption"}
    with pytest.raises(MaskweaveError, match=r"that of text is missing; add it to tokenizers as 'caption': Sequence"):
        save_bundle(bundle.catalog, bundle.model, grids, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("temperatures", "fault"),
    [
        ({"depth": 0.5, "caption": 2}, ""),
        ({"depth": 0.0}, "'depth' is 0.0"),
        ({"depth": -1.0}, "'depth' is -1.0"),
        ({"depth": float("inf")}, "'depth' is inf"),
        ({"smell": 1.0}, "'smell' is 1.0"),
    ],
)
def test_temperatures(temperatures: dict[str, float], fault: str, bundle: Bundle, tmp_path: Path) -> None:
    folder = saved(bundle, tmp_path / "a", calibration=temperatures)
    if not fault:
        assert load_bundle(folder).calibration == temperatures
        return
    with pytest.raises(
        MaskweaveError, match=rf"calibration.yaml: the temperature of {fault}; expected a number above 0"
    ):
        load_bundle(folder)


def test_settings_of_the_recipe_that_a_bundle_was_trained_with(tmp_path: Path) -> None:
    fourm, m3ae = family_named("fourm"), family_named("m3ae")
    assert trained_settings(fourm, tmp_path) is None
    for content, known in (
        ({"model": {"width": 32}}, True),
        ({"model": {"wide": 3}}, False),
        ({"model": 3}, False),
        ({}, False),
    ):
        write_yaml(tmp_path / "recipe.yaml", content)
        found = trained_settings(fourm, tmp_path)
        assert (found is not None and found.family == "fourm") == known
        assert trained_settings(m3ae, tmp_path) is None


@pytest.mark.parametrize(
    ("name", "shape", "kind", "types"),
    [
        ("w", (256,), "int8", [torch.float32]),
        ("w", (257,), "int8", [torch.bfloat16]),
        ("w", (16, 16), "int8", [torch.float32]),
        ("w", (4097,), "int8", [torch.bfloat16]),
        ("w", (63, 65), "int8", [torch.bfloat16]),
        ("w", (64, 64), "int8", [torch.int8, torch.float32]),
        ("w", (64, 64), "bf16", [torch.bfloat16]),
        ("w", (4, 32, 32), "int8", [torch.int8, torch.float32]),
        ("quantizer.codebook", (64, 64), "int8", [torch.float32]),
    ],
)
def test_which_weights_are_rounded(name: str, shape: tuple[int, ...], kind: str, types: list[torch.dtype]) -> None:
    """Matrices from 4096 numbers on in 8 bits, other weights of more than 256 numbers in bf16; codebooks and small ones stay."""
    found = compression._compressed(name, torch.randn(shape), kind)
    assert [tensor.dtype for tensor in found.values()] == types
    assert compression._compressed(name, torch.zeros(shape, dtype=torch.int32), kind)[name].dtype == torch.int32


def test_which_files_a_smaller_copy_has() -> None:
    source = Path("/x/checkpoints/bundle")
    for path, needed in {
        "model/config.json": True, "model/merges.txt": True, "tokenizers/a/log.txt": False, "model/passthrough.safetensors": False,
        "model/model.safetensors": False, "model/model.safetensors.index.json": False, "model/.hidden.json": False, "model/notes.md": False,
        "tokenizers/a/checkpoints/state.json": False, "tokenizers/a/source/weights.bin": True, "model/source/weights.bin": False,
        "tokenizers/source/weights.bin": False, "tokenizers/a/b/source/weights.bin": False,
    }.items():  # fmt: skip
        path = path.replace("passthrough.safetensors", compression.PASSTHROUGH).replace(
            "source/", f"{compression.COPY}/"
        )
        assert compression._is_needed(source / path, source) == needed, path


def test_bytes_before_and_after_are_those_of_the_weights(tmp_path: Path) -> None:
    folder = save(m3ae_bundle(width=64), tmp_path / "whole")
    found = compression.compress(folder, tmp_path / "small", "bf16")
    sizes = [
        sum(path.stat().st_size for path in place.rglob("*.safetensors")) for place in (folder, tmp_path / "small")
    ]
    assert found == (tmp_path / "small", *sizes)
    assert maskweave.load(tmp_path / "small").model.config.width == 64
