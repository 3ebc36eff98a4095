"""Typed dataclasses out of plain mappings."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import pytest

from maskweave.config import build, check_types, pairs, plain, renamed_key
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


@dataclass(frozen=True)
class Part:
    renamed: ClassVar[dict[str, str]] = {"colour": "color"}  # codespell:ignore
    color: str = ""


@dataclass(frozen=True)
class Whole:
    renamed: ClassVar[dict[str, str]] = {"old": "part", "old.deep": "deep", "colours": "parts"}  # codespell:ignore
    part: Part = field(default_factory=Part)
    parts: dict[str, Part] = field(default_factory=dict)
    deep: int = 0


def test_a_renamed_key_names_the_new_one():
    for content, words in (
        ({"old": 3}, "here: the key 'old' is now 'part'; rename it"),
        ({"part": {"colour": "red"}}, "the key 'part.colour' is now 'part.color'"),  # codespell:ignore
        ({"parts": {"x": {"colour": "red"}}}, "the key 'parts.x.colour' is now 'parts.x.color'"),  # codespell:ignore
    ):
        with pytest.raises(MaskweaveError, match=words):
            build(Whole, content, "here")
    assert build(Whole, {"part": {"color": "red"}}, "here").part.color == "red"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("old", "part"),
        ("old.color", "part.color"),
        ("old.deep", "deep"),
        ("part.colour", "part.color"),  # codespell:ignore
        ("parts.any name.colour", "parts.any name.color"),  # codespell:ignore
        ("colours.x", "parts.x"),  # codespell:ignore
        ("part.color", None),
        ("older", None),
        ("deep.colour", None),  # codespell:ignore
        ("", None),
    ],
)
def test_renamed_dotted_keys(old, new):
    assert renamed_key(Whole, old) == new


@dataclass(frozen=True)
class Trip:
    aliases: ClassVar[dict[str, str]] = {"from": "start"}
    start: str
    to: str = ""


@dataclass(frozen=True)
class Plan:
    trip: Trip


def test_a_key_with_another_name_than_its_field_is_the_only_one():
    found = build(Plan, {"trip": {"from": "here", "to": "there"}}, "x")
    assert found.trip == Trip("here", "there") and plain(found) == {"trip": {"from": "here", "to": "there"}}
    for content, words in (
        ({"to": "there"}, "x: key 'trip.from' is missing; expected text"),
        ({"start": "here"}, r"x: unknown key 'trip.start'; did you mean 'trip.from'\?"),
        ({"from": "here", "start": "nowhere"}, r"x: unknown key 'trip.start'; did you mean 'trip.from'\?"),
        ({"from": 3}, "x: 'trip.from' expects text, found 3"),
        ({"zzz": 3}, "x: unknown key 'trip.zzz'; known keys: from, to"),
    ):
        with pytest.raises(MaskweaveError, match=words):
            build(Plan, {"trip": content}, "x")
    with pytest.raises(MaskweaveError, match=r"key 'trip' is missing; expected keys and values \(from, to\)"):
        build(Plan, {}, "x")


def test_a_key_of_another_variant_names_the_key_that_chooses_it():
    @dataclass(frozen=True)
    class Shape:
        tag: ClassVar[str] = "form"
        name: str = "x"

        @staticmethod
        def variants():
            return [Round, Square]

        @staticmethod
        def variant(content):
            return Round if content.get("form") == "round" else Square

    @dataclass(frozen=True)
    class Round(Shape):
        form: ClassVar[str] = "round"
        radius: float = 1.0

    @dataclass(frozen=True)
    class Square(Shape):
        form: ClassVar[str] = "square"
        side: float = 1.0

    with pytest.raises(MaskweaveError, match="unknown key 'radius'; it is only valid if form is 'round'"):
        build(Shape, {"form": "square", "radius": 2.0}, "here")


@pytest.mark.parametrize("words", [["a"], ["a=1", "a=2"], ["a="]])
def test_words_that_are_no_pairs(words):
    with pytest.raises(MaskweaveError, match=f"--input '{words[-1]}': expected NAME=FILE, each name once"):
        pairs("input", words, "FILE", empty=False)
    assert pairs("input", ["a=", "b=1=2"]) == {"a": "", "b": "1=2"}


@dataclass(frozen=True)
class Typed:
    """A field of each kind of type that settings have."""

    whole: int = 0
    number: float = 0.0
    flag: bool = False
    text: str = ""
    choice: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (0, 0)
    row: tuple[float, ...] = ()
    inner: Inner = field(default_factory=Inner)
    rows: tuple[Inner, ...] = ()
    maybe: int | None = None
    whole_or_word: int | Literal["auto"] = 1

    def __post_init__(self) -> None:
        check_types(self)


WRONG: dict[str, list[object]] = {
    "whole": [1.0, True, "1", None, [1]],
    "number": [True, "1", None, 1j],
    "flag": [0, 1, "true", None],
    "text": [1, None, b"a"],
    "choice": ["c", "", None, 1],
    "pair": [(), (1,), (1, 2, 3), (1, 2.0), (True, 1), 1, "12", None],
    "row": [("a",), (1, True), 1, "12", None],
    "inner": [{"size": (1, 2)}, None, (1, 2)],
    "rows": [(Inner(), 1), Inner(), None],
    "maybe": [1.5, True, "1"],
    "whole_or_word": ["Auto", 1.5, True, None],
}


@pytest.mark.parametrize("name", WRONG)
def test_fields_of_another_type_are_refused(name):
    for wrong in WRONG[name]:
        with pytest.raises(MaskweaveError, match=f"{name}.* is .*; expected"):
            Typed(**{name: wrong})


def test_fields_of_the_declared_type_are_taken():
    made = Typed(
        np.int64(3),
        np.float32(0.5),
        True,
        "x",
        "b",
        [1, np.int8(2)],
        [1, 2.5, 3],
        Inner((3, 4)),
        [Inner()],
        np.int64(5),
        "auto",
    )
    assert made == Typed(3, 0.5, True, "x", "b", (1, 2), (1, 2.5, 3), Inner((3, 4)), (Inner(),), 5, "auto")
    assert [type(n) for n in (made.whole, made.number, *made.pair, *made.row, made.maybe)] == [
        int,
        float,
        int,
        int,
        int,
        float,
        int,
        int,
    ]
    assert Typed(maybe=None, row=(), rows=()).row == ()
