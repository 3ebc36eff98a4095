"""Entries and catalogs: what is accepted, and how errors name entry, field and remedy."""

import copy
import dataclasses
import json

import pytest

from maskweave.errors import MaskweaveError
from maskweave.files import write_yaml
from maskweave.modality.catalogs import (
    Catalog,
    catalog_from,
    load_catalog,
    load_saved_catalog,
    save_catalog,
    shipped,
)
from maskweave.report.tables import modality_table


@pytest.mark.parametrize("name", shipped())
def test_shipped_catalogs_survive_being_written(name):
    catalog = load_catalog(name)
    again = catalog_from(catalog.to_plain(), "again")
    assert dict(again.items()) == dict(catalog.items())
    assert again.vocabularies == catalog.vocabularies


def test_shipped_catalogs_agree_on_ids():
    ids = {}
    for name in shipped():
        for modality in load_catalog(name).values():
            assert ids.setdefault(modality.name, modality.id) == modality.id


def test_published_names_sizes_and_vocabularies():
    """The table of the published modalities: tokens and codes by name; 0 codes where it is input only."""
    four = load_catalog("4m")
    published = {
        "rgb": (196, 0), "tok_rgb": (196, 16384), "tok_depth": (196, 8192), "tok_normal": (196, 8192),
        "tok_semseg": (196, 4096), "tok_clip": (196, 8192),
    }  # fmt: skip
    published = {
        f"{name}@{size}": (tokens * (size // 224) ** 2, codes)
        for name, (tokens, codes) in published.items()
        for size in (224, 448)
    }
    published |= {
        "tok_canny_edge@224": (196, 8192), "tok_sam_edge@224": (196, 8192), "tok_dinov2@224": (256, 8192),
        "tok_imagebind@224": (256, 8192), "tok_dinov2_global": (16, 8192), "tok_imagebind_global": (16, 8192),
        "caption": (256, 30000), "det": (256, 30000), "metadata": (40, 30000), "human_poses": (275, 30000),
        "color_palette": (23, 30000), "sam_instance": (290, 30000), "t5_caption": (77, 0),
    }  # fmt: skip
    found = {name: (m.tokens, four.vocabulary_size(name) if m.is_target else 0) for name, m in four.items()}
    assert found == published
    learned = {name for name, m in four.items() if m.positions == "learned"}
    assert learned == {"tok_dinov2_global", "tok_imagebind_global"}
    assert len(load_catalog("4m-7")) == 8 and len(load_catalog("4m-21")) == 19
    assert set(load_catalog("4m-7")) < set(load_catalog("4m-21")) < set(four)
    classes = four["tok_semseg@448"].value.classes
    assert len(classes) == 134 and (classes[0], classes[1], classes[80], classes[81], classes[133]) == (
        "unlabeled", "person", "toothbrush", "banner", "rug-merged"
    )  # fmt: skip
    assert set(four["det"].value.classes) == set(classes[1:81])


def test_a_catalog_may_include_a_shipped_one():
    own = {"include": "4m-7", "modalities": {"x": SPECTRUM}}
    assert [*catalog_from(own, "f.yaml")] == [*load_catalog("4m-7"), "x"]
    some = catalog_from({"include": "4m", "only": ["tok_rgb@448", "caption"]}, "f.yaml")
    assert [*some] == ["caption", "rgb@448", "tok_rgb@448"]  # with the source of its values
    for content, said in (
        ({"include": "5m"}, "'include' must be a shipped catalog .* or a .yaml file, found '5m'"),
        ({"include": "5m.yaml"}, "5m.yaml: no such file"),
        ({"include": ["4m"]}, "'include' must be a shipped catalog"),
        ({"only": ["caption"]}, "'include' must be a shipped catalog .*found None"),
        ({"include": "4m", "only": "caption"}, "'only' must be a list of modalities"),
        ({"include": "4m", "only": ["capton"]}, "unknown modality 'capton'; did you mean 'caption'"),
        (
            {"include": "4m", "vocabularies": {"text": {"size": 999}}},
            "vocabulary 'text' is also in .*4m.yaml, which is included",
        ),
        ({"include": "4m", "modalities": {"x": changed(id=7)}}, "id 7 is already used by 'caption'"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            catalog_from(content, "f.yaml")


def test_a_catalog_may_include_a_file_beside_it(tmp_path):
    write_yaml(tmp_path / "bundle" / "modalities.yaml", load_catalog("4m-7").to_plain())
    own = {"include": "bundle/modalities.yaml", "modalities": {"x": SPECTRUM}}
    write_yaml(tmp_path / "own.yaml", own)
    assert [*load_catalog(tmp_path / "own.yaml")] == [*load_catalog("4m-7"), "x"]
    write_yaml(tmp_path / "bundle" / "modalities.yaml", {"include": "../own.yaml"})
    with pytest.raises(MaskweaveError, match="own.yaml: this catalog includes itself through 'include'"):
        load_catalog(tmp_path / "own.yaml")


def test_scenes_have_the_promised_modalities(scenes_catalog):
    kinds = {name: m.kind for name, m in scenes_catalog.items()}
    assert kinds["rgb"] == "patches"
    assert all(kinds[name] == "grid" for name in ("tok_rgb", "depth", "normal", "semseg", "edges"))
    assert all(kinds[name] == "sequence" for name in ("caption", "boxes", "palette", "metadata", "instances"))


@pytest.mark.parametrize("name", shipped())
def test_the_table_shows_every_modality(name):
    catalog = load_catalog(name)
    table = modality_table(catalog).splitlines()
    assert len(table) == len(catalog) + 1
    assert all(any(name in line.split() for line in table) for name in catalog)


SPECTRUM = {"id": 50, "kind": "grid", "grid": [8], "value": {"type": "map", "size": [64], "range": [0, 1]}}
VECTORS = {"id": 51, "kind": "vectors", "max_tokens": 4, "value": {"type": "vectors", "channels": 16}}


@pytest.mark.parametrize("entry", [SPECTRUM, VECTORS])
def test_entries_of_every_kind(entry):
    catalog = catalog_from({"modalities": {"x": entry}}, "f.yaml")
    assert catalog["x"].tokens in (8, 4)


def changed(**keys):
    return {**copy.deepcopy(SPECTRUM), **keys}


def vector(tokens, quantizer):
    return changed(
        grid=[tokens], value={"type": "vector", "channels": 8}, tokenizer={"model": "mlp", "quantizer": quantizer}
    )


def pose(**part):
    value = {"type": "poses", "parts": {"a": {"count": 2, **part}}}
    return {"id": 1, "kind": "sequence", "max_tokens": 9, "vocabulary": "text", "value": value}


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
        (changed(value={"type": "map", "size": [64]}), "a map needs either value.range"),
        (
            changed(value={"type": "map", "size": [64], "range": [1, 0]}),
            r"value.range must be \[lowest, highest\], both finite, found \[1.0, 0.0\]",
        ),
        (changed(value={"type": "classes", "size": [64]}), "value.classes is missing: a list of names"),
        (changed(value={"type": "classes", "size": [64], "classes": ["a", "b", "a"]}), "value.classes has 'a' twice"),
        (
            changed(value={"type": "mab", "size": [64]}),
            "'value': there is no value type 'mab'; did you mean 'map'",
        ),
        (changed(value={"size": [64]}), "'value': the key 'type' is missing"),
        (
            changed(metrics=["abs_rell"]),
            "unknown metrics 'abs_rell'; values of type 'map' have mae, rmse, abs_rel, delta1",
        ),
        (
            changed(derive={"from": "rgb", "by": "canny"}),
            "unknown derive.by 'canny'; values of type 'map' have teacher, agreement, normals",
        ),
        (
            changed(value={"type": "image", "size": [64], "channels": 2}),
            "have 1 or 3 or 4 channels, found value.channels 2",
        ),
        (
            changed(tokenizer={"model": "mlp"}),
            "tokenizer.model is 'mlp'; values with a size take 'vit', and others, such as vectors, 'mlp'",
        ),
        (changed(tokenizer={"width": 100, "heads": 3}), "must be an even multiple"),
        (changed(tokenizer={"quantizer": {"type": "lfq", "codes": 1000}}), "power of two for lfq, found 1000"),
        (
            changed(tokenizer={"quantizer": {"type": "residual", "depth": 0}}),
            "quantizer.depth must be 1 or more, found 0",
        ),
        (changed(tokenizer={"quantizer": {"type": "residual", "depth": 3}}), "quantizer to the power of depth"),
        (
            changed(tokenizer={"quantizer": {"type": "residual", "over": "fsq", "levels": [1, 3]}}),
            "levels must be numbers of 2 or more",
        ),
        (
            changed(tokenizer={"quantizer": {"type": "fsq", "rotation": True}}),
            "quantizer.rotation is for type vq, found type fsq",
        ),
        (
            changed(tokenizer={"quantizer": {"type": "lfq", "codebook": "simvq"}}),
            "quantizer.codebook is for type vq, found type lfq",
        ),
        (changed(tokenizer={"heads": 0}), "tokenizer.heads must be 1 or more, found 0"),
        (changed(tokenizer={"width": 0}), "tokenizer.width must be 1 or more, found 0"),
        (changed(tokenizer={"quantizer": {"type": "memcodes", "heads": 0}}), "quantizer.heads must be 1 or more"),
        (vector(5, {"type": "memcodes", "heads": 2}), r"grid \(5,\) must be a multiple of tokenizer.quantizer.heads 2"),
        (vector(4, {"type": "vq", "heads": 2}), "is only for vectors with type 'memcodes'"),
        (changed(value={"type": "map", "size": [64], "range": [0, float("inf")]}), "both finite"),
        (changed(name="y"), "its key is its name; remove 'name'"),
        (facts(id=-1), "value.keys.a needs an id from 0 and at least 1 bin, both at most 65,536; found id -1, bins 50"),
        (facts(bins=0), "value.keys.a needs an id from 0 and at least 1 bin, both at most 65,536; found id 0, bins 0"),
        (facts(bins=1, top=True), "at least 2 bins, both at most 65,536; found id 0, bins 1"),
        (facts(bins=3, splits=[0.5]), r"splits must ascend within its range.*found \(0.5,\), bins 3"),
        (facts(bins=3, splits=[0.5, 0.5]), "splits must ascend"),
        (facts(bins=2, splits=[1.0]), "splits must ascend"),
        (
            pose(),
            "value.parts.a needs a name other than box or point, a count of 1 or more, and either a range or codes",
        ),
        (pose(range=[0, 1], codes=4), "either a range or codes"),
        (pose(range=[1, 1]), r"value.parts.a.range must be \[lowest, highest\], both finite, found \[1.0, 1.0\]"),
        (
            pose(range=[0, 1], bones=[[0, 1]]),
            "value.parts.a.bones: found .*; expected pairs of joint numbers from 0 to below half",
        ),
        (pose(range=[0, 1], bones=[[0]]), "value.parts.a.bones"),
        (pose(codes=4, bones=[[0, 0]]), "value.parts.a.bones: found .*with an even count and a range"),
        (
            changed(value={"type": "map", "size": [64], "range": [0, 1], "trim_quantile": 0.1}),
            "or value.trim_quantile, .*found range and trim_quantile",
        ),
        (changed(value={"type": "map", "size": [64], "trim_quantile": 0.5}), "a share from 0 to below 0.5, found 0.5"),
        (
            changed(value={"type": "direction", "size": [64], "channels": 3, "trim_quantile": 0.1}),
            "unknown key 'value.trim_quantile'; it is only valid if value.type is 'map'",
        ),
        (
            changed(kind="patches", value={"type": "map", "size": [64], "trim_quantile": 0.1}),
            "patches take maps with a value.range",
        ),
        (
            changed(value={"type": "map", "size": [64], "range": [0, 1], "parts": {"a": {"count": 1, "codes": 2}}}),
            "unknown key 'value.parts'; it is only valid if value.type is 'poses' or 'queries'",
        ),
        ({**pose(codes=4), "value": {"type": "queries"}}, "queries need value.size"),
        (changed(kine="grid"), "unknown key 'kine'; did you mean 'kind'"),
        (changed(source="nowhere"), "source 'nowhere' is not a modality of the catalog"),
        (
            {"id": 1, "kind": "sequence", "max_tokens": 9, "value": {"type": "text"}, "vocabulary": "words"},
            "vocabulary 'words' is not one of the catalog's: none",
        ),
    ],
)
def test_errors_name_file_entry_and_remedy(entry, message):
    with pytest.raises(MaskweaveError, match=message) as caught:
        catalog_from({"modalities": {"x": entry}}, "f.yaml")
    assert str(caught.value).startswith("f.yaml: modality 'x'")


def test_a_collision_of_ids_is_an_error():
    with pytest.raises(MaskweaveError, match="id 50 is already used by 'x'"):
        catalog_from({"modalities": {"x": SPECTRUM, "y": SPECTRUM}}, "f.yaml")


def test_two_modalities_of_one_name_are_an_error(scenes_catalog):
    depth = scenes_catalog["depth"]
    with pytest.raises(MaskweaveError, match="modality 'depth': appears twice"):
        Catalog([depth, dataclasses.replace(depth, id=90)])


def test_a_vocabulary_too_small_for_its_fixed_ids():
    with pytest.raises(MaskweaveError, match="vocabulary 't'.*take 214 ids, more than its size 100"):
        catalog_from(
            {"modalities": {"x": SPECTRUM}, "vocabularies": {"t": {"size": 100, "values": {"v0": 10}}}}, "f.yaml"
        )


def test_a_vocabulary_needs_sentinels_for_a_text_that_is_wholly_dropped():
    with pytest.raises(MaskweaveError, match="vocabulary 'text': needs at least 3 sentinels, found 2"):
        catalog_from({"vocabularies": {"text": {"size": 99, "sentinels": 2}}, "modalities": {"x": SPECTRUM}}, "f.yaml")


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("../text", {"size": 999}, "a name may only contain letters, digits"),
        ("text", {"size": 999, "values": {"v0": -1}}, "values must give the number of ids of each prefix"),
    ],
)
def test_vocabularies_that_cannot_be(name, keys, message):
    with pytest.raises(MaskweaveError, match=message):
        catalog_from({"vocabularies": {name: keys}, "modalities": {"x": SPECTRUM}}, "f.yaml")


