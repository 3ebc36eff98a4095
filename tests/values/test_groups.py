"""Poses and points as words and special values, metadata and boxes as published: exact text, round trips, broken sequences."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.codec import EOS, Bins
from maskweave.values.groups import Part
from maskweave.values.metadata import Key

FILE = Path(os.environ.get("MASKWEAVE_PARITY", "../shared/parity")) / "text_tokenizer_30k.json"
SEQUENCES = ("caption", "det", "metadata", "human_poses", "color_palette", "sam_instance")
unit = st.floats(0, 1)
box = st.tuples(unit, unit, unit, unit).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)


def numbers(count: int, low: float, high: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high), min_size=count, max_size=count)


def codes(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 1023), min_size=count, max_size=count)


people = st.lists(
    st.fixed_dictionaries(
        {"box": box},
        optional={
            "pose": codes(8), "global": numbers(9, -2, 2), "camera": numbers(4, -1, 30), "shape": numbers(10, -4, 4)
        },
    ),
    max_size=8,
)  # fmt: skip
points = st.lists(
    st.fixed_dictionaries(
        {
            "point": st.tuples(unit, unit).map(list),
            "instances": st.lists(st.fixed_dictionaries({"box": box, "codes": codes(16)}), max_size=3),
        }
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog("4m")


@pytest.fixture(scope="module")
def trained(catalog: Catalog) -> TextTokenizer:
    """One in which the words take several pieces."""
    return TextTokenizer.train(catalog.vocabularies["text"], ["a dog", "two zebras"])


@pytest.fixture(scope="module")
def published() -> TextTokenizer:
    if not FILE.exists():
        pytest.skip(f"the published tokenizer is not at {FILE}; set MASKWEAVE_PARITY to its folder")
    return TextTokenizer.load(FILE)


@pytest.fixture(scope="module")
def plain(published: TextTokenizer) -> Tokenizer:
    """The published file as its library opens it: special tokens are met in text."""
    return Tokenizer.from_file(str(FILE))


@pytest.fixture(scope="module", params=["trained", "published"])
def tokenizers(request: pytest.FixtureRequest, catalog: Catalog) -> dict[str, SequenceTokenizer]:
    text = request.getfixturevalue(request.param)
    return {name: SequenceTokenizer(catalog[name], text) for name in SEQUENCES}


def remade(tokenizer: SequenceTokenizer, max_tokens: int | None = None, **value) -> SequenceTokenizer:
    m = tokenizer.modality
    entry = dataclasses.replace(m, value=dataclasses.replace(m.value, **value), max_tokens=max_tokens or m.max_tokens)
    return SequenceTokenizer(entry, tokenizer.text)


def round_trip(tokenizer: SequenceTokenizer, value):
    """The decoded value, after checking that the sequence is whole and stable."""
    [ids] = tokenizer.encode([value])
    assert ids[-1] == EOS and EOS not in ids[:-1] and len(ids) <= tokenizer.modality.max_tokens
    [decoded] = tokenizer.decode_with_problems([ids])
    assert decoded.problems == []
    assert tokenizer.encode([decoded.value]) == [ids]
    return decoded.value


PERSON = {
    "box": [0.1, 0.2, 0.5, 0.9994], "pose": [0, 511, 512, 1023, 5, 6, 7, 8], "global": [-1, 1, 0, 0, 0, 0, 0, 0, 2.5],
    "camera": [-1, 19, 9, 0], "shape": [-3, 3, 0, 0, 0, 0, 0, 0, 0, -99],
}  # fmt: skip
POSE = (
    "human v0=100 v0=200 v0=500 v0=999 pose v0=0 v0=511 v1=0 v1=511 v0=5 v0=6 v0=7 v0=8 "
    "global v0=0 v0=999 v0=500 v0=500 v0=500 v0=500 v0=500 v0=500 v0=999 "
    "camera v0=0 v0=999 v0=500 v0=50 shape v0=0 v0=999 v0=500 v0=500 v0=500 v0=500 v0=500 v0=500 v0=500 v0=0"
)
CODES = [0, 512, 1023, *range(500, 513)]
CODES_TEXT = "v0=0 v1=0 v1=511 " + " ".join(f"v0={n}" for n in range(500, 512)) + " v1=0"
FOUND = [
    {"point": [0.5, 0.25], "instances": [{"box": [0.0, 0.5, 0.25, 1.0], "codes": CODES}]},
    {"point": [1.0, 0.0], "instances": []},
]
FOUND_TEXT = f"point v0=56 v1=112 polygon v0=0 v1=112 v2=56 v3=224 {CODES_TEXT} point v0=0 v1=224 none"
FACTS = {
    "aesthetic_score": 4.5, "original_width": 1919, "n_humans": 3, "colorfulness": 149.9, "entropy": 10, "occlusion_score": 0.1,
    "watermark_score": 0.49, "caption_n_chars": 5000,
}  # fmt: skip
FACTS_TEXT = "v1=0 v0=59 v1=2 v0=999 v1=5 v0=3 v1=9 v0=48 v1=13 v0=49 v1=18 v0=19 v1=19 v0=0 v1=20 v0=1"


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("caption", "Two zebras by a traffic light.", "two zebras by a traffic light."),
        ("det", [{"class": "hot dog", "box": [0.6, 0.5, 0.75, 1]}, {"class": "tv", "box": [0.2, 0.6, 0.2, 0.9999]}],
         "v0=200 v1=600 v2=200 v3=999 tv v0=600 v1=500 v2=750 v3=999 hot dog"),
        ("color_palette", [[0, 255, 7], [1, 2, 3]], "v1=2 v0=0 v0=255 v0=7 v0=1 v0=2 v0=3"),
        ("metadata", FACTS, FACTS_TEXT),
        ("human_poses", [PERSON, PERSON], f"{POSE} {POSE}"),
        ("human_poses", [], "none"),
        ("sam_instance", FOUND, FOUND_TEXT),
    ],
)  # fmt: skip
def test_sequences_are_the_published_text(catalog, published, plain, name, value, written):
    """Exactly what the published file makes of the published text form."""
    assert SequenceTokenizer(catalog[name], published).encode([value]) == [[*plain.encode(written).ids, EOS]]


def test_the_published_vocabulary_is_the_catalogs(catalog, scenes_catalog, published):
    wanted = catalog.vocabularies["text"]
    assert published.vocabulary == wanted
    published.require(wanted, "f.json")
    words = (*wanted.words[:3], "ball", *wanted.words[4:])
    for other, said in (
        (scenes_catalog.vocabularies["text"], "sentinels is 200, expected 24"),
        (dataclasses.replace(wanted, words=words), "words[3] is 'banana', expected 'ball'"),
        (dataclasses.replace(wanted, words=wanted.words[:-1]), "words[79] is 'zebra', expected None"),
        (dataclasses.replace(wanted, values=dict(reversed(wanted.values.items()))), "values is [('v0', 1000)"),
    ):
        with pytest.raises(MaskweaveError) as error:
            published.require(other, "f.json")
        assert str(error.value).startswith("f.json: was made for another vocabulary 'text'") and said in str(
            error.value
        )


# Round trips.


@settings(max_examples=60)
@given(value=people)
def test_poses_come_back_to_half_a_bin(tokenizers, value):
    found = round_trip(tokenizers["human_poses"], value)
    assert found or not value
    for person, original in zip(found, value, strict=False):
        assert person.keys() == original.keys()
        np.testing.assert_allclose(person["box"], original["box"], atol=1 / 2000 + 1e-9)
        assert person.get("pose") == original.get("pose")
        for name, (low, high) in {"global": (-1, 1), "camera": (-1, 19), "shape": (-3, 3)}.items():
            clipped = np.clip(original.get(name, []), low, high)
            np.testing.assert_allclose(person.get(name, []), clipped, atol=(high - low) / 2000 + 1e-9)


@settings(max_examples=60)
@given(value=points)
def test_points_come_back_to_half_a_pixel(tokenizers, value):
    found = round_trip(tokenizers["sam_instance"], value)
    assert found or not value
    for query, original in zip(found, value, strict=False):
        np.testing.assert_allclose(query["point"], original["point"], atol=1 / 448 + 1e-9)
        assert bool(query["instances"]) == bool(original["instances"])
        for instance, whole in zip(query["instances"], original["instances"], strict=False):
            np.testing.assert_allclose(instance["box"], whole["box"], atol=1 / 448 + 1e-9)
            assert instance["codes"] == whole["codes"]


def test_numbers_of_numpy_are_numbers(tokenizers):
    person = {name: np.array(numbers, np.float32) for name, numbers in PERSON.items()}
    assert tokenizers["human_poses"].encode([[person]]) == tokenizers["human_poses"].encode([[PERSON]])


def test_parts_and_points_stand_in_random_order_where_it_is_drawn(tokenizers):
    poses, queries = tokenizers["human_poses"], tokenizers["sam_instance"]
    shuffled = poses.encode([[PERSON]] * 20, np.random.default_rng(0))
    assert len({tuple(ids) for ids in shuffled}) > 10
    assert all(value == poses.decode(poses.encode([[PERSON]]))[0] for value in poses.decode(shuffled))
    three = [*FOUND, {"point": [0, 0], "instances": [{"box": [0, 0, n / 8, 1], "codes": CODES} for n in (1, 2, 3)]}]
    shuffled = queries.encode([three] * 20, np.random.default_rng(0))
    assert len({tuple(ids) for ids in shuffled}) > 10 and len({tuple(sorted(ids)) for ids in shuffled}) == 1
    assert not queries.decode_with_problems(shuffled[:1])[0].problems


def test_what_has_no_room_is_left_out_whole(tokenizers):
    poses, queries = tokenizers["human_poses"], tokenizers["sam_instance"]
    [ids] = poses.encode([[PERSON] * 9])
    assert len(poses.decode([ids])[0]) == (poses.modality.max_tokens - 1) // (
        (len(ids) - 1) // len(poses.decode([ids])[0])
    )
    assert len(poses.decode(remade(poses, max_items=2).encode([[PERSON] * 9]))[0]) == 2
    crowd = [{"point": [0.5, 0.5], "instances": FOUND[0]["instances"] * 40}, *FOUND]
    [found] = round_trip(queries, crowd)
    assert 10 <= len(found["instances"]) <= 13
    assert len(round_trip(remade(queries, max_items=1), FOUND)) == 1


# Metadata.


def test_metadata_bins_are_the_published_ones(catalog):
    keys = catalog["metadata"].value.keys
    assert [key.id for key in keys.values()] == list(range(21))
    bins = {name: Bins(*key.range, key.bins, key.integer, key.top, key.splits) for name, key in keys.items()}
    for x in range(0, 33_000, 7):
        assert bins["original_width"].encode(x) == min(x // 32, 999)
    assert [bins["original_height"].encode(32 * n) for n in range(1000)] == list(range(1000))
    for name in ("caption_n_chars", "semantic_diversity", "n_coco_instances"):
        assert [bins[name].encode(n) for n in range(-3, 1003)] == [min(max(n, 0), 999) for n in range(-3, 1003)]
        assert bins[name].centers == list(range(1000))
    highest = {"colorfulness": 150, "brightness": 255, "contrast": 127, "saturation": 255, "entropy": 10, "walkability": 1,
               "objectness": 1, "geometric_complexity": 0.75, "occlusion_score": 0.25}  # fmt: skip
    for name, high in highest.items():
        for fraction in np.random.default_rng(0).random(200):
            assert bins[name].encode(fraction * high) == int(49 * fraction)
        assert bins[name].encode(high) == 49 == bins[name].encode(9999) and bins[name].centers[49] == high
    assert [bins["watermark_score"].encode(x) for x in (0, 0.49, 0.5, 1)] == [0, 0, 1, 1]
    assert [bins["aesthetic_score"].encode(x) for x in (-1, 4.4, 4.5, 5.4, 5.5, 99)] == [0, 0, 1, 1, 2, 2]
    for b in bins.values():
        assert [b.encode(center) for center in b.centers] == list(range(b.count))


def test_of_all_pairs_those_that_fit_are_written(tokenizers):
    metadata = tokenizers["metadata"]
    value = {name: key.range[1] for name, key in metadata.modality.value.keys.items()}
    [ids] = metadata.encode([value])
    assert len(ids) == 39 and list(metadata.decode([ids])[0]) == list(value)[:19]
    shuffled = metadata.encode([value] * 10, np.random.default_rng(0))
    assert {len(ids) for ids in shuffled} == {39} and len({frozenset(v) for v in metadata.decode(shuffled)}) > 5


# Broken sequences.


@settings(max_examples=60)
@given(data=st.data())
def test_no_ids_make_decoding_fail(tokenizers, data):
    """Words, numbers that nearly fit, other text and ids of nothing, in any order; what is decoded can be written again."""
    text = tokenizers["caption"].text
    for tokenizer in tokenizers.values():
        words = [text.encode(w)[:-1] for w in ("human", "pose", "global", "none", "point", "polygon", "dog")]
        value = st.builds(
            lambda p, n: [text.value(p, n)], st.sampled_from(["v0", "v1", "v2", "v3"]), st.integers(0, 999)
        )
        run = st.builds(
            lambda w, v: [*w, *(id for n in v for id in n)], st.sampled_from(words), st.lists(value, max_size=21)
        )
        any_id = st.integers(-5, text.vocabulary.size + 5).map(lambda id: [id])
        ids = [id for part in data.draw(st.lists(run | value | any_id, max_size=8)) for id in part]
        [decoded] = tokenizer.decode_with_problems([ids])
        assert EOS in ids or decoded.problems
        if decoded.value or tokenizer.modality.value.type not in (
            "palette",
            "metadata",
        ):  # of which there is no empty one
            tokenizer.encode([decoded.value])


@settings(max_examples=60)
@given(at=st.integers(0, 70), id=st.integers(0, 29_999), name=st.sampled_from(["human_poses", "sam_instance"]))
def test_one_wrong_token_loses_little(tokenizers, at, id, name):
    tokenizer = tokenizers[name]
    [ids] = tokenizer.encode([[PERSON, PERSON] if name == "human_poses" else FOUND * 3])
    broken = [*ids[: at % len(ids)], id, *ids[at % len(ids) + 1 :]]
    [decoded] = tokenizer.decode_with_problems([broken])
    assert decoded.problems or tokenizer.encode([decoded.value]) == [broken[: broken.index(EOS) + 1]]
    if EOS not in broken[:-1]:
        assert len(decoded.value) >= (1 if name == "human_poses" else 4)


@pytest.mark.parametrize(
    ("name", "written", "kept", "said"),
    [
        ("human_poses", "", [], "neither 'human' nor 'none'"),
        ("human_poses", "none none", [], "'none' together with people"),
        ("human_poses", "human v0=1 v0=2 v0=3", [], "without a valid box, found v0=1 v0=2 v0=3; skipped"),
        ("human_poses", "human v0=9 v0=2 v0=3 v0=4", [], "without a valid box"),
        ("human_poses", "human v0=1 v0=2 v0=3 v0=4 pose v0=1", [{"box"}], "'pose' of person 0: found v0=1, expected 8 numbers"),
        ("human_poses", "human v0=1 v0=2 v0=3 v0=4 camera v0=1 v0=2 v0=3 v1=4", [{"box"}], "'camera' of person 0"),
        ("human_poses", "human v0=1 v0=2 v0=3 v0=4 pose v0=0 v0=0 v0=0 v0=0 v0=0 v0=0 v0=0 v0=512", [{"box"}], "'pose' of"),
        ("human_poses", "human v0=1 v0=2 v0=3 v0=4 camera v0=1 v0=2 v0=3 v0=4 camera v0=1 v0=2 v0=3 v0=4",
         [{"box", "camera"}], "person 0 has 'camera' twice"),
        ("human_poses", "camera v0=1 v0=2 v0=3 v0=4 none", [], "'camera' before the first valid person"),
        ("human_poses", "human v0=1 v0=2 v0=3 v0=4 a zebra v0=7", [{"box"}], "3 tokens belong to no person: a zebra v0=7"),
        ("sam_instance", "point v0=1 none", [], "a point without coordinates"),
        ("sam_instance", "point v0=1 v1=225 none", [], "within 224×224; skipped"),
        ("sam_instance", "point v0=1 v1=2", [], "0 of 0 instances are valid"),
        ("sam_instance", f"point v0=1 v1=2 polygon v0=9 v1=0 v2=8 v3=9 {CODES_TEXT}", [], "0 of 1 instances are valid"),
        ("sam_instance", f"point v0=1 v1=2 polygon v0=0 v1=0 v2=8 v3=9 {CODES_TEXT} polygon", [{"point", "instances"}], "1 of 2"),
        ("sam_instance", f"point v0=1 v1=2 polygon v0=0 v1=0 v2=8 v3=9 {CODES_TEXT} none", [{"point", "instances"}], "together with 'none'"),
        ("sam_instance", "none point v0=1 v1=2 none", [{"point", "instances"}], "1 groups before the first point: none"),
    ],
)  # fmt: skip
def test_what_is_valid_is_kept_and_the_rest_reported(catalog, published, plain, name, written, kept, said):
    ids = [*plain.encode(written).ids, EOS]
    [decoded] = SequenceTokenizer(catalog[name], published).decode_with_problems([ids])
    assert [set(item) for item in decoded.value] == kept
    assert any(said in problem for problem in decoded.problems), decoded.problems


# Input and entries that do not fit.


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("human_poses", {"box": [0, 0, 1, 1]}, "a list"),
        ("human_poses", [{"pose": [1] * 8}], 'expected {"box": [xmin, ymin, xmax, ymax], "pose": 8 numbers'),
        ("human_poses", [{"box": [0, 0, 1, 2]}], "found item 0 with box [0, 0, 1, 2]; expected"),
        ("human_poses", [{"box": [0, 0, 1, 2]}], "if these are pixels, divide"),
        ("human_poses", [{"box": [0.5, 0, 0.4, 1]}], "give the smaller coordinate first"),
        ("human_poses", [{**PERSON, "pose": [1024] * 8}], "expected 8 whole numbers from 0 to 1023"),
        ("human_poses", [{**PERSON, "pose": [0.5] * 8}], "whole numbers"),
        ("human_poses", [{**PERSON, "pose": [1] * 7}], "expected 8 whole numbers from 0 to 1023"),
        (
            "human_poses",
            [PERSON, {**PERSON, "camera": [float("nan")] * 4}],
            "item 1: camera = [nan, nan, nan, nan]; expected 4 numbers",
        ),
        ("sam_instance", [{"point": [0, 0]}], 'expected {"point": [x, y], "instances": list of {"box"'),
        ("sam_instance", [{"point": [0, 3], "instances": []}], "found item 0 with point [0, 3]; expected"),
        ("sam_instance", [{"point": [0], "instances": []}], "found item 0 with point [0]; expected"),
        (
            "sam_instance",
            [{"point": [0, 0], "instances": [{"box": [0, 0, 1, 1]}]}],
            'item 0: instances: found item 0: {\'box\': [0, 0, 1, 1]}; expected {"box": [xmin, ymin, xmax, ymax], "codes": 16 numbers}',
        ),
    ],
)
def test_input_that_does_not_fit_is_refused(tokenizers, name, value, said):
    with pytest.raises(BadSample) as error:
        tokenizers[name].encode([value])
    assert f"modality '{name}'" in str(error.value) and said in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "human_poses",
            {"parts": {"Pose": Part(2, codes=4), "pose": Part(2, codes=4)}},
            "'pose' is written like the word 'Pose'",
        ),
        ("human_poses", {"parts": {"none": Part(2, codes=4)}}, "'none' is written like the word 'none'"),
        ("human_poses", {"parts": {"\u4e1e": Part(2, codes=4)}}, "cannot be written"),
        ("human_poses", {"parts": {"pose": Part(2, codes=2000)}}, "value.parts.pose needs v1=0 to v1=1487"),
        ("human_poses", {"bins": 1001}, "values.v0 to at least 1001"),
        ("human_poses", {"max_tokens": 30}, "but one person and the end take"),
        ("sam_instance", {"size": (1000, 224)}, "value.size needs v0=0 to v0=1000"),
        ("sam_instance", {"max_tokens": 20}, "but one point and the end take"),
        ("metadata", {"keys": {"a": Key(0, (0, 1), bins=1001)}}, "values.v0 to at least 1001"),
    ],
)
def test_entries_that_cannot_work_name_field_and_remedy(tokenizers, name, changes, said):
    with pytest.raises(MaskweaveError) as error:
        remade(tokenizers[name], **changes)
    assert f"modality '{name}'" in str(error.value) and said in str(error.value)
