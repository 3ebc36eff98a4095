"""What the run of faults counts as noticed: a test that failed, never a run in which no test did."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import mutants
import pytest

FAULT = mutants.Fault(
    mutants.PACKAGE / "errors.py", 1, 0, 0, "", "no fault", (mutants.ROOT / "tests" / "test_errors.py",)
)
SAID = """\
FE
FAILED tests/test_errors.py::test_a[x - y] - assert 0
ERROR tests/test_files.py::test_b - OSError: a - b
ERROR tests/test_hub.py
ERROR tests/test_ranks.py - ImportError
"""


def test_names_of_tests_that_failed() -> None:
    names = ["test_errors.py::test_a[x - y]", "test_files.py::test_b", "test_hub.py", "test_ranks.py"]
    assert mutants.failures(SAID) == [f"tests/{name}" for name in names]


@pytest.mark.parametrize(
    ("code", "said", "found"),
    [
        (0, "", ""),
        (1, SAID, "tests/test_errors.py::test_a[x - y]"),
        (1, "", "exit code 1"),
        (-9, SAID, "timeout"),
        (-11, "", "exit code -11"),
    ],
)
def test_what_notices_a_fault(code: int, said: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "run_tests", lambda *_: (code, said))
    assert mutants.notices(FAULT, 1) == found
    assert mutants.is_test(found) == ("::" in found)


@pytest.mark.parametrize("code", [2, 3, 4, 5, 70])
def test_runs_without_a_result_end_the_program(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "run_tests", lambda *_: (code, "said"))
    for call in (lambda: mutants.notices(FAULT, 1), lambda: mutants.not_theirs(["tests/test_errors.py::test_a"], 1)):
        with pytest.raises(SystemExit, match="pytest .* tests/test_errors.py.*:\nsaid"):
            call()


@pytest.mark.parametrize(
    ("found", "without", "counted"),
    [
        ("timeout", (0, ""), 1),
        ("timeout", (-9, ""), 0),
        ("exit code -11", (1, SAID), 0),
        ("tests/test_hub.py", (1, SAID), 0),
        ("tests/test_errors.py::test_a[x - y]", (1, SAID), 0),
        ("tests/test_errors.py::test_a[z]", (1, SAID), 1),
        ("tests/test_errors.py::test_a[z]", (0, ""), 1),
    ],
)
def test_what_fails_without_a_fault_has_noticed_nothing(
    found: str,
    without: tuple[int, str],
    counted: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mutants, "chosen", lambda *_: iter([FAULT]))
    monkeypatch.setattr(mutants, "notices", lambda *_: found)
    monkeypatch.setattr(mutants, "run_tests", lambda *_: without)
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--count=1"])
    assert mutants.main() == 1 - counted
    assert f"caught {counted} of 1" in capsys.readouterr().out


@pytest.mark.parametrize(("without", "found"), [((0, ""), "exit code 4"), ((4, "said"), "")])
def test_faults_with_which_nothing_can_be_imported(
    without: tuple[int, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "run_tests", lambda *_: (4, "said"))
    monkeypatch.setattr(mutants, "run_without_fault", lambda *_: without)
    if found:
        assert mutants.notices(FAULT, 1) == found
        return
    with pytest.raises(SystemExit, match="pytest cannot run"):
        mutants.notices(FAULT, 1)


@pytest.mark.parametrize(("program", "is_stopped"), [("sleep", True), ("compute", False)])
def test_tests_that_wait_forever_are_stopped(program: str, is_stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        os.setsid()
        end = time.monotonic() + (60 if program == "sleep" else 2)
        while time.monotonic() < end:
            time.sleep(60 if program == "sleep" else 0)
        os._exit(7)

    monkeypatch.setattr(mutants, "IDLE", 1)
    monkeypatch.setattr(mutants, "_test", work)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "said").write_text("", encoding="utf-8")
        assert mutants.run_tests([], Path(folder), 60)[0] == (-signal.SIGKILL if is_stopped else 7)


def test_the_names_at_a_line(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("A, B = 1, 2\n\ndef one():\n    return _two(A)\n\ndef _two(x):\n    def inner():\n        return x\n    return _C.get\n\nclass _C:\n    get = 3\n    def f(self):\n        pass\n", encoding="utf-8")  # fmt: skip
    names = {line: mutants.names_at(path, line) for line in (1, 2, 4, 8, 12, 14)}
    assert names == {1: {"A", "B"}, 2: set(), 4: {"one"}, 8: {"inner", "one"}, 12: {"one"}, 14: {"f", "one"}}


def test_test_files_that_name_what_is_at_a_line_come_first() -> None:
    module = mutants.PACKAGE / "config.py"
    text = module.read_text(encoding="utf-8").splitlines()
    line = next(n for n, code in enumerate(text, 1) if code.startswith("def whole_number"))
    found = [str(file.relative_to(mutants.ROOT / "tests")) for file in mutants.tests_of(module, line)]
    assert found[: len(mutants.OF_ALL) + 1] == [*mutants.OF_ALL, "test_config.py"]
    assert len(found) == len(mutants.OF_ALL) + mutants.MOST_FILES and "faults/test_arguments.py" in found[:6]


@pytest.mark.parametrize("fault", mutants.NAMED, ids=lambda fault: fault.what)
def test_named_faults_fit_the_code(fault: mutants.NamedFault) -> None:
    change = mutants.named(fault)
    assert change.apply(change.path.read_bytes()) != change.path.read_bytes()
    assert all(path.exists() for path in change.tests)
