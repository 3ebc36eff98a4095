"""Metadata of time series: dates and numbers of each frame, from files to tokens and back."""

import json
from typing import Any

import pytest

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.vocabulary import Vocabulary
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.metadata import Key, Metadata

KEYS = {
    "day": Key(0, (1, 366), bins=366, integer=True, of="date", date="day_of_year"),
    "year": Key(1, (2000, 2030), bins=31, integer=True, of="date", date="year"),
}
SERIES = Metadata(keys=KEYS, dates=3)
EXPECTED = {"day@0": 64, "year@0": 2021, "day@2": 366, "year@2": 2024}


def read(value: Metadata, content: Any) -> Any:
    return value.read(json.dumps(content).encode(), "json", "here")


@pytest.mark.parametrize(
    "content",
    [
        ["2021-03-05", None, "2024-12-31"],
        ["20210305", None, "2024-12-31T23:59:59Z"],
        [{"date": "2021-03-05", "cloud": 0.2}, {"date": None}, {"date": "2024-12-31"}],
        [{"day": 64, "year": 2021}, {}, {"day": 366, "year": 2024}],
        EXPECTED,
    ],
)
def test_lists_of_dates_become_numbers_of_each_frame(content: Any) -> None:
    assert read(SERIES, content) == EXPECTED
    assert SERIES.check(read(SERIES, content), "here") == EXPECTED
    assert SERIES.read(*SERIES.write(EXPECTED), "here") == EXPECTED


def test_each_frame_has_tokens_of_its_own() -> None:
    text = TextTokenizer.train(Vocabulary("text", 1200, sentinels=8, values={"v0": 366, "v1": 6}), ["a"])
    codec = SERIES.codec("dates", 16, text)
    ids = codec.encode(EXPECTED)
    assert len(ids) == 9 and codec.decode(ids).value == EXPECTED
    first, third = codec.encode({"day@0": 64}), codec.encode({"day@2": 64})
    assert first[0] != third[0] and first[1] == third[1]
    with pytest.raises(MaskweaveError, match="needs v1=0 to v1=7"):
        Metadata(keys=KEYS, dates=4).codec("dates", 16, text)


def test_one_number_for_each_frame_and_dates_without_frames() -> None:
    height = Metadata(keys={"height": Key(0, (0, 10))}, dates=4)
    assert read(height, [1, 2.5, None]) == {"height@0": 1, "height@1": 2.5}
    assert read(height, [None, None]) is None and read(height, []) is None, "nothing is known"
    taken = Metadata(keys={**KEYS, "hour": Key(2, (0, 24), of="date", date="hour")})
    assert read(taken, {"date": "2021-03-05T10:30"}) == {"day": 64, "year": 2021, "hour": 10.5}
    assert read(taken, "2021-03-05") == {"day": 64, "year": 2021, "hour": 0}


def test_scores_and_labels_are_those_of_each_frame() -> None:
    assert "day@2" in SERIES.labels and SERIES.label_of(EXPECTED, "year@2") == "2024"
    scores = SERIES.metrics()["mae"].scores([{**EXPECTED, "day@0": 74}], [EXPECTED])
    assert scores["MAE day@0"] == 10 and scores["MAE day@2"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["2021-03-05"] * 4, "found a list of 4 frames; expected at most 3; raise the entry's value.dates"),
        (["5 March"], "frame 0: day: found the date '5 March'; expected a date as 2021-03-05"),
        ("2021-03-05", "found '2021-03-05'; expected a list with an object or a date for each of at most 3 frames"),
        ([7], "frame 0: found 7; expected keys and numbers"),
        ([{"cloud": 1}], "found keys cloud@0; expected at least one of day@0"),
    ],
)
def test_what_is_refused(content: Any, message: str) -> None:
    with pytest.raises(BadSample, match=f"^here: {message}"):
        read(SERIES, content)


def test_settings_that_are_refused() -> None:
    for dates, message in (
        (-1, "value.dates must be 0 to 1000, found -1"),
        (1000, "the ids of all frames' keys must be below"),
    ):
        with pytest.raises(MaskweaveError, match=message):
            Metadata(keys={"day": Key(99, (0, 1))}, dates=dates).check_settings("sequence")
