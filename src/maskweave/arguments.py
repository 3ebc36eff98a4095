"""Checks the arguments of public functions by their type hints, so that a wrong one gives one clear error before any work."""

import collections.abc
import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from maskweave.errors import MaskweaveError, shown

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[str, Any], Any]

MAX_PATH, MAX_NAME = 4095, 255
"""Bytes of a path, without the one that ends it, and of each name in it, on Linux."""
LISTS = (collections.abc.Sequence, collections.abc.Iterable, list)


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator that checks arguments whose hints are paths, numbers, texts, choices, and lists and mappings of texts. Others are passed on as they are.

    Numbers of other libraries become Python's, and paths become what the hint says: `Path`, or text.

    Raises:
        MaskweaveError: (in the decorated function) an argument has another type, or a text is no possible path. The message names the argument.
    """
    signature = inspect.signature(function)
    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    checks = {p.name: check for p in named if (check := _check_of(p.annotation)) is not None}

    @functools.wraps(function)
    def call(*positional: P.args, **by_name: P.kwargs) -> R:
        given = signature.bind(*positional, **by_name)
        for name in checks.keys() & given.arguments.keys():
            given.arguments[name] = checks[name](name, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return call


def check_path(name: str, value: Any) -> Any:
    """Returns a path, text or path-like, as it is.

    Raises:
        MaskweaveError: it is something else, or no file can have this path.
    """
    fault = ""
    try:
        text = os.fspath(value)
        content = os.fsencode(text)
    except TypeError:
        fault = "expected a path"
    except UnicodeEncodeError:
        fault = "its characters cannot be those of a path"
    else:
        if not isinstance(text, str):
            fault = "expected a path as text"
        elif b"\0" in content:
            fault = "a path cannot have a NUL character"
        elif len(content) > MAX_PATH or any(len(part) > MAX_NAME for part in content.split(b"/")):
            fault = f"expected at most {MAX_PATH:,} bytes, and {MAX_NAME} in each name; check the path"
    if fault:
        raise MaskweaveError(f"{name} is {shown(str(value) if isinstance(value, Path) else value)}; {fault}")
    return value


def _as_path(name: str, value: Any) -> Path:
    return Path(check_path(name, value))


def _text(name: str, value: Any) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(check_path(name, value)))
    if not isinstance(value, str):
        raise MaskweaveError(f"{name} is {shown(value)}; expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MaskweaveError(f"{name} is {shown(value)}; expected text, but no file can hold its characters") from error
    return value


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise MaskweaveError(f"{name} is {shown(value)}; expected a whole number")
    return int(value)


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise MaskweaveError(f"{name} is {shown(value)}; expected a number")
    return value if type(value) in (int, float) else float(value)


def _flag(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise MaskweaveError(f"{name} is {shown(value)}; expected True or False")
    return value


def _choice(options: tuple[Any, ...], name: str, value: Any) -> Any:
    if not isinstance(value, (str, bool)) or value not in options:
        raise MaskweaveError(f"{name} is {shown(value)}; expected one of {', '.join(map(str, options))}")
    return value


def _texts(name: str, value: Any) -> Any:
    found = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [None]
    if not all(isinstance(item, str) for item in found):
        raise MaskweaveError(f"{name} is {shown(value)}; expected a list of names")
    return found


def _mapping(items: type | None, name: str, value: Any) -> Any:
    keys = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if not keys or (items is not None and not all(isinstance(item, items) for item in value.values())):
        raise MaskweaveError(
            f"{name} is {shown(value)}; expected a mapping from names to {'texts' if items is str else 'values'}"
        )
    return value


def _optional(check: Check, others: tuple[type, ...], name: str, value: Any) -> Any:
    return value if isinstance(value, others) else check(name, value)


def _check_of(hint: Any) -> Check | None:
    """Returns the check of a type hint; None if there is none."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [part for part in parts if part not in (str, os.PathLike[str])]
        is_path = len(parts) - len(rest) == 2
        if is_path and all(isinstance(part, type) for part in rest):
            return functools.partial(_optional, check_path, tuple(rest))
        others = [part for part in parts if part is not type(None)]
        inner = _check_of(others[0]) if len(others) == 1 else None
        return functools.partial(_optional, inner, (type(None),)) if inner is not None else None
    if origin is typing.Literal:
        return functools.partial(_choice, parts)
    if origin in LISTS and parts == (str,):
        return _texts
    if origin in (collections.abc.Mapping, dict) and parts[0] is str:
        return functools.partial(_mapping, str if parts[1] is str else None)
    plain: dict[Any, Check] = {Path: _as_path, str: _text, int: _whole, float: _number, bool: _flag}
    try:
        return plain.get(hint)
    except TypeError:  # not hashable
        return None