def test_a_grid_is_not_called_as_a_vocabulary():
    with pytest.raises(MaskweaveError, match="modality 'text': a vocabulary has the same name.*rename one of them"):
        catalog_from({"vocabularies": {"text": {"size": 999}}, "modalities": {"text": SPECTRUM}}, "f.yaml")


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"scheme": "autoregressive"}, "is for sequences; a grid takes another, such as 'maskgit' or 'roar'"),
        ({"steps": 0}, "'decoding': steps is 0; expected 1"),
    ],
)
def test_decoding_that_cannot_be(decoding, message):
    with pytest.raises(MaskweaveError, match=message):
        catalog_from({"modalities": {"x": changed(decoding=decoding)}}, "f.yaml")


def test_unknown_names(scenes_catalog):
    with pytest.raises(MaskweaveError, match="unknown modality 'deepth'; did you mean 'depth'\\? known: rgb"):
        scenes_catalog["deepth"]
    with pytest.raises(MaskweaveError, match="no catalog 'scene': give the path of a .yaml file, or one of .*scenes"):
        load_catalog("scene")


def test_a_subset_keeps_the_sources(scenes_catalog):
    assert list(scenes_catalog.subset(["depth", "tok_rgb"])) == ["rgb", "tok_rgb", "depth"]


def test_values_are_derived_from_a_modality_of_the_catalog(tmp_path):
    content = load_catalog("scenes").subset(["rgb", "edges"]).to_plain()
    content["modalities"]["edges"]["derive"]["from"] = "rbg"
    with pytest.raises(MaskweaveError, match="modality 'edges': derive.from is 'rbg', which is not a modality of the"):
        catalog_from(content, "here")
    content["modalities"]["edges"]["derive"] = {"by": "canny"}
    with pytest.raises(MaskweaveError, match="modality 'edges': key 'derive.from' is missing"):
        catalog_from(content, "here")
    own = {"include": "scenes", "only": ["edges"], "modalities": {}}
    assert catalog_from(own, "here")["edges"].derive.source == "rgb", "a part of another catalog may lack the pictures"
    (tmp_path / "run").mkdir()
    save_catalog(load_catalog("scenes").subset(["edges"]), tmp_path / "run")
    assert load_saved_catalog(tmp_path / "run")["edges"].derive.source == "rgb", "and so may a run"


@pytest.mark.parametrize("more", [{"include": "scenes"}, {"include": "other.yaml"}, {"only": ["rgb"]}])
def test_the_entries_of_a_run_include_no_others(tmp_path, more):
    save_catalog(load_catalog("scenes").subset(["depth"]), tmp_path)
    path = tmp_path / "modalities.yaml"
    path.write_text(path.read_text(encoding="utf-8") + json.dumps(more)[1:-1] + "\n", encoding="utf-8")
    with pytest.raises(
        MaskweaveError, match=rf"modalities\.yaml: '{next(iter(more))}' is not for the entries of a run"
    ):
        load_saved_catalog(tmp_path)
