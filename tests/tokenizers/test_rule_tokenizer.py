"""Tokenizers by rules: fitted to values, stored in a folder, and checked against the entry."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.folder import load_tokenizers, save_tokenizers
from maskweave.tokenizers.rules import RuleTokenizer
from maskweave.values.label import Label
from maskweave.values.scalar import Scalar

CATALOG = Catalog(
    [
        Modality("mass", 1, "grid", Scalar(bins=16, scale="log")),
        Modality("kind", 2, "grid", Label(classes=("a", "b", "c"))),
    ]
)
MASSES = np.geomspace(1, 1000, 500).tolist()


def fitted() -> dict[str, Tokenizer]:
    return {
        "mass": RuleTokenizer.fit(CATALOG["mass"], MASSES),
        "kind": RuleTokenizer.fit(CATALOG["kind"], ["a", "c"]),
    }


def test_values_to_tokens_and_back() -> None:
    tokenizer = fitted()["mass"]
    assert isinstance(tokenizer, Tokenizer) and tokenizer.vocabulary_size == 16
    ids = tokenizer.encode(MASSES)
    assert ids.shape == (500, 1) and ids.dtype == torch.int64 and len(ids.unique()) == 16
    errors = np.abs(np.log10(tokenizer.decode(ids)) - np.log10(MASSES))
    assert errors.max() < 3 / 16, "half a bin on the scale"
    assert tokenizer.encode([]).shape == (0, 1) and tokenizer.decode(ids[:0]) == []
    assert tokenizer.token_embeddings.shape == (16, 32)
    with pytest.raises(BadSample, match="mass: value 1 of the batch: found -1; expected a number above 0"):
        tokenizer.encode([1, -1])


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (np.zeros((2, 1)), r"kind: tokens must be whole numbers of shape \(B, 1\), found float64 of shape \(2, 1\)"),
        (np.zeros(2, int), r"found int64 of shape \(2,\)"),
        (np.array([[3]]), "kind: tokens must be ids from 0 to 2, found 3 to 3"),
    ],
)
def test_other_tokens_are_refused(tokens: np.ndarray, said: str) -> None:
    with pytest.raises(MaskweaveError, match=said):
        fitted()["kind"].decode(tokens)


def test_a_folder_holds_them(tmp_path: Path) -> None:
    before = fitted()
    save_tokenizers(before, tmp_path)
    after = load_tokenizers(tmp_path, CATALOG)
    assert list(after) == ["mass", "kind"]
    for name, tokenizer in after.items():
        assert tokenizer.fingerprint == before[name].fingerprint
    assert torch.equal(after["mass"].encode(MASSES), before["mass"].encode(MASSES))
    other = RuleTokenizer.fit(CATALOG["mass"], MASSES[:100])
    assert other.fingerprint != before["mass"].fingerprint


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    mass = CATALOG["mass"]
    tokenizer = RuleTokenizer.fit(mass, MASSES)
    tokenizer.save(tmp_path / "mass")
    changed = dataclasses.replace(mass, value=Scalar(bins=16, scale="linear"))
    with pytest.raises(
        MaskweaveError, match="the entry of 'mass' has changed .* value.scale is 'log' there, 'linear' here"
    ):
        RuleTokenizer.load(tmp_path / "mass", changed)
    (tmp_path / "mass" / "rules.json").write_text('{"bin_edges": 1}', encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"rules.json: expected lists of numbers .*; make the tokenizer again"):
        RuleTokenizer.load(tmp_path / "mass", mass)
    (tmp_path / "mass" / "rules.json").unlink()
    with pytest.raises(MaskweaveError, match="rules.json is missing, so the tokenizer is incomplete"):
        RuleTokenizer.load(tmp_path / "mass", mass)
    tokenizer.save(tmp_path / "mass")
    (tmp_path / "mass" / "config.json").write_text(json.dumps({"format": 9}), encoding="utf-8")
    with pytest.raises(
        MaskweaveError, match="is not the configuration of a tokenizer by rules in format 1, found format 9"
    ):
        RuleTokenizer.load(tmp_path / "mass", mass)


# Entries.


def test_entries_need_neither_grid_nor_tokenizer() -> None:
    for name, vocabulary in (("mass", 16), ("kind", 3)):
        assert CATALOG[name].grid == (1,) and CATALOG[name].tokenizer is None
        assert CATALOG.vocabulary_size(name) == vocabulary
    assert Catalog([CATALOG["mass"]])["mass"] == CATALOG["mass"]


def test_labels_are_generated_as_the_most_probable_class_by_default() -> None:
    from maskweave.modality.decoding import Decoding

    assert CATALOG["kind"].decoding.temperature == 0 and CATALOG["mass"].decoding == Decoding()
    explicit = Modality("kind", 2, "grid", Label(classes=("a", "b")), decoding=Decoding())
    assert Catalog([explicit])["kind"].decoding.temperature == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"grid": (2,)}, r"values of type 'label' here have the grid \[1\], found \[2\]; remove 'grid'"),
        ({"tokenizer": "mlp"}, "values of type 'label' are tokenized by rules, not by a network; remove 'tokenizer'"),
        ({"kind": "patches", "grid": (1,)}, "a patches modality cannot hold values of type 'label'"),
    ],
)
def test_entries_that_cannot_be_are_refused(entry: dict, said: str) -> None:
    from maskweave.modality.tokenizer import TokenizerSpec

    if "tokenizer" in entry:
        entry = {"tokenizer": TokenizerSpec(model="mlp")}
    with pytest.raises(MaskweaveError, match=said):
        Catalog([Modality("kind", 2, **{"kind": "grid", "value": Label(classes=("a", "b")), **entry})])


def test_types_of_networks_have_no_rules(scenes_catalog: Catalog) -> None:
    value = scenes_catalog["depth"].value
    for ask in (lambda: value.rule_tokens, lambda: value.fit_rules([]), lambda: value.rules({})):
        with pytest.raises(MaskweaveError, match="values of type 'map' are tokenized by a network, not by rules"):
            ask()
