"""The GPU's benchmark on a CPU: sections run in processes of their own, and what fails or hangs costs no other results."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"
ON_CPU = ["--device", "cpu", "--quick", "--seconds", "2000"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_section_that_hangs_leaves_the_results_of_the_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = script.in_process
    monkeypatch.setattr(script, "in_process", lambda n, b, a: real(n, 0.01 if n == "attention" else b, a))
    out = tmp_path / "gpu.json"
    assert script.main(["attention", "noise", *ON_CPU, "--out", str(out)]) == 1
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["error"] for row in rows if row["section"] == "attention"] == ["ended after 0 s"]
    (noise, whole) = [row for row in rows if row["section"] == "noise"]
    assert noise["ms"] > 0 and "error" not in whole
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("noise      on the device") and "ms" in line for line in lines)


def test_unknown_sections_are_refused(script: ModuleType) -> None:
    with pytest.raises(SystemExit):
        script.main(["trains"])


@pytest.mark.slow  # a minute of processor time
def test_all_sections_run_on_a_cpu(script: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert script.main([*ON_CPU, "--out", str(out)]) == 0, out.read_text(encoding="utf-8")
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert {row["section"] for row in rows} == {*script.BUDGETS}
    checked = [row for row in rows if "bound" in row]
    assert len(checked) > 12 and all(row["ok"] for row in checked)
