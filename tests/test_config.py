"""Typed dataclasses out of plain mappings."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int] = (1, 2)
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    rate: float
    inner: Inner = field(default_factory=Inner)
    many: dict[str, Inner] = field(default_factory=dict)
    maybe: int | None = None
    flag: bool = False


def test_plain_is_the_reverse_of_build():
    outer = Outer(0.5, Inner((3, 4), "b"), {"x": Inner()}, 7, True)
    assert build(Outer, plain(outer), "here") == outer


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert build(Outer, {"rate": "1e-4"}, "here").rate == 1e-4
    assert build(Outer, {"rate": 3}, "here").rate == 3.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "here: key 'rate' is missing; expected a number"),
        ({"rate": 1, "rat": 2}, "unknown key 'rat'; did you mean 'rate'"),
        ({"rate": "fast"}, "'rate' expects a number, found 'fast'"),
        ({"rate": True}, "'rate' expects a number, found True"),
        ({"rate": 1, "flag": 1}, "'flag' expects true or false, found 1"),
        (
            {"rate": 1, "maybe": 1.5},
            "'maybe' expects a whole number or nothing, found 1.5|'maybe' expects a whole number, found 1.5",
        ),
        ({"rate": 1, "inner": {"size": [1]}}, r"'inner.size' expects \[a whole number, a whole number\], found \[1\]"),
        ({"rate": 1, "inner": {"mode": "c"}}, "'inner.mode' expects one of a, b, found 'c'"),
        ({"rate": 1, "inner": 3}, "'inner': expected keys and values, found 3"),
        ({"rate": 1, "many": {"x": {"siize": 1}}}, "unknown key 'many.x.siize'; did you mean 'many.x.size'"),
        ([1], "expected keys and values"),
    ],
)
def test_errors_name_file_key_found_and_expected(content, message):
    with pytest.raises(MaskweaveError, match=message):
        build(Outer, content, "here")
