"""What texts and JSON values become, at and beside each limit."""

from typing import Any

import numpy as np
import pytest

from maskweave.init.commented import COLUMN, WIDTH, Line, commented
from maskweave.init.dense import MOST_CHANNELS, _axes
from maskweave.init.finding import Finding
from maskweave.init.words import _is_logarithmic, class_ids, decide_ids, decide_json, decide_text


def of_texts(*texts: str) -> Finding:
    return decide_text(Finding("note", len(texts)), texts)


def of_json(*values: Any) -> Finding:
    return decide_json(Finding("fact", len(values)), values, minutes=10)


@pytest.mark.parametrize(
    ("texts", "type"),
    [
        (["1", "2.5", "1e3"], "scalar"),
        (["0", "1"] * 2, "label"),  # two numbers
        (["0", "1", "2"] * 9, "scalar"),
        (["red", "blue"] * 4, "label"),
        (["red", "blue"] * 3 + ["red"], "text"),  # each not four times on average
        (["a" * 64, "b"] * 4, "label"),
        (["a" * 65, "b"] * 4, "text"),
        (["a\nb", "c"] * 4, "text"),
        ([f"kind {i}" for i in range(200)] * 4, "label"),
        ([f"kind {i}" for i in range(201)] * 4, "text"),
        (["1 2 3", "4 5 six"], "text"),
    ],
)
def test_texts(texts: list[str], type: str) -> None:
    assert of_texts(*texts).type == type


def test_texts_that_need_a_decision() -> None:
    assert of_texts("", " ").doubts == ["all files are empty"] and not of_texts("").type
    rows = of_texts("1 2 3", "4 5 6")
    assert not rows.type and rows.doubts == ["rows of numbers as text; save them as .npy or .csv"]
    classes = of_texts(*["a red cube", "a ball"] * 4)
    assert classes.value["classes"] == ["a ball", "a red cube"]
    assert classes.doubts[0].startswith(
        "few different texts (2) are taken as classes of one token; to write them freely, run again with --text note"
    )
    assert not of_texts(*["cube", "ball"] * 4).doubts
    assert "max_characters" not in of_texts("a" * 10_000, "b").value
    assert of_texts("a" * 10_001, "b").value == {"max_characters": 10_001}
    assert of_texts("one two", "one two", "three").found == "2 different texts of up to 7 characters"


def test_json() -> None:
    assert of_json(None, None).doubts == ["all files hold null"]
    assert of_json(None, "red", *["red", "blue"] * 4).type == "label" and of_json(3, 4.5).type == "scalar"
    assert of_json([], []).doubts == ["all lists are empty"]
    tags = of_json(["b", "a"], [], ["b"])
    assert (tags.type, tags.value, tags.found) == ("tags", {"classes": ["a", "b"]}, "lists of 2 different tags")
    assert not of_json(3, "red").type and of_json([1], ["a"]).doubts[0].startswith("JSON of another form")


def test_json_objects() -> None:
    named = of_json(*[{"color": "red"}, {"color": "blue"}] * 4)
    assert named.type == "label" and named.value == {"classes": ["blue", "red"], "key": "color"}
    free = of_json({"says": "one thing"}, {"says": "another"})
    assert (free.type, free.max_tokens) == ("", 0)
    assert free.doubts == ["free text under the key 'says'; save only the text, as .txt"]
    assert of_json({"a": "x", "b": "y"}).doubts == ["objects without numbers (keys a, b)"]
    one = of_json({"height": 2.5, "note": "x"}, {"height": 3.5})
    assert one.type == "scalar" and one.value["key"] == "height"
    assert one.doubts == ["the keys note hold no numbers and are not read"]
    several = of_json(
        {"a": 1, "b": 7, "c": 0, "d": 0.5}, {"a": 1, "b": 10, "c": 64, "d": 1.5}, {"a": 1, "c": 3, "d": 1}
    )
    assert (several.type, several.chunk, several.max_tokens) == ("metadata", 2, 10)
    assert several.found == "objects with 4 numbers, some without b"
    keys = several.value["keys"]
    assert keys["a"] == {"id": 0, "range": [0.5, 1.5], "bins": 1}
    assert keys["b"] == {"id": 1, "range": [7, 10], "bins": 4, "integer": True}
    assert keys["c"] == {"id": 2, "range": [0.0, 64.0], "bins": 8, "integer": True}, "not one bin for each number"
    assert "integer" not in keys["d"]
    assert several.special == {"v0": max(key["bins"] for key in keys.values()), "v1": 4}
    assert several.numbers["b"] == [7, 10]
    assert not of_json({str(i): i for i in range(9)}, {}).numbers, "too many for a modality each"


