"""Scripts that the documentation names run, and count what `maskweave recipe check` counts."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from maskweave.training import estimate
from maskweave.training.hardware import gpu_named
from maskweave.training.recipe import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["step_floor"], indirect=True)
def test_floor_of_a_step(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, name, value in (
        (script, "SIZE", "nano"), (script, "TOKENS", 8), (script, "SAMPLES", 2), (script, "SPLIT_STEPS", 1),
        (sys.modules["fourm"], "SAMPLES", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        sys, "argv", ["step_floor.py", "--catalogs", "4m-7", "--precisions", "float32", "--rounds", "1"]
    )
    try:
        script.main()
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("4m-7 float32")]
    assert float(row[4].removesuffix("×")) > 0
    groups = lines[lines.index(next(line for line in lines if line.startswith("milliseconds"))) + 1 :]
    spent = {line[:32].strip(): int(line[32:]) for line in groups}
    assert [*spent] == [*script.GROUPS, script.DRAWING, script.PYTHON] and sum(spent.values()) > 0


@pytest.mark.parametrize("name", ["m3ae-cc12m", pytest.param("4m-21-xl", marks=pytest.mark.slow)])
@pytest.mark.parametrize("script", ["recipe_costs"], indirect=True)
def test_costs_are_those_of_the_check_and_of_the_documentation(
    script: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(ROOT / f"recipes/{name}.yaml")
    counted = estimate.estimate(recipe, recipe.load_catalog())
    for module in (script, estimate):  # counts once
        monkeypatch.setattr(module, "estimate", lambda *_: counted)
    cells = script.cells(name, script.RECIPES[name], gpu_named("h100"))
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs/cluster.md").read_text(encoding="utf-8").splitlines()
    told = " ".join(estimate.describe_estimate(recipe, recipe.load_catalog(), "h100", script.RECIPES[name]))
    parallel, state, activations, tokens = cells[5:9]
    for part in (
        f"parallel {parallel} and", f"{state} GB for weights", f"about {activations} GB for activations",
        f"{tokens} tokens/s",
    ):  # fmt: skip
        assert part in told
