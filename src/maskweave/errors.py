"""Errors that a user can fix. Each message says what was found, what was expected and what to do."""

import dataclasses
import itertools
import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

MAX_ITEMS, MAX_LEVELS = 6, 3
"""Items of each container, and levels of nesting, that `shown` prints."""


class MaskweaveError(ValueError):
    """Bad input, in one clear message; the command line prints it without a traceback."""


class BadSample(MaskweaveError):
    """One sample that cannot be used. Long jobs skip and count these, and stop when there are too many."""


class LackingSample(BadSample):
    """A sample without a modality that a job needs. It is skipped and told, but it is no fault."""


class FullDisk(MaskweaveError):
    """The disk filled up while writing; nothing half-written remains."""


def died(process: str, code: int) -> MaskweaveError:
    """Returns the error for a process that ended before its work was done; a negative exit code is that of a signal."""
    memory = "if memory ran out, use fewer processes or smaller batches; " if code == -9 else ""
    return MaskweaveError(f"{process} died (exit code {code}); {memory}run the same command again to resume")


LONGEST_REASON = 300
"""Characters of another library's message that are repeated."""


def reason(error: BaseException | None) -> str:
    """Returns the message of another library's error in one line."""
    return _one_line(error) or type(error).__name__


def said(error: Exception) -> str:
    """Returns an error of the user's code in one line."""
    return f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON]


def shown_command(*words: object) -> str:
    """Returns a `maskweave` command to copy into a shell, for a message."""
    return shlex.join(["maskweave", *map(str, words)])


def shown(value: Any, limit: int = 80) -> str:
    """Returns a value as text for a message: like `repr`, cut to `limit` characters.

    The full text is never built, because a few lines of YAML with aliases can expand to gigabytes.
    """
    text = _shown(value, limit, MAX_LEVELS)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _shown(value: Any, limit: int, levels: int) -> str:
    if isinstance(value, (str, bytes, bytearray)):
        return repr(value[:limit])  # with its quotes longer than the limit, so `shown` cuts it
    if isinstance(value, int) and value.bit_length() > 4 * limit:
        return f"a whole number of {value.bit_length()} bits"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    parts: Iterable[str]
    inner = partial(_shown, limit=limit, levels=levels - 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        start, end, length = f"{type(value).__name__}(", ")", len(names)
        parts = (f"{name}={inner(getattr(value, name))}" for name in names)
    elif isinstance(value, Mapping):
        start, end, length = "{", "}", len(value)
        parts = (f"{inner(key)}: {inner(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple, set)):
        start, end = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
        length, parts = len(value), map(inner, value)
    else:
        return repr(value)
    if levels == 0:
        return f"{start}…{end}"
    texts = [*itertools.islice(parts, MAX_ITEMS), *["…"] * (length > MAX_ITEMS)]
    return start + ", ".join(texts) + "," * (start == "(" and length == 1) + end
