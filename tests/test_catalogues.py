"""Entries and catalogues: what is accepted, and how errors name entry, field and remedy."""

import copy
import dataclasses

import pytest

from maskweave.catalogues import Catalogue, catalogue_from, load_catalogue, shipped
from maskweave.errors import MaskweaveError
from maskweave.report.tables import modality_table


@pytest.mark.parametrize("name", shipped())
def test_shipped_catalogues_survive_being_written(name):
    catalogue = load_catalogue(name)
    again = catalogue_from(catalogue.to_plain(), "again")
    assert dict(again.items()) == dict(catalogue.items())
    assert again.vocabularies == catalogue.vocabularies


def test_shipped_catalogues_agree_on_ids():
    ids = {}
    for name in shipped():
        for modality in load_catalogue(name).values():
            assert ids.setdefault(modality.name, modality.id) == modality.id


def test_scenes_have_the_promised_modalities(scenes_catalogue):
    kinds = {name: m.kind for name, m in scenes_catalogue.items()}
    assert kinds["rgb"] == "patches"
    assert all(kinds[name] == "grid" for name in ("tok_rgb", "depth", "normal", "semseg", "edges"))
    assert all(kinds[name] == "sequence" for name in ("caption", "boxes", "palette", "metadata", "instances"))


@pytest.mark.parametrize("name", shipped())
def test_the_table_shows_every_modality(name):
    catalogue = load_catalogue(name)
    table = modality_table(catalogue).splitlines()
    assert len(table) == len(catalogue) + 1
    assert all(any(name in line.split() for line in table) for name in catalogue)


SPECTRUM = {"id": 50, "kind": "grid", "grid": [8], "value": {"type": "map", "size": [64], "range": [0, 1]}}
VECTORS = {"id": 51, "kind": "vectors", "max_tokens": 4, "value": {"type": "vector", "channels": 16}}


@pytest.mark.parametrize("entry", [SPECTRUM, VECTORS])
def test_entries_of_every_kind(entry):
    catalogue = catalogue_from({"modalities": {"x": entry}}, "f.yaml")
    assert catalogue["x"].tokens in (8, 4)


def changed(**keys):
    return {**copy.deepcopy(SPECTRUM), **keys}


def vector(tokens, quantiser):
    return changed(
        grid=[tokens], value={"type": "vector", "channels": 8}, tokenizer={"model": "mlp", "quantiser": quantiser}
    )


def facts(**key):
    value = {"type": "metadata", "keys": {"a": {"id": 0, "range": [0, 1], **key}}}
    return {"id": 1, "kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": value}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (changed(grid=[7]), r"grid \(7,\) must divide value.size \(64,\)"),
        (changed(id=0), "id 0 must be 1 or more"),
        (changed(kind="sequence"), "sequence modality cannot hold values of type 'map'; it takes text, boxes"),
        (changed(vocabulary="text"), "has no shared vocabulary; remove 'vocabulary'"),
        (changed(value={"type": "map", "size": [64]}), "a map needs value.range"),
        (changed(value={"type": "map", "size": [64], "range": [1, 0]}), "a range is"),
        (changed(value={"type": "classes", "size": [64]}), "need value.classes"),
        (
            changed(value={"type": "image", "size": [64], "channels": 2}),
            "have 1 or 3 or 4 channels, found value.channels 2",
        ),
        (changed(tokenizer={"model": "mlp"}), "vectors take 'mlp' and everything else 'vit'"),
        (changed(tokenizer={"width": 100, "heads": 3}), "must be an even multiple"),
        (changed(tokenizer={"quantiser": {"type": "lfq", "codes": 1000}}), "power of two for lfq, found 1000"),
        (changed(tokenizer={"heads": 0}), "tokenizer.heads must be 1 or more, found 0"),
        (changed(tokenizer={"width": 0}), "tokenizer.width must be 1 or more, found 0"),
        (changed(tokenizer={"quantiser": {"type": "memcodes", "heads": 0}}), "quantiser.heads must be 1 or more"),
        (vector(5, {"type": "memcodes", "heads": 2}), r"grid \(5,\) must be a multiple of tokenizer.quantiser.heads 2"),
        (vector(4, {"type": "vq", "heads": 2}), "are for vectors with memcodes alone"),
        (changed(value={"type": "map", "size": [64], "range": [0, float("inf")]}), "both finite"),
        (changed(name="y"), "its key is its name; remove 'name'"),
        (facts(id=-1), "value.keys.a needs an id from 0 and at least 1 bin, found id -1, bins 50"),
        (facts(bins=0), "value.keys.a needs an id from 0 and at least 1 bin, found id 0, bins 0"),
        (changed(kine="grid"), "unknown key 'kine'; did you mean 'kind'"),
        (changed(source="nowhere"), "source 'nowhere' is not a modality of the catalogue"),
        (
            {"id": 1, "kind": "sequence", "max_tokens": 9, "value": {"type": "text"}, "vocabulary": "words"},
            "vocabulary 'words' is not one of the catalogue's: none",
        ),
    ],
)
def test_errors_name_file_entry_and_remedy(entry, message):
    with pytest.raises(MaskweaveError, match=message) as caught:
        catalogue_from({"modalities": {"x": entry}}, "f.yaml")
    assert str(caught.value).startswith("f.yaml: modality 'x'")


