"""Fenced blocks of the README and the pages of docs, and the commands in them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def blocks(*languages: str, pages: Sequence[Path] = PAGES, alone: bool = True) -> list[tuple[str, str]]:
    """Fenced blocks of these languages, with where they stand. After `<!-- not run: why -->` one is for reading only; without `alone`, those after
    `<!-- not run alone: why -->`."""
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            marked = re.search(r"<!-- (not run|not run alone): .+ -->\n+\Z", text[: match.start()])
            if match[1] in languages and (marked[1] if marked else "") == ("" if alone else "not run alone"):
                line = text.count("\n", 0, match.start()) + 1
                found += [(f"{page.name}:{line}", match[2])]
    return found


def commands(block: str) -> Iterator[list[str]]:
    """The words of every command, comments and prompts left out, lines that end in a backslash joined."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words:
            yield words
