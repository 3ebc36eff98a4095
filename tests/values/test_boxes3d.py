"""Boxes in space: checks, crops and flips, sequences, and what detections are compared with."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import load_catalog
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.boxes3d import as_rows, item_overlaps, outline
from maskweave.values.camera import rectangle
from maskweave.values.codec import EOS
from maskweave.values.geometry import Geometry
from maskweave.values.metrics import Labels
from maskweave.values.remarks import listening

ENTRY = load_catalog("scenes-3d")["boxes3d"]
SCENES = Scenes(load_catalog("scenes-3d").subset(["boxes3d"]), 60, seed=9)
CAMERA = {"focal": [1.15, 1.15], "center": [0.5, 0.5], "pitch": 0.4, "roll": 0.0}
CUBE = {"class": "red cube", "center": [0.2, 1.5, 5.0], "size": [1.0, 1.2, 1.4], "yaw": 0.3}


def value_of(*boxes: dict) -> dict:
    return {"camera": CAMERA, "boxes": list(boxes)}


@pytest.fixture(scope="module")
def tokenizer() -> SequenceTokenizer:
    text = TextTokenizer.train(load_catalog("scenes-3d").vocabularies["text"], ["a red cube"])
    return SequenceTokenizer(ENTRY, text)


# Checks.


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([CUBE], "found .*expected {.camera."),
        ({"boxes": [CUBE]}, "expected {.camera."),
        (value_of({**CUBE, "class": "pink cube"}), "item 0 of class 'pink cube'"),
        (value_of({**CUBE, "center": [0, 1]}), r"item 0 with center \[0, 1\]; expected"),
        (value_of({**CUBE, "size": [1, 0, 1]}), "width, height and depth above 0"),
        (value_of({**CUBE, "yaw": math.nan}), "item 0 with yaw"),
        (value_of({"class": "red cube"}), "found item 0"),
        ({"camera": {**CAMERA, "pitch": 40}, "boxes": []}, "pitch from"),
    ],
)
def test_wrong_values_are_refused(value: object, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        ENTRY.value.check(value, "here")


def test_a_yaw_of_the_same_box_is_found() -> None:
    for turns in (-2, -1, 0, 1, 3):
        found = ENTRY.value.check(value_of({**CUBE, "yaw": 0.3 + turns * math.pi}), "here")["boxes"][0]
        assert found["yaw"] == pytest.approx(0.3)
    for changes, said in (
        ({"range": ((1, 0), (0, 1), (0, 1))}, "value.range must be lowest and highest"),
        ({"largest": 0}, "value.largest must be above 0"),
        ({"bins": 1}, "value.bins must be"),
    ):
        with pytest.raises(MaskweaveError, match=said):
            dataclasses.replace(ENTRY.value, **changes).check_settings("sequence")


# Crops and flips.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 59), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.7, 1), st.floats(0.7, 1), st.booleans())
def test_crops_and_flips_move_what_is_seen(number: int, x0: float, y0: float, x1: float, y1: float, flip: bool) -> None:
    value, geometry = SCENES[number]["boxes3d"], Geometry((x0, y0, x1, y1), flip)
    before = {item["class"]: rectangle(outline(item, value["camera"])) for item in value["boxes"]}
    moved = ENTRY.value.transform(value, geometry)
    after = {item["class"]: rectangle(outline(item, moved["camera"])) for item in moved["boxes"]}
    assert after.keys() == {name for name, box in before.items() if geometry.move_box(box)}
    for name, box in after.items():
        assert np.allclose(box, geometry.move_box(before[name]), atol=1e-9)
    original = {item["class"]: item for item in value["boxes"]}
    for item in moved["boxes"]:
        assert item["size"] == original[item["class"]]["size"], "distances and sizes stay"
        assert np.linalg.norm(item["center"]) == pytest.approx(np.linalg.norm(original[item["class"]]["center"]))
    if flip and geometry.crop == (0, 0, 1, 1):
        again = ENTRY.value.transform(moved, geometry)
        assert np.allclose(as_rows(again["boxes"]), as_rows(value["boxes"]))


def test_boxes_out_of_sight_and_out_of_range() -> None:
    behind, far = {**CUBE, "center": [0.0, 1.0, -4.0]}, {**CUBE, "center": [0.0, 2.0, 40.0]}
    told: list[str] = []
    with listening(told.append):
        found = ENTRY.value.transform(value_of({**CUBE, "center": [0.1, 2, 7]}, behind, far, CUBE), Geometry())
    assert [item["center"] for item in found["boxes"]] == [CUBE["center"], [0.1, 2, 7]], "nearest first"
    assert told == ["boxes whose center is outside value.range are left out"]


# Sequences.


def test_sequences_are_written_as_documented(tokenizer: SequenceTokenizer) -> None:
    value = {
        "camera": {"focal": [1.0, 2.0], "center": [0.5, 0.0], "pitch": 0.0, "roll": 0.0},
        "boxes": [
            {**CUBE, "center": [0.01, 1.51, 8.99], "size": [2.5, 0.01, 1.26], "yaw": 0.01},
            {**CUBE, "center": [-4, -1, 2], "size": [9, 1, 1], "yaw": -1.57},
        ],
    }
    [ids] = tokenizer.encode([value])
    assert " ".join(map(tokenizer.text.piece, ids)) == (
        "v0=16 v0=32 v0=32 v0=16 v0=32 v0=32 "
        "v0=0 v0=0 v0=0 v0=63 v0=25 v0=25 v0=0 red cube "
        "v0=32 v0=32 v0=63 v0=63 v0=0 v0=32 v0=32 red cube [EOS]"
    )


def test_scenes_come_back_to_half_a_bin(tokenizer: SequenceTokenizer) -> None:
    spans = np.array([high - low for low, high in ENTRY.value.range] + [ENTRY.value.largest] * 3 + [math.pi])
    for number in range(20):
        value = SCENES[number]["boxes3d"]
        [ids] = tokenizer.encode([value])
        [decoded] = tokenizer.decode_with_problems([ids])
        assert not decoded.problems and tokenizer.encode([decoded.value]) == [ids]
        found = ENTRY.value.check(decoded.value, "decoded")
        by_name = {item["class"]: item for item in found["boxes"]}
        assert by_name.keys() == {item["class"] for item in value["boxes"]}
        again = as_rows([by_name[item["class"]] for item in value["boxes"]])
        error = np.abs(again - as_rows(value["boxes"]))
        assert (error <= spans / 64 / 2 + 1e-9).all()
        assert abs(found["camera"]["pitch"] - value["camera"]["pitch"]) <= math.pi / 128 + 1e-9
        assert np.diag(item_overlaps(found["boxes"], found["boxes"])) == pytest.approx(1)


def test_broken_sequences_keep_what_is_whole(tokenizer: SequenceTokenizer) -> None:
    value = value_of(CUBE, {**CUBE, "class": "blue cone", "center": [0.0, 1.5, 7.0]})
    [ids] = tokenizer.encode([value])
    [cut] = tokenizer.decode_with_problems([[*ids[:14], *ids[16:]]])
    assert [item["class"] for item in cut.value["boxes"]] == ["red cube"] and len(cut.problems) == 1
    [headless] = tokenizer.decode_with_problems([[ids[-2], *ids[6:]]])
    assert len(headless.value["boxes"]) == 2 and "numbers of a camera" in headless.problems[0]
    [nothing] = tokenizer.decode_with_problems([[EOS]])
    assert nothing.value["boxes"] == [] and ENTRY.value.check(nothing.value, "decoded") and nothing.problems


def test_only_as_many_boxes_as_fit_are_written(tokenizer: SequenceTokenizer) -> None:
    many = value_of(*({**CUBE, "center": [0.0, 1.5, 8 - k]} for k in range(5)))
    [ids] = tokenizer.encode([many])
    [decoded] = tokenizer.decode_with_problems([ids])
    assert len(ids) == 6 + 4 * 8 + 1 <= ENTRY.max_tokens
    assert [round(item["center"][2]) for item in decoded.value["boxes"]] == [4, 5, 6, 7], "the nearest"
    small = dataclasses.replace(ENTRY, value=dataclasses.replace(ENTRY.value, bins=65))
    with pytest.raises(MaskweaveError, match="vocabularies.text.values.v0 to at least 65"):
        SequenceTokenizer(small, tokenizer.text)
    with pytest.raises(MaskweaveError, match="one box and the end take 15 tokens"):
        SequenceTokenizer(dataclasses.replace(ENTRY, max_tokens=14), tokenizer.text)


# Scores.


def test_classes_are_scored_and_the_first_is_the_nearest() -> None:
    metric = ENTRY.value.metrics()["f1"]
    truth = [value_of(CUBE, {**CUBE, "class": "blue cone"}), value_of(CUBE)]
    assert metric.score([value_of(CUBE), value_of(CUBE, CUBE)], truth) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metric.best_constant(truth) == Labels(["red cube", "blue cone"])
    assert ENTRY.value.labels["first"] == ENTRY.value.classes and ENTRY.value.label_of(truth[0], "first") == "red cube"
    with pytest.raises(BadSample, match="the list is empty"):
        ENTRY.value.label_of(value_of(), "first")


def test_boxes_are_scored_where_they_are() -> None:
    metric = ENTRY.value.metrics()["f1_25"]
    aside, other = {**CUBE, "center": [0.7, 1.5, 5.0]}, {**CUBE, "class": "blue cone"}
    assert item_overlaps([aside], [CUBE])[0, 0] == pytest.approx(0.33, abs=0.05)
    assert metric.statistics(value_of(aside, CUBE, other), value_of(CUBE, CUBE)).tolist() == [2, 1, 0]
    assert metric.statistics(value_of(CUBE, CUBE), value_of(CUBE)).tolist() == [1, 1, 0], "each true box counts once"
    assert metric.statistics(value_of({**CUBE, "center": [1.2, 1.5, 5.0]}), value_of(CUBE)).tolist() == [0, 1, 1]
    assert metric.statistics(value_of(), value_of(CUBE)).tolist() == [0, 0, 1]
    assert math.isnan(metric.score([value_of()], [value_of()]))


def test_no_median_boxes_are_better_than_the_best_constant() -> None:
    metric, rng = ENTRY.value.metrics()["f1_25"], np.random.default_rng(0)
    values = [
        value_of(*({**CUBE, "class": str(name), "center": [float(rng.normal(0, 0.3)), 1.5, 5.0]} for name in names))
        for names in (["red cube", "blue cone"], ["red cube"], ["red cube", "gray cone"], ["blue cone"]) * 5
    ]
    best = metric.best_constant(values)
    boxes = {item["class"]: item for item in metric.best_constant(values[:3])["boxes"] + best["boxes"]}
    every = [{"boxes": list(chosen)} for n in range(1, 3) for chosen in itertools.combinations(boxes.values(), n)]
    score = metric.score([best] * len(values), values)
    assert score > 0.5 and all(metric.score([one] * len(values), values) <= score + 1e-12 for one in every)
    assert metric.best_constant([value_of()]) == {"boxes": []}


def test_numbers_for_the_network_come_back() -> None:
    value = SCENES[3]["boxes3d"]
    rows = ENTRY.value.box_rows(value)
    assert rows.dtype == np.float32 and rows.shape == (len(value["boxes"]), 11)
    assert rows[:, 1:9].min() >= 0 and rows[:, 1:9].max() <= 1
    names = [ENTRY.value.classes[int(k)] for k in rows[:, 0]]
    found = ENTRY.value.detections(rows[:, 1:], names, [0.5] * len(rows))
    assert [item["class"] for item in found["boxes"]] == [item["class"] for item in value["boxes"]]
    assert np.allclose(np.diag(item_overlaps(found["boxes"], value["boxes"])), 1, atol=1e-5)
    assert ENTRY.value.box_rows(value_of()).shape == (0, 11)


def test_detections_are_lifted_with_constants_in_their_direction_and_nothing_else() -> None:
    near, far = {**CUBE, "center": [0.0, 1.5, 4.0]}, {**CUBE, "center": [0.0, 1.5, 8.0], "size": [2.0, 1.2, 1.4]}
    seen = [value_of(near), value_of(far), value_of(far)]
    found = [{"boxes": [{**CUBE, "score": 0.7}]}]
    [lifted] = ENTRY.value.constant_detections(seen, found, [value_of()])
    [box] = lifted["boxes"]
    assert box["class"] == "red cube" and box["size"] == [2.0, 1.2, 1.4] and box["score"] == 0.7
    assert np.linalg.norm(box["center"]) == pytest.approx(math.hypot(1.5, 8.0)), "the median distance"
    middles = [np.mean(np.reshape(rectangle(outline(item, CAMERA)), (2, 2)), axis=0) for item in (box, CUBE)]
    assert np.allclose(middles[0], middles[1], atol=0.03)
    value, scenes = ENTRY.value, [SCENES[i]["boxes3d"] for i in range(60)]
    perfect = [{"boxes": [{**item, "score": 1.0} for item in scene["boxes"]]} for scene in scenes[30:]]
    assert set(value.detection_scores(perfect, scenes[30:]).values()) == {1.0}
    constant = value.detection_scores(value.constant_detections(scenes[:30], perfect, scenes[30:]), scenes[30:])
    assert constant["AP3D@50"] < constant["AP3D@25"] < 0.6, "even of perfect detections"
    assert value.constant_detections([value_of()], perfect[:1], scenes[:1]) == [{"boxes": []}]
