"""Typed dataclasses out of plain mappings: the one way in which recipes and catalog entries are validated.

Errors name the file, the key, what was found and what was expected. Types understood: bool, int, float, str, Literal,
tuples, lists, dicts with string keys, optional types, and dataclasses of these.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from maskweave.errors import MaskweaveError, shown

T = TypeVar("T")


def build(cls: type[T], content: Any, where: str, key: str = "") -> T:
    """Build dataclass `cls` from `content`, checking every key and type.

    Raises:
        MaskweaveError: naming `where`, the dotted key, what was found and what was expected.
    """
    if not isinstance(content, Mapping):
        raise MaskweaveError(f"{where}: {_named(key)}expected keys and values, found {shown(content)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in content:
        if name not in fields:
            near = difflib.get_close_matches(str(name)[:80], fields, n=1)
            hint = f"did you mean {_join(key, near[0])!r}?" if near else f"known keys: {', '.join(fields)}"
            raise MaskweaveError(f"{where}: unknown key {shown(_join(key, name))}; {hint}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in content:
            raise MaskweaveError(f"{where}: key {_join(key, name)!r} is missing; expected {_describe(hints[name])}")
    values = {name: _convert(hints[name], item, where, _join(key, name)) for name, item in content.items()}
    try:
        return cls(**values)
    except MaskweaveError as error:  # a dataclass that checks itself names only the fault
        raise MaskweaveError(f"{where}: {_named(key)}{error}") from error


def plain(value: Any) -> Any:
    """The reverse of `build`: dataclasses and tuples as YAML-ready mappings and lists, defaults included."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """`value` as type `hint`, or the error that says why not."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)

    def wrong() -> MaskweaveError:
        return MaskweaveError(f"{where}: {shown(key)} expects {_describe(hint)}, found {shown(value)}")

    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, key)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where, key)
    if origin is typing.Literal:
        if value not in args:
            raise wrong()
        return value
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise wrong()
        fixed = origin is tuple and args[-1] is not Ellipsis
        if fixed and len(value) != len(args):
            raise wrong()
        items = [_convert(args[i] if fixed else args[0], item, where, f"{key}.{i}") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong()
        return {str(name): _convert(args[1], item, where, _join(key, name)) for name, item in value.items()}
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            raise wrong() from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise wrong() from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise wrong()
    return value


def _describe(hint: Any) -> str:
    """A type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return f"keys and values ({', '.join(f.name for f in dataclasses.fields(hint))})"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else _describe(a) for a in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple and args[-1] is not Ellipsis:
        return "[" + ", ".join(_describe(a) for a in args) + "]"
    if origin in (tuple, list):
        return f"a list, each {_describe(args[0])}"
    if origin is dict:
        return f"a mapping of names, each to {_describe(args[1])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(hint, str(hint))


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _named(key: str) -> str:
    return f"{shown(key)}: " if key else ""


def names(option: str, words: str | Sequence[str] | None) -> list[str]:
    """The names in an option's words, in which they are separated by commas.

    Raises:
        MaskweaveError: nothing stands between two commas.
    """
    words = [words] if isinstance(words, str) else words or []
    found = [name.strip() for word in words for name in word.split(",")]
    if "" in found:
        raise MaskweaveError(f"--{option} {shown(','.join(words))}: expected names with commas between them")
    return found


def pairs(option: str, words: Sequence[str] | None, value: str = "VALUE", empty: bool = True) -> dict[str, str]:
    """A repeated option's NAME=VALUE words, by name.

    Args:
        value: what stands after the =, for messages.
        empty: whether nothing may stand there.

    Raises:
        MaskweaveError: a word of another form, or a name twice.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, given = word.partition("=")
        if not equals or name in found or not (given or empty):
            raise MaskweaveError(f"--{option} {shown(word)}: expected NAME={value}, each name once")
        found[name] = given
    return found
