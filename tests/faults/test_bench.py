"""A part of the fault bench: damaged files and requests give clear errors or correct values, never another exception. `make faults` tries more."""

from pathlib import Path

import pytest
from damage import Cases

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
    assert not [outcome for outcome in outcomes if outcome.result not in ("clear", "accepted")]
    if kind != "import":
        assert any(outcome.result == "clear" for outcome in outcomes), "nothing was damaged"
