"""Typed dataclasses out of plain mappings."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from maskweave.config import build, check_types, names, pairs, plain, plain_changes, renamed_key, whole_number
from maskweave.errors import MaskweaveError
from maskweave.families.base import ModelSettings


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
    single: tuple[int] = (0,)
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
    "single": [(), (1, 2), ("a",), 1],
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
        [np.int64(4)],
        [1, 2.5, 3],
        Inner((3, 4)),
        [Inner()],
        np.int64(5),
        "auto",
    )
    assert made == Typed(3, 0.5, True, "x", "b", (1, 2), (4,), (1, 2.5, 3), Inner((3, 4)), (Inner(),), 5, "auto")
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


@dataclass(frozen=True)
class Sizes:
    """Types that a setting may have beside those above."""

    one_or_list: ClassVar[tuple[str, ...]] = ("row",)
    single: tuple[int] = (0,)
    row: list[int] = field(default_factory=list)
    either: int | str = 0
    number: float = 0.0
    nested: dict[str, list[float]] = field(default_factory=dict)
    inner: Inner | None = None
    anything: Any = None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"single": [3]}, Sizes(single=(3,))),
        ({"row": 3}, Sizes(row=[3])),
        ({"row": [3, 4]}, Sizes(row=[3, 4])),
        ({"row": (3, 4)}, Sizes(row=[3, 4])),
        ({"either": "x"}, Sizes(either="x")),
        ({"either": 5}, Sizes(either=5)),
        ({"either": 2**256 - 1}, Sizes(either=2**256 - 1)),
        ({"number": 2**1000}, Sizes(number=2.0**1000)),
        ({"number": " -1e3 "}, Sizes(number=-1000.0)),
        ({"nested": {"a": [1, "2"], 3: []}}, Sizes(nested={"a": [1.0, 2.0], "3": []})),
        ({"inner": {"mode": "b"}}, Sizes(inner=Inner(mode="b"))),
        ({"inner": None}, Sizes()),
        ({"anything": {"a": (1, None)}}, Sizes(anything={"a": (1, None)})),
    ],
)
def test_other_types(content, expected):
    found = build(Sizes, content, "here")
    assert found == expected and type(found.number) is float


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"single": []}, r"'single' expects \[a whole number\], found \[\]"),
        ({"single": [1, 2]}, r"'single' expects \[a whole number\], found \[1, 2\]"),
        ({"single": "1"}, r"'single' expects \[a whole number\], found '1'"),
        ({"row": ["a"]}, "'row.0' expects a whole number, found 'a'"),
        ({"row": "a"}, "'row.0' expects a whole number, found 'a'"),
        ({"row": [1, True]}, "'row.1' expects a whole number, found True"),
        ({"either": 1.5}, "'either' expects a whole number or text, found 1.5"),
        ({"either": None}, "'either' expects a whole number or text, found None"),
        ({"either": 2**256}, "'either' expects a whole number of at most 256 bits, found 1157920892"),
        ({"number": 10**400}, "'number' expects a number, found a whole number of 1329 bits"),
        ({"number": None}, "'number' expects a number, found None"),
        ({"nested": [1]}, "'nested' expects a mapping from names to a list, each a number, found"),
        ({"nested": {"a": 1}}, "'nested.a' expects a list, each a number, found 1"),
        ({"nested": {"a": [None]}}, "'nested.a.0' expects a number, found None"),
        ({"inner": 3}, "'inner': expected keys and values, found 3"),
        ({"inner": {"mode": 1}}, "'inner.mode' expects one of a, b, found 1"),
        ({1: 2}, "unknown key '1'; known keys: single, row"),
    ],
)
def test_other_types_that_do_not_fit(content, message):
    with pytest.raises(MaskweaveError, match=rf"^here: {message}"):
        build(Sizes, content, "here")


@dataclass(frozen=True)
class Shape:
    tag: ClassVar[str] = "form"
    name: str = "x"

    @staticmethod
    def variants():
        return [Round, Square]

    @staticmethod
    def variant(content):
        if content.get("form") not in ("round", "square"):
            raise MaskweaveError(f"form is {content.get('form')}; expected round or square")
        return Round if content["form"] == "round" else Square


@dataclass(frozen=True)
class Round(Shape):
    form: ClassVar[str] = "round"
    renamed: ClassVar[dict[str, str]] = {"size": "radius", "long.name": "name"}
    radius: float = 1.0


@dataclass(frozen=True)
class Square(Shape):
    form: ClassVar[str] = "square"
    aliases: ClassVar[dict[str, str]] = {"edge": "side"}
    side: float = 1.0
    corners: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.side < 0:
            raise MaskweaveError(f"edge is {self.side}; expected 0 or more")


@dataclass(frozen=True)
class Drawing:
    shape: Shape | str
    more: tuple[Shape, ...] = ()


def test_a_key_chooses_the_variant_and_is_written_first():
    drawing = build(Drawing, {"shape": {"form": "square", "edge": 2}, "more": [{"form": "round"}]}, "here")
    assert drawing == Drawing(Square(side=2.0), (Round(),))
    written = plain(drawing)
    assert written == {
        "shape": {"form": "square", "name": "x", "edge": 2.0, "corners": {"size": [1, 2], "mode": "a"}},
        "more": [{"form": "round", "name": "x", "radius": 1.0}],
    }
    assert [*written["shape"]] == ["form", "name", "edge", "corners"] and build(Drawing, written, "here") == drawing
    assert build(Drawing, {"shape": "circle"}, "here").shape == "circle"
    assert plain(Drawing) is Drawing, "a class is no value"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"form": "flat"}, "'shape': form is flat; expected round or square"),
        ({"form": "round", "side": 2}, "unknown key 'shape.side'; it is only valid if shape.form is 'square'"),
        ({"form": "round", "edge": 2}, "unknown key 'shape.edge'; it is only valid if shape.form is 'square'"),
        ({"form": "round", "size": 2}, "the key 'shape.size' is now 'shape.radius'; rename it"),
        ({"form": "square", "edge": -1}, "'shape': edge is -1.0; expected 0 or more"),
        ({"form": "square", "edge": "a"}, "'shape.edge' expects a number, found 'a'"),
        (3, r"'shape' expects keys and values \(name\) or text, found 3"),
    ],
)
def test_variants_that_do_not_fit(content, message):
    with pytest.raises(MaskweaveError, match=rf"^here: {message}"):
        build(Drawing, {"shape": content}, "here")


def test_renamed_keys_of_variants():
    assert [renamed_key(Shape, key) for key in ("size", "long.name", "long.name.x", "long", "name", "longer.name")] == [
        "radius", "name", "name.x", None, None, None,
    ]  # fmt: skip


def test_settings_that_differ_from_their_defaults():
    assert plain_changes(Outer(0.5)) == {"rate": 0.5}
    assert plain_changes(Outer(0.5, Inner(mode="b"), {"x": Inner((3, 4))}, flag=True)) == {
        "rate": 0.5, "inner": {"mode": "b"}, "many": {"x": {"size": [3, 4], "mode": "a"}}, "flag": True,
    }  # fmt: skip
    assert plain_changes(Round(radius=1.0)) == {"form": "round"}
    assert plain_changes(Square(side=3.0)) == {"form": "square", "side": 3.0}
    assert plain_changes((1, [2])) == [1, [2]] and plain_changes(Outer) is Outer


@dataclass(frozen=True)
class Short:
    size: tuple[int, int] = (1, 1)

    @classmethod
    def expand(cls, content, where, key):
        if isinstance(content.get("size"), int):
            return {**content, "size": [content["size"]] * 2}
        if content.get("size") == "none":
            raise MaskweaveError(f"{where}: {key}.size is none")
        return content


def test_short_forms_are_written_in_full():
    @dataclass(frozen=True)
    class Page:
        part: Short

    assert build(Short, {"size": 3}, "here") == Short((3, 3))
    with pytest.raises(MaskweaveError, match=r"^here: part.size is none$"):
        build(Page, {"part": {"size": "none"}}, "here")


@pytest.mark.parametrize("given", [0, 5, np.int64(7)])
def test_whole_numbers(given):
    assert whole_number("n", given) == given and type(whole_number("n", given)) is int


def test_whole_numbers_in_a_range():
    assert [whole_number("n", n, least=-1, most=3) for n in (-1, 3)] == [-1, 3]
    for n, message in ((-2, "n is -2; expected a whole number of -1 or more"), (4, "n is 4; expected at most 3")):
        with pytest.raises(MaskweaveError, match=f"^{message}$"):
            whole_number("n", n, least=-1, most=3)
    for wrong in (-1, True, 1.0, "1", None):
        with pytest.raises(MaskweaveError, match="expected a whole number of 0 or more"):
            whole_number("n", wrong)


def test_names_are_split_at_commas():
    assert names("inputs", None) == names("inputs", []) == []
    assert names("inputs", "a, b") == names("inputs", ["a", "b"]) == names("inputs", ["a,b"]) == ["a", "b"]
    for wrong, shown in (("", "''"), ("a,", "'a,'"), (["a", ""], "'a,'")):
        with pytest.raises(MaskweaveError, match=f"^--inputs {shown}: expected names separated by commas$"):
            names("inputs", wrong)


def test_pairs_of_names_and_values():
    assert pairs("input", None) == pairs("input", []) == {}
    assert pairs("input", ["a=1", "b="]) == {"a": "1", "b": ""}
    with pytest.raises(MaskweaveError, match="^--input 'a=2': expected NAME=VALUE, each name once$"):
        pairs("input", ["a=1", "a=2"])


def test_types_in_words():
    @dataclass(frozen=True)
    class Needs:
        row: tuple[float, ...]
        other: Literal["a", 1]

    with pytest.raises(MaskweaveError, match="key 'row' is missing; expected a list, each a number"):
        build(Needs, {}, "here")
    with pytest.raises(MaskweaveError, match="key 'other' is missing; expected one of a, 1"):
        build(Needs, {"row": []}, "here")
    assert build(Needs, {"row": [1], "other": 1}, "here") == Needs((1.0,), 1)


def test_settings_of_another_family_are_named():
    """Variants that a field chooses, instead of a tag."""
    with pytest.raises(MaskweaveError, match=r"unknown key 'model\.group_size'; it is only valid if model\.family is 'contrastive'"):  # fmt: skip
        build(ModelSettings, {"family": "m3ae", "group_size": 4}, "here", "model")
