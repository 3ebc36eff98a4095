"""YAML with a comment behind each line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import yaml

WIDTH = 120
"""Longest line with its comment; longer comments stand above the line."""
COLUMN = 44
"""Column of the comments, if the line is not longer."""


@dataclass
class Line:
    """A key with a value, or with lines below it."""

    key: str
    value: Any = None
    comment: str = ""
    below: Sequence[Union["Line", str]] = field(default_factory=list)
    """Lines of this group; a text is a comment of its own."""


def commented(lines: Sequence[Line | str], indent: int = 0) -> str:
    """Returns the lines as YAML; texts become lines of comments, and empty texts empty lines."""
    return "".join(f"{line}\n" for line in _lines(lines, indent))


def flow(value: Any) -> str:
    """Returns a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def _lines(lines: Sequence[Line | str], indent: int) -> Iterator[str]:
    pad = " " * indent
    for line in lines:
        if isinstance(line, str):
            yield f"{pad}# {line}" if line else ""
            continue
        text = f"{pad}{line.key if line.key == '-' else flow(line.key) + ':'}" + (
            "" if line.below else f" {flow(line.value)}"
        )
        comment = " ".join(line.comment.split())
        if comment and max(len(text), COLUMN) + len(comment) + 4 > WIDTH:
            yield f"{pad}# {comment}"
            comment = ""
        yield f"{text:<{COLUMN}}  # {comment}" if comment else text
        yield from _lines(line.below, indent + 2)
