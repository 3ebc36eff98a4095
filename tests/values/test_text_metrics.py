"""Metrics of texts, against torchmetrics."""

import random

import pytest
from torchmetrics.functional.text import char_error_rate, edit_distance

from maskweave.values.text import Text
from maskweave.values.text_metrics import edit_distance as ours

PAIRS = [("kitten", "sitting"), ("", "abc"), ("abc", ""), ("", ""), ("same", "same"), ("flaw", "lawn"), ("ab", "ba")]


def test_edit_distances_are_those_of_torchmetrics() -> None:
    rng = random.Random(0)
    drawn = [
        ("".join(rng.choices("abcd ", k=rng.randrange(12))), "".join(rng.choices("abcd ", k=9))) for _ in range(40)
    ]
    for one, other in PAIRS + drawn:
        expected = int(edit_distance([one], [other], reduction="sum"))
        assert ours(one, other) == ours(other, one) == expected, (one, other)


def test_scores_of_texts() -> None:
    found, truth = ["a red cube", "a cone", "two cubes"], ["a red cube", "a blue cone", "two cubes."]
    metrics = Text().metrics()
    assert metrics["exact"].score(found, truth) == pytest.approx(1 / 3)
    assert metrics["edit_distance"].score(found, truth) == pytest.approx(float(char_error_rate(found, truth)))


def test_best_constants_of_texts() -> None:
    texts = ["abc", "abe", "xbc", "abc", "zzzzzz"]
    metrics = Text().metrics()
    assert metrics["exact"].best_constant(texts) == "abc"
    constant = metrics["edit_distance"].best_constant(texts)
    totals = {one: sum(int(edit_distance([one], [t], reduction="sum")) for t in texts) for one in texts}
    assert totals[constant] == min(totals.values())
