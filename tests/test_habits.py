"""What developers use every day: make help, the fast tests, what a failure says, the bench."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fast import chosen
from look_at import advice
from test_rules import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_make_help_names_every_target() -> None:
    found = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    named = {line.split()[1] for line in found.stdout.splitlines() if line.startswith("make ")}
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert targets and named == set(targets[1].split())
    assert all(len(line.split(maxsplit=2)[2]) > 10 for line in found.stdout.splitlines() if line.startswith("make "))
    assert subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout == found.stdout, "the default"


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")


def test_the_tests_closest_to_a_change_come_first(tmp_path: Path) -> None:
    both = "from maskweave.values import map\nfrom maskweave.nn import layers\n"
    write(
        tmp_path,
        {
            "tests/values/test_map.py": "",
            "tests/values/test_other.py": "import maskweave.values.map\n",
            "tests/nn/test_layers.py": both,
            "tests/nn/test_far.py": "from maskweave.nn import layers\n",
            "tests/test_rules.py": "#" * 99,
            "src/maskweave/values/map.py": "",
        },
    )
    order = ["tests/values/test_map.py", "tests/test_rules.py", "tests/values/test_other.py", "tests/nn/test_layers.py"]
    assert chosen(tmp_path, ["src/maskweave/values/map.py"]) == [*order, "tests/nn/test_far.py"]
    assert chosen(tmp_path, ["tests/nn/test_far.py", "README.md"])[:2] == [
        "tests/nn/test_far.py",
        "tests/test_rules.py",
    ]


def test_fast_tests_end_in_time_and_say_what_was_left(tmp_path: Path) -> None:
    tests = "".join(f"def test_{i}():\n    assert True\n" for i in range(20))
    write(tmp_path, {"test_many.py": f"import builtins\n{tests}def test_2():\n    builtins.deadline.end = 0\n"})
    code = (
        "import builtins, sys, pytest, fast; builtins.deadline = fast.Deadline(1e9)\n"
        "sys.exit(pytest.main(['-p', 'no:cacheprovider', 'test_many.py'], plugins=[builtins.deadline]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "time is up: " in found.stdout and found.returncode == 0, found.stdout
    assert "20 passed" not in found.stdout and "tests were not run; make test runs all" in found.stdout


def test_a_failure_says_what_to_look_at(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "src/maskweave/values/map.py": "",
            "tests/values/test_map.py": "from maskweave.values.map import x\nfrom maskweave.errors import y\n",
        },
    )
    frames = [
        ("tests/values/test_map.py", 3, "test_x"),
        (str(tmp_path / "src/maskweave/files.py"), 7, "read"),
        ("torch.py", 9, "f"),
    ]
    test = "tests/values/test_map.py::test_x"
    assert advice(frames, test, ["src/maskweave/values/map.py", "README.md"], tmp_path) == [
        "src/maskweave/files.py:7, in read",
        "src/maskweave/values/map.py has changed, and this test imports it",
        "alone: .venv/bin/python -m pytest 'tests/values/test_map.py::test_x'",
    ]
    assert advice(frames[:1], test, [], tmp_path)[0] == "src/maskweave/values/map.py, which this file tests"


@pytest.mark.slow  # writes a test beside the others
def test_the_report_of_a_failure_has_it() -> None:
    path = ROOT / "tests" / "test_fails_on_purpose.py"
    code = (
        "from maskweave.files import read_json\ndef test_it(tmp_path):\n    assert read_json(tmp_path / 'gone.json')\n"
    )
    path.write_text(code, encoding="utf-8")
    try:
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", str(path)]
        found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    finally:
        path.unlink()
    assert found.returncode == 1
    assert re.search(r"look at -+\nsrc/maskweave/files\.py:\d+, in _parse\n", found.stdout), found.stdout
    assert "alone: .venv/bin/python -m pytest 'tests/test_fails_on_purpose.py::test_it'" in found.stdout