def test_whole_numbers() -> None:
    def of_ids(*numbers: int) -> Finding:
        return decide_ids(Finding("kind", len(numbers)), numbers)

    assert of_ids(5, 9).value["classes"] == ["5", "9"] and of_ids(*[0, 1, 2] * 4).value["classes"] == ["0", "1", "2"]
    assert of_ids(*[1, 2, 4] * 4).value["classes"] == ["1", "2", "3", "4"], "less than 1.5 times as many"
    for numbers in ([0, 1, 2] * 3 + [0, 1], [2, 3, 4] * 4, [0, 2, 5] * 4):
        assert of_ids(*numbers).type == "scalar", "too rare; not from 0 or 1; too far apart"
    assert class_ids("Label_id", ["3", "7", " 3 ", "", "7"]) == [3, 7, 3, 7] and class_ids("age", ["3", "7"] * 3) == []
    for cells in (["3", "07"] * 2, ["3", "x"] * 2, ["3"] * 4, ["3", "4", "5"]):
        assert class_ids("label", cells) == []
    assert len(class_ids("class", [str(i) for i in range(50)] * 2)) == 100
    assert not class_ids("class", [str(i) for i in range(51)] * 2)


@pytest.mark.parametrize(
    ("shapes", "planes", "axes", "channels"),
    [
        ([(9,)], False, 1, 1),
        ([(9, 3)], True, 2, 1),
        ([(9, 4)], False, 1, 4),
        ([(3, 4)], False, 1, 4),
        ([(4, 5)], False, 2, 1),
        ([(5, 5)], False, 1, 5),
        ([(9, 8), (9, 7)], False, 2, 1),
        ([(9, 9, 3)], False, 2, 3),
        ([(3, 99, 99)], False, 0, 0),
        ([(9, 99, 98), (9, 99, 99)], False, 0, 0),
        ([(9, 99, 98), (8, 99, 99)], False, 3, 1),
        ([(MOST_CHANNELS + 1, 99, 99)], False, 3, 1),
        ([(9, 9, 9, 2)], False, 3, 2),
        ([(9, 9, 9, MOST_CHANNELS + 1)], False, 0, 0),
        ([(2, 2, 2, 2, 2)], False, 0, 0),
    ],
)
def test_axes_and_channels(shapes: list[tuple[int, ...]], planes: bool, axes: int, channels: int) -> None:
    found = _axes(shapes, planes)
    assert found[:2] == (axes, channels)
    if not axes:
        assert ("channels first" if len(shapes[0]) == 3 else "expected one to three axes and channels last") in found[2]


def test_a_long_second_axis_of_one_length_is_channels() -> None:
    wide = MOST_CHANNELS + 1
    assert _axes([(20, wide), (30, wide)], False) == (
        1,
        wide,
        f"arrays of shape (length, {wide}) are read as {wide} channels over one axis",
    )
    assert _axes([(20, wide), (20, wide)], False) == (2, 1, "")


def test_a_comment_stands_behind_its_line_while_there_is_room() -> None:
    room = WIDTH - COLUMN - len("  # ")
    behind, above = (commented([Line("key", 1, "x" * length)]).splitlines() for length in (room, room + 1))
    assert len(behind) == 1 and len(behind[0]) == WIDTH and behind[0].endswith("x" * room)
    assert above == [f"# {'x' * (room + 1)}", "key: 1"]


def test_numbers_are_logarithmic_by_their_ratios_not_their_size() -> None:
    assert not _is_logarithmic(np.linspace(100, 1000, 50).tolist()), "one decade"
    assert not _is_logarithmic(np.linspace(10, 10_000, 500).tolist()), "three decades, evenly spread"
    assert _is_logarithmic(np.geomspace(10, 10_000, 50).tolist())
    assert _is_logarithmic(np.geomspace(1e-5, 1e-2, 50).tolist())
