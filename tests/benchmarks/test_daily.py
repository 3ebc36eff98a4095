"""The daily benchmark measures every part, stores a run and tells what became slower."""

import importlib
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def daily(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("daily")


def test_a_slower_part_is_told_but_not_a_slower_machine(daily: ModuleType) -> None:
    before = {daily.PRODUCT: 1.0, "a": 1.0, "b": 2.0, "gone": 3.0}
    lines, worse = daily.compared({daily.PRODUCT: 1.0, "a": 1.2, "b": 2.6, "new": 1.0}, before, 1.25)
    assert worse == ["b"] and len(lines) == 5
    assert lines[3].split() == ["b", "2.6000s", "2.0000s", "1.30×"] and lines[4].split()[-1] == "new"
    assert daily.compared({daily.PRODUCT: 1.5, "a": 1.6, "b": 4.0}, before, 1.25)[1] == ["b"]
    assert daily.compared({daily.PRODUCT: 0.5, "a": 1.2}, before, 1.25)[1] == [], "a fast machine excuses nothing"


def test_a_run_is_stored_and_compared(
    daily: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {daily.PRODUCT: 1.0, "part": 1.0}
    monkeypatch.setattr(daily, "parts", lambda: [(name, name.upper) for name in times])
    monkeypatch.setattr(daily, "least_seconds", lambda work, rounds: times[work.__self__])
    words = ["--folder", str(tmp_path)]
    assert daily.main(words) == 0
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text(encoding="utf-8"))["machine"] == daily.machine()
    times["part"] = 2.0
    assert daily.main(words) == 1 and "slower by more than 1.25×: part" in capsys.readouterr().err
    assert daily.main([*words, "--save"]) == 1 and daily.main(words) == 0


def test_the_time_of_a_fresh_process_counts(daily: ModuleType) -> None:
    assert daily.least_seconds(lambda: daily.fresh_process("sum(range(3_000_000))"), 1) > 0.03
    with pytest.raises(subprocess.CalledProcessError):
        daily.fresh_process("raise SystemExit(3)")


@pytest.mark.slow
def test_every_part_is_measured(daily: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert daily.main(["--folder", str(tmp_path), "--rounds", "1"]) == 0
    assert capsys.readouterr().out.count("new") == 11
