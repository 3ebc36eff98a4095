"""Values in messages are short, whatever they stand for."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maskweave.errors import shown


@dataclass
class Pair:
    left: Any
    right: Any


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("fast", "'fast'"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        ([1, "a"], "[1, 'a']"),
        ((1,), "(1,)"),
        ({"a": [1, 2]}, "{'a': [1, 2]}"),
        (Pair(1, "x"), "Pair(left=1, right='x')"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, …]"),
        ([[[["deep"]]]], "[[[[…]]]]"),
        ("x" * 78, "'" + "x" * 78 + "'"),  # of 80 characters
        ("x" * 79, "'" + "x" * 78 + "…"),
        ("x" * 10**6, "'" + "x" * 78 + "…"),
        (2**100_000, "a whole number of 100001 bits"),
        (np.zeros((2, 3), np.float32), "ndarray float32 (2, 3)"),
        (SimpleNamespace(shape=3), "namespace(shape=3)"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_values_are_shown_short(value: Any, text: str) -> None:
    assert shown(value) == text


class Counted(list):
    """A list that counts how often it is looked into."""

    looks = 0

    def __iter__(self):  # type: ignore[override]
        Counted.looks += 1
        return super().__iter__()


def test_what_is_nested_a_billionfold_is_looked_at_a_few_times() -> None:
    value: Any = Counted(["x"] * 10)
    for _ in range(9):
        value = Counted([value] * 10)
    assert len(shown(value)) <= 80 and Counted.looks < 1000
