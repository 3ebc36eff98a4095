"""What developers use every day: make help, the fast tests, what a failure says, the bench."""

import os
import re
import subprocess
import sys
import time
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


def run_fast(folder: Path, seconds: float, *files: str) -> tuple[int, str, float]:
    """Exit code, output and seconds of tests with a deadline."""
    code = (
        "import sys, time, pytest, fast\n"
        f"sys.exit(pytest.main(['-p', 'no:cacheprovider', *{files}], plugins=[fast.Deadline({seconds}, time.monotonic())]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    start = time.monotonic()
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    return found.returncode, found.stdout, time.monotonic() - start


SLEEPS = "import time\ndef test_{}():\n    time.sleep({})\n    assert True\n"


def test_fast_tests_end_in_time_and_say_what_was_left(tmp_path: Path) -> None:
    """The last but one would take two minutes."""
    tests = "def test_wrong():\n    assert False\n" + "".join(
        SLEEPS.format(*one) for one in (("a", 0), ("b", 120), ("c", 0))
    )
    write(tmp_path, {"test_slow.py": tests})
    code, output, seconds = run_fast(tmp_path, 3, "test_slow.py")
    assert "1 failed, 1 passed" in output and code == 1, output
    assert "time is up: 2 tests and 0 files were not run; make test runs all" in output
    assert re.search(r"^\d+ seconds in total$", output, re.MULTILINE) and seconds < 60


def test_files_are_collected_for_a_third_of_the_time(tmp_path: Path) -> None:
    """At least the closest one is."""
    write(
        tmp_path, {f"test_{name}.py": "import time\ntime.sleep(2)\ndef test_it():\n    assert True\n" for name in "abc"}
    )
    code, output, _ = run_fast(tmp_path, 6, "test_a.py", "test_b.py", "test_c.py")
    assert code == 0 and "1 passed" in output and "0 tests and 2 files were not run" in output, output


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
