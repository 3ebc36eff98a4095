"""Texts are read and written as UTF-8. Without an encoding, Windows takes that of the country, and other letters than those of ASCII get lost.

`python tests/test_encodings.py` adds `encoding="utf-8"` where it is missing. (ruff's PLW1514 finds it only where it can tell that something is a `Path`.)
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from token import ENDMARKER, NEWLINE

import pytest
from test_rules import ROOT, tracked

SPACE = (tokenize.COMMENT, tokenize.NL, NEWLINE, ENDMARKER)


def without_encoding(code: bytes) -> Iterator[ast.Call]:
    """Calls that read or write text in the encoding of the machine."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in node.keywords):
            continue
        words = [
            getattr(word, "value", None) for word in [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
        ]
        match node.func:
            case ast.Attribute(attr="read_text") if not words:
                yield node
            case ast.Attribute(attr="write_text") if len(words) == 1:
                yield node
            case ast.Attribute(attr="open") if words and re.fullmatch(r"[rwax]t?\+?", str(words[0])):
                yield node
            case ast.Name(id="open") if len(words) == 1 or re.fullmatch(r"[rwax]t?\+?", str(words[1])):
                yield node


def with_encoding(code: bytes) -> bytes:
    """Returns the code with the encoding in all these calls."""
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in sorted(without_encoding(code), key=lambda node: (node.end_lineno, node.end_col_offset), reverse=True):
        assert node.end_lineno and node.end_col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset - 1  # of the parenthesis
        call = code[starts[node.lineno - 1] + node.col_offset : end + 1]
        found = [one.string for one in tokenize.tokenize(io.BytesIO(call).readline) if one.type not in SPACE]
        code = code[:end] + (b"" if found[-2] in ("(", ",") else b", ") + b'encoding="utf-8"' + code[end:]
    return code


def sources() -> list[str]:
    """All Python files but the notebooks, which are for reading and write only ASCII."""
    return [name for name in tracked() if name.endswith(".py") and not name.startswith("docs/notebooks/")]


@pytest.mark.parametrize("room", ["src", "tests", "docs", "benchmarks", "examples"])
def test_texts_have_an_encoding(room: str) -> None:
    names = [name for name in sources() if name.startswith(f"{room}/")]
    found = [f"{name}:{node.lineno}" for name in names for node in without_encoding((ROOT / name).read_bytes())]
    assert names and found == [], "python tests/test_encodings.py, then make format"


def test_notebooks_write_only_ascii() -> None:
    for path in (ROOT / "docs/notebooks").glob("*.py"):
        for node in without_encoding(path.read_bytes()):
            assert ast.unparse(node).isascii(), f"{path.name}:{node.lineno}"


def test_what_is_found_and_how_it_is_mended() -> None:
    code = 'p.read_text()\np.write_text(\n  "ä",  # a word\n)\nopen(p, "w", newline="")\np.open("a")\nopen(p)\n'
    fine = 'p.read_text("utf-8")\np.write_text(x, **y)\nopen(p, "rb")\nopen(p, mode="w", encoding="ascii")\nImage.open(p)\ntar.open(p, "w")\n'
    assert [node.lineno for node in without_encoding((fine + code).encode())] == [7, 8, 11, 12, 13]
    mended = with_encoding(code.encode())
    assert [*without_encoding(mended)] == [] and mended.count(b'encoding="utf-8"') == 5


if __name__ == "__main__":
    for name in sources():
        if [*without_encoding(old := (ROOT / name).read_bytes())]:
            (ROOT / name).write_bytes(with_encoding(old))
