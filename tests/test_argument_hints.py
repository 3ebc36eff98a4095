"""Arguments of public functions: what each type hint takes, what it becomes, and what it refuses."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError


@check_arguments
def taken(
    path: Path = Path(),
    place: str | os.PathLike[str] = "",
    text: str = "",
    whole: int = 0,
    number: float = 0,
    flag: bool = False,
    choice: Literal["a", "b"] = "a",
    mixed: Literal[True, "a"] = True,
    names: Sequence[str] = (),
    some: Iterable[str] | None = None,
    texts: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    maybe: int | None = None,
    place_or_number: str | os.PathLike[str] | int = 0,
    other: int | list[int] = 0,
    **rest: Any,
) -> dict[str, Any]:
    return dict(locals())


LONG, DEEP = "x" * 255, "/".join(["x" * 255] * 16)
RIGHT: dict[str, list[tuple[Any, Any]]] = {
    "path": [
        ("a/b", Path("a/b")),
        (Path("a"), Path("a")),
        (LONG, Path(LONG)),
        (DEEP, Path(DEEP)),
        ("a/" * 2047 + "a", Path("a/" * 2047 + "a")),
    ],
    "place": [("a", "a"), (Path("a"), Path("a")), ("", "")],
    "text": [("a", "a"), ("", ""), (Path("a/b"), "a/b")],
    "whole": [(3, 3), (np.int64(3), 3), (-1, -1), (10**40, 10**40)],
    "number": [(1.5, 1.5), (3, 3), (np.float32(0.5), 0.5), (float("inf"), float("inf"))],
    "flag": [(True, True), (False, False)],
    "choice": [("b", "b")],
    "mixed": [(True, True), ("a", "a")],
    "names": [(["a"], ["a"]), (("a", "b"), ["a", "b"]), ((c for c in "ab"), ["a", "b"]), ({"k": 1}, ["k"]), ([], [])],
    "some": [(None, None), (["a"], ["a"])],
    "texts": [({"a": "b"}, {"a": "b"}), ({}, {}), (None, None)],
    "values": [({"a": 1, "b": [2]}, {"a": 1, "b": [2]}), (None, None)],
    "maybe": [(None, None), (np.uint8(3), 3)],
    "place_or_number": [("a", "a"), (Path("a"), Path("a")), (7, 7)],
    "other": [("anything", "anything"), (None, None)],
    "more": [("anything", "anything")],
}
WRONG: dict[str, tuple[list[Any], str]] = {
    "path": (
        [
            3,
            None,
            b"a",
            "a\0b",
            "\udfff\ud800",
            "x" * 256,
            f"a/{'x' * 256}/b",
            f"{DEEP}/x",
            "a/" * 2047 + "ab",
            "é" * 128,
            ["a"],
        ],
        "",
    ),
    "place": ([3, None, b"a", "a\0b", "x" * 256], ""),
    "text": (["\ud800", 3, None, b"a", ["a"]], "text"),
    "whole": ([1.0, True, "1", None, np.float32(1)], "a whole number"),
    "number": ([True, "1", None, 1j], "a number"),
    "flag": ([0, 1, "true", None], "True or False"),
    "choice": (["c", "", 1, None, ["a"]], "one of a, b"),
    "mixed": ([1, False, "True", None], "one of True, a"),
    "names": (["a", "ab", b"a", 3, None, [1], ["a", 2], [["a"]]], "a list of names"),
    "some": (["ab", 3, [None]], "a list of names"),
    "texts": ([["a"], "a", {"a": 1}, {1: "a"}, {"a": None}], "a mapping from names to texts"),
    "values": ([["a"], "a", {1: "a"}], "a mapping from names to values"),
    "maybe": ([1.5, True, "1"], "a whole number"),
    "place_or_number": ([1.5, None, "a\0b", [3]], ""),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_arguments(name: str) -> None:
    for given, expected in RIGHT[name]:
        found = taken(**{name: given})
        found = found["rest"][name] if name == "more" else found[name]
        assert found == expected and isinstance(found, type(expected))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    wrong, expected = WRONG[name]
    for value in wrong:
        with pytest.raises(MaskweaveError, match=rf"^{name} is .*; .*{expected}"):
            taken(**{name: value})


def test_arguments_by_place_and_defaults() -> None:
    assert taken("a", "b")["path"] == Path("a") and taken()["path"] == Path()
    with pytest.raises(TypeError, match="multiple values"):
        taken("a", path="b")
