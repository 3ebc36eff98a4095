"""Build typed dataclasses from plain mappings. Recipes and catalog entries are validated only here.

Errors give the file, the key, what was found and what was expected. Supported types: bool, int, float, str, Literal,
tuples, lists, dicts with string keys, optional types, unions (the first type that fits), and dataclasses of these.

A dataclass may define these members:

- `renamed: ClassVar[dict[str, str]]`, old key to new key, both relative to the dataclass, dotted for keys of nested dataclasses
  (`{"drawing": "model.masking"}`). An old key raises an error that gives the new one.
- `variant(content) -> type`, a classmethod that returns the dataclass to build instead, chosen by the content; and
  `variants() -> list[type]`, all dataclasses that it may return.
- `tag: ClassVar[str]`, a key that only chooses the variant and is a class attribute instead of a field.
- `aliases: ClassVar[dict[str, str]]`, key to field, for fields whose key has another name.
- `one_or_list: ClassVar[tuple[str, ...]]`, keys of lists that may be written as one item.
- `expand(content, where, key) -> content`, a classmethod that writes short forms of keys in full before they are checked.
"""

import contextlib
import dataclasses
import difflib
import functools
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from maskweave.errors import MaskweaveError, shown
from maskweave.limits import check_most

T = TypeVar("T")

MAX_BITS = 256
"""Longest whole number."""


class _WrongType(MaskweaveError):
    """A value has another type than its key; a union tries its next type."""


