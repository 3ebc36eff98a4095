"""The tests' own promises: one thread everywhere, absent parity cases are told, every test asserts something."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from parity_cases import VARIABLE, summary

TESTS = Path(__file__).parent


def test_processes_that_tests_start_have_one_thread() -> None:
    assert torch.get_num_threads() == 1
    program = "import torch; print(torch.get_num_threads())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


def test_absent_parity_cases_are_told_at_the_end(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS / "parity" / "test_m3ae.py")]
    environment = {**os.environ, VARIABLE: str(tmp_path)}
    found = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=TESTS.parent)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"PARITY NOT TESTED: no reference cases in {tmp_path}; set {VARIABLE} to their folder" in found.stdout


def test_the_parity_line_counts_cases(tmp_path: Path) -> None:
    assert summary(tmp_path, ["a", "b"], {"a", "b"}) == f"parity: 2 of 2 reference cases in {tmp_path} ran"
    assert summary(tmp_path, ["a", "b"], {"b"}) == f"parity: 1 of 2 reference cases in {tmp_path} ran; not a"


def asserting(function: ast.FunctionDef, helpers: set[str]) -> Iterator[ast.AST]:
    """What may fail in a test by intent: assert, pytest.raises, assert_… functions, and the file's own functions that assert."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            yield node
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if "assert" in name or name in ("pytest.raises", "pytest.warns", "pytest.fail") or name in helpers:
                yield node


def silent_tests(source: str) -> list[str]:
    """Tests that assert nothing."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    helpers = {f.name for f in functions if not f.name.startswith("test") and any(asserting(f, set()))}
    return [f.name for f in functions if f.name.startswith("test_") and not any(asserting(f, helpers))]


def test_silent_tests_are_found() -> None:
    helper = "def check(x):\n    assert x\n"
    assert silent_tests(helper + "def test_a():\n    check(1)\ndef test_b():\n    print(1)\n") == ["test_b"]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_every_test_asserts_something(path: Path) -> None:
    assert silent_tests(path.read_text(encoding="utf-8")) == []