def test_a_collision_of_ids_is_an_error():
    with pytest.raises(MaskweaveError, match="id 50 is taken by 'x'"):
        catalogue_from({"modalities": {"x": SPECTRUM, "y": SPECTRUM}}, "f.yaml")


def test_two_modalities_of_one_name_are_an_error(scenes_catalogue):
    depth = scenes_catalogue["depth"]
    with pytest.raises(MaskweaveError, match="modality 'depth': stands there twice"):
        Catalogue([depth, dataclasses.replace(depth, id=90)])


def test_a_vocabulary_too_small_for_its_fixed_ids():
    with pytest.raises(MaskweaveError, match="vocabulary 't'.*take 214 ids, more than its size 100"):
        catalogue_from(
            {"modalities": {"x": SPECTRUM}, "vocabularies": {"t": {"size": 100, "values": {"v0": 10}}}}, "f.yaml"
        )


def test_a_vocabulary_needs_sentinels_for_a_text_that_is_wholly_dropped():
    with pytest.raises(MaskweaveError, match="vocabulary 'text': needs at least 3 sentinels, found 2"):
        catalogue_from(
            {"vocabularies": {"text": {"size": 99, "sentinels": 2}}, "modalities": {"x": SPECTRUM}}, "f.yaml"
        )


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("../text", {"size": 999}, "a name is letters, digits"),
        ("text", {"size": 999, "values": {"v0": -1}}, "values gives how many there are of each prefix"),
    ],
)
def test_vocabularies_that_cannot_be(name, keys, message):
    with pytest.raises(MaskweaveError, match=message):
        catalogue_from({"vocabularies": {name: keys}, "modalities": {"x": SPECTRUM}}, "f.yaml")


def test_a_grid_is_not_called_as_a_vocabulary():
    with pytest.raises(MaskweaveError, match="modality 'text': a vocabulary has this name too.*rename one of them"):
        catalogue_from({"vocabularies": {"text": {"size": 999}}, "modalities": {"text": SPECTRUM}}, "f.yaml")


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"scheme": "autoregressive"}, "is for sequences; a grid takes 'maskgit' or 'roar'"),
        ({"steps": 0}, "'decoding': steps is 0; expected 1"),
    ],
)
def test_decoding_that_cannot_be(decoding, message):
    with pytest.raises(MaskweaveError, match=message):
        catalogue_from({"modalities": {"x": changed(decoding=decoding)}}, "f.yaml")


def test_unknown_names(scenes_catalogue):
    with pytest.raises(MaskweaveError, match="unknown modality 'deepth'; did you mean 'depth'\\? known: rgb"):
        scenes_catalogue["deepth"]
    with pytest.raises(MaskweaveError, match="no catalogue 'scene': give the path of a .yaml file, or one of .*scenes"):
        load_catalogue("scene")


def test_a_subset_keeps_the_sources(scenes_catalogue):
    assert list(scenes_catalogue.subset(["depth", "tok_rgb"])) == ["rgb", "tok_rgb", "depth"]
