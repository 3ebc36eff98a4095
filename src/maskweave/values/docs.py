"""Documentation of value types, generated from their classes: `maskweave values` prints it and `docs/values.md` holds it."""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any

from maskweave.values import formats, value_types
from maskweave.values.base import ValueType

INTRODUCTION = """\
# Value types

The type of a modality's value outside the model: `value: {type: NAME, …}` in an entry. This page is generated from the classes in
`src/maskweave/values/` (`maskweave values > docs/values.md`); a test keeps it current. A type accepts only the fields listed for it. Other
packages add types by an entry point ([how](modalities.md#a-value-type-of-your-own)).

`size` and `*size` are the numbers of points along each axis: `[length]`, `[height, width]` or `[frames, height, width]`.
"""


def page() -> str:
    """Returns all value types as one Markdown page."""
    return "\n".join([INTRODUCTION, *map(section, value_types().values())])


def section(cls: type[ValueType]) -> str:
    """Returns one value type in Markdown: description, fields, files, losses, scores and derivations."""
    example: Any = cls.__new__(cls)  # only class-level facts are read, never the settings
    for field in dataclasses.fields(cls):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        object.__setattr__(example, field.name, (1, 1) if field.name == "size" else default)
    facts = {
        "Kinds of modality": ", ".join(f"`{kind}`" for kind in cls.kinds),
        "In Python": cls.python.replace("*", r"\*"),
        "In files": _files(example.endings),
        "Losses of its tokenizer": ", ".join(f"`{name}`" for name in cls.losses),
        "Scores": ", ".join(
            f"`{name}`{'' if name in cls.default_metrics else ' (if listed in `metrics`)'}"
            for name in example.metrics()
        ),
        "Derived by": ", ".join(f"`{name}`" for name in cls.derivations),
    }
    lines = [f"## {cls.type}", "", _first_paragraph(cls), ""]
    lines += [f"- {name}: {fact}" for name, fact in facts.items() if fact]
    fields = fields_of(cls)
    if fields:
        lines += ["", "| field | type | default | |", "| --- | --- | --- | --- |"]
        lines += [f"| `{name}` | {kind} | {default} | {note} |" for name, kind, default, note in fields]
    nested = {item for f in dataclasses.fields(cls) for item in _dataclasses_in(typing.get_type_hints(cls)[f.name])}
    for item in sorted(nested, key=lambda c: c.__name__):
        lines += ["", f"{_first_paragraph(item)}", "", "| field | type | default | |", "| --- | --- | --- | --- |"]
        lines += [f"| `{name}` | {kind} | {default} | {note} |" for name, kind, default, note in fields_of(item)]
    return "\n".join([*lines, ""])


def fields_of(cls: type) -> list[tuple[str, str, str, str]]:
    """Returns the key, type, default and documentation (the string under the field) of a dataclass's fields."""
    notes: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            notes |= _notes(base)
    hints = typing.get_type_hints(cls)
    keys = {field: key for key, field in getattr(cls, "aliases", {}).items()}
    rows = []
    for field in sorted(dataclasses.fields(cls), key=lambda f: bool(f.kw_only)):  # those of files last
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None if field.default is dataclasses.MISSING else field.default
        shown = (
            "required"
            if required
            else ""
            if default in (None, (), "")
            else f"`{str(default).lower() if isinstance(default, bool) else _yaml(default)}`"
        )
        rows.append(
            (
                keys.get(field.name, field.name),
                _words(hints[field.name]),
                shown,
                " ".join(notes.get(field.name, "").split()),
            )
        )
    return rows


def _notes(cls: type) -> dict[str, str]:
    """Returns the string under each annotated field in a class's source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[statement.target.id] = value.value
    return found


def _files(endings: tuple[str, ...]) -> str:
    """Describes the files that can hold a value; the first ending is the one that is written."""
    names = ", ".join(f"`.{ending}`" for ending in endings if ending not in formats.installed())
    return f"{names} ([files.md](files.md))" if set(endings) & set(formats.ARRAYS) else names


def _first_paragraph(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _dataclasses_in(hint: Any) -> list[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return [hint]
    return [item for argument in typing.get_args(hint) for item in _dataclasses_in(argument)]


def _words(hint: Any) -> str:
    """Describes a type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments if a is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if origin is dict:
        return f"mapping from names to {_words(arguments[1])}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(_words, arguments))}]"
    if origin in (tuple, list):
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        items = typing.get_args(arguments[0]) if isinstance(arguments[0], types.UnionType) else arguments[:1]
        return f"list of {' or '.join(plural.get(item) or _words(item) for item in items)}"
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return "the fields below"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(hint, str(hint))


def _yaml(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