def build(cls: type[T], content: Any, where: str, key: str = "") -> T:
    """Build dataclass `cls` from `content`, checking every key and type.

    Raises:
        MaskweaveError: gives `where`, the dotted key, what was found and what was expected.
    """
    if not isinstance(content, Mapping):
        raise _WrongType(f"{where}: {_named(key)}expected keys and values, found {shown(content)}")
    requested, variant = cls, getattr(cls, "variant", None)
    if variant is not None:
        try:
            cls = variant(content)
        except MaskweaveError as error:
            raise MaskweaveError(f"{where}: {_named(key)}{error}") from error
    tag, aliases = getattr(cls, "tag", ""), getattr(cls, "aliases", {})
    content = {name: item for name, item in content.items() if not tag or name != tag}
    if (expand := getattr(cls, "expand", None)) is not None:
        content = expand(content, where, key)
    hints = _hints(typing.cast(Any, cls))
    key_of = {field: alias for alias, field in aliases.items()}
    fields = {key_of.get(f.name, f.name): f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in content:
        if name not in fields:
            new = getattr(cls, "renamed", {}).get(name)
            if new is not None:
                raise MaskweaveError(
                    f"{where}: the key {shown(_join(key, name))} is now {shown(_join(key, new))}; rename it"
                )
            if others := _owners(requested, name):
                raise MaskweaveError(
                    f"{where}: unknown key {shown(_join(key, name))}; it is only valid if {_join(key, others)}"
                )
            near = [key_of[name]] if name in key_of else difflib.get_close_matches(str(name)[:80], fields)
            hint = f"did you mean {shown(_join(key, near[0]))}?" if near else f"known keys: {', '.join(fields)}"
            raise MaskweaveError(f"{where}: unknown key {shown(_join(key, name))}; {hint}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in content:
            raise MaskweaveError(
                f"{where}: key {shown(_join(key, name))} is missing; expected {_describe(hints[f.name])}"
            )
    values, listed = {}, getattr(cls, "one_or_list", ())
    for name, item in content.items():
        field = fields[name].name
        if field in listed and not isinstance(item, (list, tuple)):
            item = [item]
        values[field] = _convert(hints[field], item, where, _join(key, name))
    try:
        return cls(**values)
    except MaskweaveError as error:  # a dataclass's own check knows neither the file nor the key
        raise MaskweaveError(f"{where}: {_named(key)}{error}") from error


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_types(value: Any) -> None:
    """Checks the fields of a dataclass that Python code made, for `__post_init__`. Numbers of other libraries become Python's, and lists tuples.

    Raises:
        MaskweaveError: a field has another type than declared.
    """
    cls: Any = type(value)
    hints = _hints(cls)
    for f in dataclasses.fields(value):
        found = getattr(value, f.name)
        object.__setattr__(value, f.name, _typed(hints[f.name], found, f.name))


def _typed(hint: Any, value: Any, key: str) -> Any:
    """Returns `value` if it has type `hint`; unlike `_convert`, text is no number and mappings are no dataclasses."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for choice in args:
            with contextlib.suppress(MaskweaveError):
                return _typed(choice, value, key)
    elif origin is typing.Literal:
        if isinstance(value, str) and value in args:
            return value
    elif origin is tuple and isinstance(value, (tuple, list)):
        inner = (args[0],) * len(value) if args[-1] is Ellipsis else args
        if len(inner) == len(value):
            return tuple(
                _typed(one, item, f"{key}.{i}") for i, (one, item) in enumerate(zip(inner, value, strict=True))
            )
    elif hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    elif hint is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return value if type(value) in (int, float) else float(value)
    elif isinstance(hint, type) and hint not in (int, float) and isinstance(value, hint):
        return value
    raise MaskweaveError(f"{key} is {shown(value)}; expected {_describe(hint)}")


def whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Returns an argument of a Python function that must be a whole number, as a Python int.

    Raises:
        MaskweaveError: it has another type, or is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise MaskweaveError(f"{name} is {shown(value)}; expected a whole number of {least} or more")
    if most is not None:
        check_most(name, int(value), most, fixed=True)
    return int(value)


def plain(value: Any) -> Any:
    """The reverse of `build`: dataclasses and tuples as YAML-ready mappings and lists, defaults included."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = {field: name for name, field in getattr(value, "aliases", {}).items()}
        tag = getattr(value, "tag", "")
        content = {names.get(f.name, f.name): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {tag: getattr(value, tag), **content} if tag else content
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def plain_changes(value: Any) -> Any:
    """Same as `plain`, but without the settings that have their default."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return plain(value)
    tag = getattr(value, "tag", "")
    content = {tag: getattr(value, tag)} if tag else {}
    for f in dataclasses.fields(value):
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if (item := getattr(value, f.name)) != default:
            content[f.name] = plain_changes(item)
    return content


def _owners(cls: Any, name: Any) -> str:
    """Returns which variants of a dataclass have a field of that name, `family is 'm3ae'` for instance; empty if none does."""
    variants: list[Any] = getattr(cls, "variants", list)()
    owners = [v for v in variants if name in {*getattr(v, "aliases", {}), *(f.name for f in dataclasses.fields(v))}]
    chosen_by = getattr(cls, "tag", "") or (dataclasses.fields(cls)[0].name if variants else "")
    choices = [getattr(v, chosen_by) for v in owners]  # a class attribute, or the field's default
    return f"{chosen_by} is {' or '.join(map(repr, choices))}" if choices else ""


def renamed_key(cls: Any, dotted: str) -> str | None:
    """Returns the current name of a dotted key of a dataclass, or None if no part of it was renamed."""
    for option in (cls, *(cls.variants() if hasattr(cls, "variants") else ())):
        renamed: dict[str, str] = getattr(option, "renamed", {})
        for old in sorted(renamed, key=len, reverse=True):
            if dotted == old or dotted.startswith(f"{old}."):
                return renamed[old] + dotted[len(old) :]
        first, _, rest = dotted.partition(".")
        if first not in {f.name for f in dataclasses.fields(option)}:
            continue
        hint = _hints(option)[first]
        if typing.get_origin(hint) is dict:  # the first part is a name that the user chose
            hint = typing.get_args(hint)[1]
            name, _, rest = rest.partition(".")
            first = f"{first}.{name}"
        if rest and dataclasses.is_dataclass(hint) and (new := renamed_key(hint, rest)):
            return f"{first}.{new}"
    return None


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """Convert `value` to type `hint`, or raise an error that says why this is not possible."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)

    def wrong() -> MaskweaveError:
        return _WrongType(f"{where}: {shown(key)} expects {_describe(hint)}, found {shown(value)}")

    if hint is Any:  # checked where it is used
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, key)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        choices = [a for a in args if a is not type(None)]
        if isinstance(value, Mapping):  # one that chooses among variants speaks for the others
            choices = [a for a in choices if hasattr(a, "variant")] or choices
        if len(choices) == 1:
            return _convert(choices[0], value, where, key)
        for choice in choices:
            with contextlib.suppress(_WrongType):
                return _convert(choice, value, where, key)
        raise wrong()
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
    if isinstance(value, int) and value.bit_length() > MAX_BITS:  # would fill messages, and overflow as a float
        raise MaskweaveError(
            f"{where}: {shown(key)} expects {_describe(hint)} of at most {MAX_BITS} bits, found {shown(value)}"
        )
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise wrong()
    return value


def _describe(hint: Any) -> str:
    """A type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        keys = {field: key for key, field in getattr(hint, "aliases", {}).items()}
        return f"keys and values ({', '.join(keys.get(f.name, f.name) for f in dataclasses.fields(hint))})"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else _describe(a) for a in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple and args[-1] is not Ellipsis:
        return "[" + ", ".join(_describe(a) for a in args) + "]"
    if origin in (tuple, list):
        return f"a list, each {_describe(args[0])}"
    if origin is dict:
        return f"a mapping from names to {_describe(args[1])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(hint, str(hint))


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _named(key: str) -> str:
    return f"{shown(key)}: " if key else ""


def names(option: str, words: str | Sequence[str] | None) -> list[str]:
    """Splits the comma-separated words of an option into names.

    Raises:
        MaskweaveError: a name is empty.
    """
    words = [words] if isinstance(words, str) else words or []
    found = [name.strip() for word in words for name in word.split(",")]
    if "" in found:
        raise MaskweaveError(f"--{option} {shown(','.join(words))}: expected names separated by commas")
    return found


def pairs(option: str, words: Sequence[str] | None, value: str = "VALUE", empty: bool = True) -> dict[str, str]:
    """Parses the NAME=VALUE words of a repeated option; returns the values by name.

    Args:
        value: what follows the =, for messages.
        empty: whether VALUE may be empty.

    Raises:
        MaskweaveError: a word has another form, or a name appears twice.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, given = word.partition("=")
        if not equals or name in found or not (given or empty):
            raise MaskweaveError(f"--{option} {shown(word)}: expected NAME={value}, each name once")
        found[name] = given
    return found
