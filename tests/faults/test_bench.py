"""A part of the fault bench: damaged files and requests give clear errors or correct values, never another exception. `make faults` tries more."""

import random
from pathlib import Path

import pytest
from damage import Cases
from forks import Fork, full_after
from runs import BAD, Runs

COUNT = {
    "value": 60,
    "format": 60,
    "picture": 40,
    "tar": 30,
    "recipe": 20,
    "catalog": 15,
    "schedule": 20,
    "bundle": 5,
    "tokens": 15,
    "request": 60,
    "import": 15,
}


@pytest.fixture(scope="module")
def cases(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(tiny_run, tmp_path_factory.mktemp("damage") / "work")


@pytest.mark.parametrize("kind", Cases.KINDS)
def test_damage_is_told_or_harmless(kind: str, cases: Cases) -> None:
    outcomes = [cases.run_case(kind, number) for number in range(20_000, 20_000 + COUNT[kind])]
    assert not [outcome for outcome in outcomes if outcome.result in BAD]
    if kind != "import":
        assert any(outcome.result == "clear" for outcome in outcomes), "nothing was damaged"


@pytest.mark.parametrize(("writes", "code", "message"), [(0, 1, "no space left while writing"), (10_000, 0, "")])
def test_a_disk_is_full_in_a_fork(
    writes: int, code: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    used = tmp_path / "used"
    with capfd.disabled():  # the fork prints to a file
        fork = Fork(["data", "scenes", tmp_path / "out", "--count=1"], tmp_path / "said", full_after(writes, used))
        found, said = fork.wait()
    assert found == code and message in said and used.exists() == bool(code), said


@pytest.mark.parametrize(
    ("code", "said", "is_used", "result"),
    [
        (1, "no space left while writing x", True, "clear"),
        (1, "x: no such file", True, "raw"),
        (1, "x: no such file", False, "raw"),
        (0, "", True, "raw"),
        (0, "", False, "raw"),  # without any space, it wrote everything
        (70, "", False, "raw"),  # the fault could not be prepared
        (-9, "", True, "raw"),
    ],
)
def test_what_is_no_clear_error_of_a_full_disk(
    code: int, said: str, is_used: bool, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs.__new__(Runs)  # without the run to compare with
    runs.folder, runs.writes = tmp_path, 50

    def call(*_: object) -> tuple[int, str]:
        if is_used:
            (tmp_path / "used").touch()
        return code, said

    monkeypatch.setattr(runs, "_call", call)
    monkeypatch.setattr(runs, "_finished", lambda run: ("accepted", ""))
    assert runs._full_disk(tmp_path / "run", random.Random(0), 0)[0] == result
