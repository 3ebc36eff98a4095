"""Sequence tokenizers: round trips, broken sequences, input that doesn't fit, entries that cannot work."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.boxes import Boxes
from maskweave.values.codec import EOS, Bins
from maskweave.values.instances import Instances
from maskweave.values.metadata import Key
from maskweave.values.palette import Palette

SEQUENCES = ("caption", "boxes", "palette", "metadata", "instances")
CAPTIONS = ["a small red cube left of a large gray sphere", "two blue cones in front of a cylinder"]
unit = st.floats(0, 1)
names = st.sampled_from(["red cube", "gray cone", "blue sphere"])
boxes = st.lists(
    st.builds(
        lambda c, x, y: {"class": c, "box": [min(x), min(y), max(x), max(y)]},
        names,
        st.tuples(unit, unit),
        st.tuples(unit, unit),
    ),
    max_size=6,
)
color = st.lists(st.integers(0, 255), min_size=3, max_size=3)


@pytest.fixture(scope="module")
def tokenizers(scenes_catalog: Catalog) -> dict[str, SequenceTokenizer]:
    text = TextTokenizer.train(scenes_catalog.vocabularies["text"], CAPTIONS)
    return {name: SequenceTokenizer(scenes_catalog[name], text) for name in SEQUENCES}


def remade(tokenizer: SequenceTokenizer, **changes) -> SequenceTokenizer:
    """The tokenizer of the same entry with other `value` fields, or another max_tokens."""
    outer = {k: changes.pop(k) for k in list(changes) if k in ("max_tokens", "kind", "vocabulary")}
    entry = dataclasses.replace(
        tokenizer.modality, value=dataclasses.replace(tokenizer.modality.value, **changes), **outer
    )
    return SequenceTokenizer(entry, tokenizer.text)


def round_trip(tokenizer: SequenceTokenizer, value):
    """The decoded value, after checking that the sequence is whole and stable."""
    [ids] = tokenizer.encode([value])
    assert ids[-1] == EOS and EOS not in ids[:-1] and len(ids) <= tokenizer.modality.max_tokens
    assert all(0 <= id < tokenizer.vocabulary_size for id in ids)
    [decoded] = tokenizer.decode_with_problems([ids])
    assert decoded.problems == []
    assert tokenizer.encode([decoded.value]) == [ids]
    return decoded.value


def pieces(tokenizer: SequenceTokenizer, value) -> str:
    return " ".join(tokenizer.text.piece(id) for id in tokenizer.encode([value])[0])


# Sequences as documented.


def test_sequences_are_written_as_documented(tokenizers):
    box = {"class": "red cube", "box": [0.0, 0.5, 0.999, 1.0]}
    assert pieces(tokenizers["boxes"], [box]) == "v0=0 v1=32 v0=63 v0=63 red cube [EOS]"
    assert pieces(tokenizers["palette"], [[0, 128, 255], [4, 3, 7]]) == "v1=2 v0=0 v0=32 v0=63 v0=1 v0=0 v0=1 [EOS]"
    value = {"brightness": 255, "object_count": 4}
    assert pieces(tokenizers["metadata"], value) == "v1=0 v0=4 v1=1 v0=49 [EOS]"
    mask = np.zeros((64, 64), bool)
    mask[8:16, 16:24] = np.tril(np.ones((8, 8), bool))
    rows = " ".join(f"v1={n}" for n in (128, 192, 224, 240, 248, 252, 254, 255))
    assert (
        pieces(tokenizers["instances"], [{"class": "red cube", "mask": mask}])
        == f"red cube v0=16 v0=8 v0=23 v0=15 {rows} [EOS]"
    )
    assert pieces(tokenizers["boxes"], []) == pieces(tokenizers["instances"], []) == "[EOS]"


def test_boxes_use_the_published_prefixes_where_there_are_enough(tokenizers):
    vocabulary = Vocabulary("text", 5000, values=dict.fromkeys(("v0", "v1", "v2", "v3"), 1000), words=("red cube",))
    value = Boxes(classes=("red cube",), bins=1000)
    boxes = SequenceTokenizer(
        Modality("things", 1, "sequence", value, vocabulary="text", max_tokens=256), TextTokenizer.train(vocabulary, [])
    )
    assert (
        pieces(boxes, [{"class": "red cube", "box": [0.1001, 0.2001, 0.3001, 1]}])
        == "v0=100 v1=200 v2=300 v3=999 red cube [EOS]"
    )


def test_items_nearest_to_the_corner_come_first_and_the_rest_is_dropped(tokenizers):
    corners = [(0.9, 0.9), (0.1, 0.2), (0.0, 0.6), (0.5, 0.1), (0.3, 0.3), (0.2, 0.1)]
    value = [{"class": "red cube", "box": [x, y, 1, 1]} for x, y in corners]
    found = [item["box"][:2] for item in round_trip(tokenizers["boxes"], value)]  # max_items 4
    assert np.allclose(found, [(0.1, 0.2), (0.2, 0.1), (0.3, 0.3), (0.5, 0.1)], atol=0.5 / 64)
    assert len(round_trip(remade(tokenizers["boxes"], max_tokens=15), value)) == 2  # whole items only
    assert len(round_trip(remade(tokenizers["boxes"], max_tokens=31, max_items=0), value)) == 6
    assert len(round_trip(tokenizers["palette"], [[9, 9, 9]] * 9)) == 7


# Round trips.


@given(boxes)
def test_boxes_come_back_to_half_a_bin(tokenizers, value):
    tokenizer = remade(tokenizers["boxes"], max_tokens=64, max_items=0)
    found = round_trip(tokenizer, value)
    unmatched = [*value]
    for item in found:
        near = [
            v
            for v in unmatched
            if v["class"] == item["class"] and np.allclose(v["box"], item["box"], rtol=0, atol=0.5 / 64 + 1e-9)
        ]
        unmatched.remove(near[0])
    assert not unmatched


@given(st.lists(color, min_size=1, max_size=9), st.sampled_from([2, 7, 50, 64]))
def test_palettes_come_back_to_half_a_bin(tokenizers, value, bins):
    found = round_trip(remade(tokenizers["palette"], bins=bins), value)
    assert len(found) == min(len(value), 7)
    for found_color, original in zip(found, value, strict=False):
        assert np.abs(np.subtract(found_color, original)).max() <= np.ceil(128 / bins)  # half a bin, in whole levels


@given(st.lists(color, min_size=1, max_size=7))
def test_palettes_of_256_bins_are_exact(value):
    assert round_trip(exact_palette, value) == value


exact_palette = SequenceTokenizer(
    Modality("colors", 1, "sequence", Palette(bins=256, max_items=7), vocabulary="t", max_tokens=23),
    TextTokenizer.train(Vocabulary("t", 600, sentinels=3, values={"v0": 256, "v1": 8}), []),
)


@given(st.data())
def test_metadata_comes_back_to_half_a_bin(tokenizers, data):
    keys = tokenizers["metadata"].modality.value.keys
    numbers = {name: st.integers(*map(int, k.range)) if k.integer else st.floats(*k.range) for name, k in keys.items()}
    value = data.draw(st.fixed_dictionaries({}, optional=numbers).filter(bool))
    found = round_trip(tokenizers["metadata"], value)
    assert set(found) == set(value)
    for name, key in keys.items():
        if name in value and key.integer:
            assert found[name] == value[name] and isinstance(found[name], int)
        elif name in value:
            assert abs(found[name] - value[name]) <= 0.5 * (key.range[1] - key.range[0]) / key.bins + 1e-9


def test_metadata_is_clipped_and_drawn_in_random_order(tokenizers):
    metadata = tokenizers["metadata"]
    assert round_trip(metadata, {"object_count": 10**14, "brightness": -1e14, "of another catalog": "x"}) == {
        "object_count": 4,
        "brightness": 2.55,
    }
    value = {name: key.range[0] for name, key in metadata.modality.value.keys.items()}
    shuffled = metadata.encode([value] * 20, np.random.default_rng(0))
    assert len({tuple(ids) for ids in shuffled}) > 10
    assert all(v == metadata.decode(shuffled)[0] for v in metadata.decode(shuffled))
    assert metadata.encode(metadata.decode(shuffled)) == metadata.encode([value] * 20)


@given(st.integers(-20, 20), st.integers(1, 60), st.integers(1, 90))
def test_whole_numbers_keep_their_bin(low, extent, count):
    bins = Bins(low, low + extent, count, integer=True)
    for n in range(low, low + extent + 1):
        bin = bins.encode(n)
        assert isinstance(bins.centers[bin], int) and bins.encode(bins.centers[bin]) == bin
        assert abs(bins.centers[bin] - n) <= 0.5 * extent / count + 0.5
    if count == extent + 1:
        assert [bins.centers[bins.encode(n)] for n in range(low, low + count)] == [*range(low, low + count)]


@settings(max_examples=300)
@given(st.data())
def test_masks_keep_their_ids_whatever_the_sizes(tokenizers, data):
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    lattice = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 8)))
    bins = data.draw(st.integers(2, 64))
    tokenizer = remade(tokenizers["instances"], size=size, mask=lattice, bins=bins, max_tokens=80)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    value = []
    for name in data.draw(st.lists(names, max_size=4)):
        mask = rng.random(size) < rng.choice([0.02, 0.2, 0.5, 0.9])
        mask[rng.integers(size[0]) :, rng.integers(size[1]) :] = False
        mask[rng.integers(size[0]), rng.integers(size[1])] = True
        value.append({"class": name, "mask": mask})
    found = round_trip(tokenizer, value)
    assert len(found) == min(len(value), 4, 79 // (5 + lattice[0]))
    assert all(item["mask"].shape == size and item["mask"].dtype == bool for item in found)


@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.tuples(st.integers(0, 56), st.integers(0, 56)),
)
def test_masks_no_larger_than_the_lattice_are_exact(tokenizers, seed, extent, corner):
    mask = np.zeros((64, 64), bool)
    part = mask[corner[0] : corner[0] + extent[0], corner[1] : corner[1] + extent[1]]
    part[:] = np.random.default_rng(seed).random(extent) < 0.5
    part.flat[0] = True
    [item] = round_trip(tokenizers["instances"], [{"class": "gray cone", "mask": mask}])
    assert (item["mask"] == mask).all() and item["class"] == "gray cone"


def test_a_large_mask_comes_back_at_the_resolution_of_its_lattice(tokenizers):
    y, x = np.mgrid[:64, :64]
    disc = (y - 30) ** 2 + (x - 34) ** 2 <= 20**2
    [item] = round_trip(tokenizers["instances"], [{"class": "red sphere", "mask": disc}])
    assert (item["mask"] & disc).sum() / (item["mask"] | disc).sum() > 0.85


@given(st.text(st.sampled_from("abc xyz,.'19"), max_size=300))
def test_text_comes_back_and_is_cut_to_fit(tokenizers, value):
    found = round_trip(tokenizers["caption"], value)
    whole = tokenizers["caption"].text.decode(tokenizers["caption"].text.encode(value))
    assert whole.startswith(found)


# What a model writes.


@pytest.mark.parametrize("name", SEQUENCES)
@given(data=st.data())
def test_no_ids_make_decoding_fail(tokenizers, name, data):
    tokenizer = tokenizers[name]
    special = st.integers(0, tokenizer.text.vocabulary.fixed)
    ids = data.draw(st.lists(special | st.integers(-5, tokenizer.vocabulary_size + 5), max_size=60))
    [decoded] = tokenizer.decode_with_problems([ids])
    if decoded.value or name not in ("palette", "metadata"):  # of which there is no empty one
        tokenizer.encode([decoded.value])  # what was read is valid
    assert (EOS in ids) or "no [EOS]" in decoded.problems[0]


def test_broken_boxes_leave_the_valid_ones(tokenizers):
    boxes = tokenizers["boxes"]
    value = [{"class": "red cube", "box": [0.1, 0.1, 0.2, 0.2]}, {"class": "blue cone", "box": [0.5, 0.5, 0.9, 0.9]}]
    [ids] = boxes.encode([value])
    cases = {
        "tokens 5 to 5": [*ids[:5], 0, *ids[5:]],
        "tokens 0 to 3": [*ids[:3], *ids[4:]],
        "tokens 10 to 12": [*ids[:10], *ids[:3], EOS],
        "no [EOS]": ids[:-1],
        "box 0 is reversed": [ids[2], ids[1], ids[0], *ids[3:]],
    }
    for problem, broken in cases.items():
        [decoded] = boxes.decode_with_problems([broken])
        assert len(decoded.problems) == 1 and problem in decoded.problems[0]
        assert {item["class"] for item in decoded.value} <= {"red cube", "blue cone"} and decoded.value


def test_other_broken_sequences_say_what_is_wrong(tokenizers):
    v = tokenizers["boxes"].text.value
    palette, metadata, instances, caption = (
        tokenizers[n].decode_with_problems for n in ("palette", "metadata", "instances", "caption")
    )
    assert palette([[v("v1", 2), *[v("v0", 0)] * 3, EOS]]) == [([[2, 2, 2]], ["1 colors, but v1= gives 2"])]
    assert "number of colors" in palette([[v("v0", 0)] * 3 + [EOS]])[0].problems[0]
    pair = [v("v1", 0), v("v0", 1)]
    assert metadata([[*pair, v("v1", 0), v("v0", 2), EOS]]) == [
        ({"object_count": 1}, ["object_count appears twice; the first is kept"])
    ]
    assert "bin 5" in metadata([[v("v1", 0), v("v0", 5), EOS]])[0].problems[0]
    assert "are not a valid pair" in metadata([[v("v1", 99), v("v0", 5), EOS]])[0].problems[0]
    name = tokenizers["boxes"].text.word("red cube")
    assert "empty" in instances([[name, *[v("v0", 1)] * 4, *[v("v1", 0)] * 8, EOS]])[0].problems[0]
    reversed_ = [name, v("v0", 5), v("v0", 5), v("v0", 1), v("v0", 9), *[v("v1", 255)] * 8, EOS]
    assert "reversed" in instances([reversed_])[0].problems[0]
    assert caption([[name, v("v0", 1), EOS]]) == [("red cube", ["1 tokens are not text: v0=1"])]


def test_tensors_and_arrays_of_ids_are_read(tokenizers):
    boxes = tokenizers["boxes"]
    value = [{"class": "red cube", "box": [0.1, 0.1, 0.2, 0.2]}]
    ids = boxes.encode([value])
    assert boxes.decode(torch.tensor(ids)) == boxes.decode(np.array(ids)) == boxes.decode(ids)
    assert all(isinstance(tokenizer, Tokenizer) for tokenizer in tokenizers.values())


# Input that doesn't fit.

MASK = np.ones((64, 64), bool)
NAN = float("nan")
BOX = '{"class": name, "box": [xmin, ymin, xmax, ymax]}'
BAD = [
    ("caption", 3, "found 3; expected text"),
    ("caption", "x" * 100_000, "100,000 characters"),
    ("caption", "\ud800", "expected plain text"),
    ("caption", "a\x00b", "control characters"),
    ("boxes", {"class": "red cube"}, "a list"),
    ("boxes", "red cube", "a list"),
    ("boxes", ["red cube"], f"found item 0: 'red cube'; expected {BOX}"),
    ("boxes", [{"class": "red cube"}], f"found item 0: {{'class': 'red cube'}}; expected {BOX}"),
    ("boxes", [{"class": "pink cube", "box": [0, 0, 1, 1]}], "item 0 of class 'pink cube'; expected one of the entry's"),
    ("boxes", [{"class": ["red cube"], "box": [0, 0, 1, 1]}], "item 0 of class ['red cube']"),
    ("boxes", [{"class": "red cube", "box": [0, 0, 1]}], f"item 0 with box [0, 0, 1]; expected {BOX}"),
    ("boxes", [{"class": "red cube", "box": [0, 0, 1, "1"]}], f"item 0 with box [0, 0, 1, '1']; expected {BOX}"),
    ("boxes", [{"class": "red cube", "box": [0, 0, 1, True]}], f"item 0 with box [0, 0, 1, True]; expected {BOX}"),
    ("boxes", [{"class": "red cube", "box": [0, 0, 1, 1.01]}], "coordinates 0 to 1 from the top left; if these are pixels, divide"),
    ("boxes", [{"class": "red cube", "box": [-0.1, 0, 1, 1]}], "coordinates 0 to 1 from the top left; if these are pixels, divide"),
    ("boxes", [{"class": "red cube", "box": [0, NAN, 1, 1]}], "item 0 with box [0, nan, 1, 1]"),
    ("boxes", [{"class": "red cube", "box": [0.5, 0, 0.4, 1]}], "box [0.5, 0, 0.4, 1]"),
    ("boxes", [{"class": "red cube", "box": [0, 0.6, 1, 0.5]}], "give the smaller coordinate first"),
    ("palette", [[0, 0, 256]], "color 0: [0, 0, 256]; expected [red, green, blue], whole numbers from 0 to 255"),
    ("palette", [[1, 2, 3], [0, -1, 0]], "color 1: [0, -1, 0]; expected"),
    ("palette", [[0, NAN, 0]], "color 0: [0, nan, 0]"),
    ("palette", [[0, 0.5, 0]], "[0, 0.5, 0]; expected [red, green, blue], whole numbers"),
    ("palette", [[0, 0]], "color 0: [0, 0]; expected [red, green, blue]"),
    ("palette", [3], "color 0: 3; expected [red, green, blue]"),
    ("palette", 3, "found 3; expected a list of one or more colors"),
    ("palette", [], "found []; expected a list of one or more colors"),
    ("metadata", [1, 2], "found [1, 2]; expected keys and numbers"),
    ("metadata", {"sharpness": 1}, "found keys sharpness; expected at least one of object_count, brightness"),
    ("metadata", {}, "found keys none; expected at least one of object_count, brightness"),
    ("metadata", {"brightness": NAN}, "brightness = nan; expected a finite number"),
    ("metadata", {"brightness": float("inf")}, "finite"),
    ("metadata", {"brightness": -float("inf")}, "finite"),
    ("metadata", {"brightness": 10**400}, "finite"),
    ("metadata", {"brightness": None}, "brightness = None; expected a finite number; leave out unknown keys"),
    ("metadata", {"brightness": "12"}, "brightness = '12'; expected a finite number"),
    ("instances", [{"class": "red cube", "mask": MASK[:63]}], "(64, 64)"),
    ("instances", [{"class": "red cube", "mask": MASK.astype(np.float32)}], "item 0 with a mask of type float32 and shape (64, 64); expected bool (height, width)"),
    ("instances", [{"class": "red cube", "mask": MASK[0]}], "item 0 with a mask of type bool and shape (64,)"),
    ("instances", [{"class": "red cube", "mask": [[True], [True, False]]}], "item 0: mask: found [[True], [True, False]]; expected an array"),
    ("instances", [{"class": "red cube", "mask": MASK}, {"class": "red cube", "mask": MASK[1:]}], "item 1 with a mask of (63, 64); expected (64, 64) like item 0"),
    ("instances", [{"class": "red cube", "mask": ~MASK}], "instance 0: found an empty mask"),
    ("instances", [{"class": "cube", "mask": MASK}], "item 0 of class 'cube'; expected one of the entry's"),
    ("instances", [{"class": "red cube"}], '{"class": name, "mask": mask}'),
    ("instances", MASK, "a list"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_input_that_does_not_fit_is_refused(tokenizers, name, value, said):
    with pytest.raises(BadSample) as error:
        tokenizers[name].encode([value])
    assert f"modality '{name}'" in str(error.value) and said in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("values", ["a red cube", {"brightness": 3}, 3, None])
def test_one_value_in_place_of_a_list_is_refused(tokenizers, values):
    with pytest.raises(MaskweaveError, match="a list of values"):
        tokenizers["caption"].encode(values)


def test_masks_may_be_numbers_or_lists(tokenizers):
    thing = {"class": "red cube", "mask": MASK}
    [ids] = tokenizers["instances"].encode([[thing]])
    for mask in (MASK.astype(np.uint8), MASK.tolist(), MASK[..., None]):
        assert tokenizers["instances"].encode([[{**thing, "mask": mask}]]) == [ids]


def test_numbers_of_numpy_are_numbers(tokenizers):
    box = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert (
        len(round_trip(tokenizers["boxes"], [{"class": "red cube", "box": box}, {"class": "red cube", "box": [*box]}]))
        == 2
    )
    assert round_trip(tokenizers["palette"], [np.array([6, 6, 6], np.uint8)]) == [[6, 6, 6]]
    assert (
        round_trip(tokenizers["metadata"], {"object_count": np.int64(3), "brightness": np.float32(0)})["object_count"]
        == 3
    )


# Entries that cannot work.


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("boxes", {"bins": 65}, "vocabularies.text.values.v0 to at least 65"),
        ("boxes", {"classes": ("red cube", "pink cube")}, "pink cube"),
        ("boxes", {"max_tokens": 5}, "but one box and the end take"),
        ("palette", {"bins": 128}, "values.v0 to at least 128"),
        ("palette", {"bins": 300}, "value.bins 300 is more than the 256 levels"),
        ("palette", {"max_tokens": 1000, "max_items": 300}, "values.v1 to at least 301"),
        ("palette", {"max_tokens": 4}, "but one color and the end take"),
        ("metadata", {"max_tokens": 2}, "but one pair and the end take"),
        ("metadata", {"keys": {"a": Key(256, (0, 1))}}, "values.v1 to at least 257"),
        ("metadata", {"keys": {"a": Key(0, (0, 1), bins=65)}}, "values.v0 to at least 65"),
        ("metadata", {"keys": {"a": Key(0, (0, 1), bins=0)}}, "value.keys.a needs an id from 0 and at least 1 bin"),
        ("instances", {"bins": 128}, "values.v0 to at least 128"),
        ("instances", {"mask": (8, 9)}, "value.mask of at most 8 columns, found [64, 64] and [8, 9]"),
        ("instances", {"max_tokens": 13}, "but one instance and the end take"),
        ("caption", {"vocabulary": "other"}, "'other'"),
        ("caption", {"kind": "grid"}, "grid"),
    ],
)
def test_entries_that_cannot_work_name_field_and_remedy(tokenizers, name, changes, said):
    with pytest.raises(MaskweaveError) as error:
        remade(tokenizers[name], **changes)
    assert f"modality '{name}'" in str(error.value) and said in str(error.value)


def test_rows_of_masks_need_a_value_for_each_pattern():
    with pytest.raises(MaskweaveError, match=r"a row of n columns takes 2\*\*n values.*values.v1 to at least 16"):
        SequenceTokenizer(
            Modality("parts", 1, "sequence", Instances((8, 8), ("a",), mask=(4, 4)), vocabulary="t", max_tokens=23),
            TextTokenizer.train(Vocabulary("t", 800, values={"v0": 256, "v1": 8}, words=("a",)), []),
        )


def test_the_published_vocabulary_carries_boxes_with_coco_classes():
    file = Path(os.environ.get("MASKWEAVE_PARITY", "../shared/parity")) / "text_tokenizer_30k.json"
    if not file.exists():
        pytest.skip(f"the published tokenizer is not at {file}; set MASKWEAVE_PARITY to its folder")
    value = Boxes(classes=("wine glass", "zebra", "human"), bins=1000)
    tokenizer = SequenceTokenizer(
        Modality("det", 1, "sequence", value, vocabulary="text", max_tokens=256), TextTokenizer.load(file)
    )
    box = {"class": "wine glass", "box": [0.25, 0.5, 0.75, 1.0]}
    assert tokenizer.encode([[box]]) == [[204 + 250, 1204 + 500, 2204 + 750, 3204 + 999, 4282, 3]]
    assert round_trip(tokenizer, [box, {"class": "human", "box": [0, 0, 0, 0]}])[0]["class"] == "human"
