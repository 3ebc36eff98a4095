"""Values in messages are short, whatever they stand for."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maskweave.errors import reason, said, shown


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
        (2**320 - 1, str(2**320)[:79] + "…"),
        (2**320, "a whole number of 321 bits"),
        (2**100_000, "a whole number of 100001 bits"),
        (b"x" * 77, "b'" + "x" * 77 + "'"),
        (bytearray(b"x" * 90), "bytearray(b'" + "x" * 67 + "…"),
        (Pair, "<class 'test_errors.Pair'>"),
        ({1}, "{1}"),
        ({}, "{}"),
        ((), "()"),
        ((1, 2), "(1, 2)"),
        ((1,) * 7, "(1, 1, 1, 1, 1, 1, …)"),
        ([1] * 6, "[1, 1, 1, 1, 1, 1]"),
        ([[[1]]], "[[[1]]]"),
        (np.zeros((2, 3), np.float32), "ndarray float32 (2, 3)"),
        (SimpleNamespace(shape=3), "namespace(shape=3)"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_values_are_shown_short(value: Any, text: str) -> None:
    assert shown(value) == text


def test_messages_of_other_libraries_are_one_short_line() -> None:
    assert reason(OSError("no\n  such file")) == "no such file" and said(KeyError("a")) == "KeyError: 'a'"
    assert reason(ValueError("x" * 301)) == "x" * 300 and reason(MemoryError()) == "MemoryError"


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


class Large(str):
    """A text that must not be built once more."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise AssertionError("its full text was asked for")


def test_the_full_text_is_never_built() -> None:
    assert shown(Large("x" * 90)) == "'" + "x" * 78 + "…"
    assert shown([Large("x" * 90)]) == "['" + "x" * 77 + "…"


def test_another_length() -> None:
    assert shown("abcdef", 8) == "'abcdef'" and shown("abcdefg", 8) == "'abcdef…"
    assert shown(2**32 - 1, 8) == "4294967…" and shown(2**32, 8) == "a whole…"
