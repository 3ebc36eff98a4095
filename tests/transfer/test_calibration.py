"""Calibration: intervals of heads that were trained on few examples hold what they say."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_transfer import make_bundle, write_recipe

from maskweave.data.split import group_of
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.models.sample_heads import NumberHead
from maskweave.transfer import run as transfer_run
from maskweave.transfer.build import build_objective
from maskweave.transfer.calibration import calibrate, hold_out, spread_factor
from maskweave.transfer.data import open_examples
from maskweave.transfer.recipe import HeadSettings, load_transfer
from maskweave.transfer.run import run_transfer
from maskweave.transfer.shares import answers
from maskweave.transfer.task import fit_facts

NEW = {"level": {"id": 61, "kind": "grid", "value": {"type": "scalar", "range": [-9, 9]}}}


class Noisy:
    """Pictures of random levels, and a number that only depends on them by chance."""

    names = ("rgb", "level")

    def __init__(self, catalog: Catalog | None = None):
        pass

    def __len__(self) -> int:
        return 240

    def key(self, i: int) -> str:
        return f"noisy-{i}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        rng = np.random.default_rng(i)
        return {"rgb": rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), "level": float(rng.normal())}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("start"))


@pytest.fixture(autouse=True)
def own_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


@pytest.mark.slow
def test_intervals_of_an_overfitted_head_hold_what_they_say(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    coverage = {}
    for share in (0.0, 0.25):
        path = write_recipe(
            tmp_path, start, target="level", catalog=str(tmp_path / "more.yaml"), head={"calibrate": share},
            data={"source": "python: test_calibration:Noisy", "validation": 160},
            train={"steps": 60, "batch_size": 16, "learning_rate": 1e-2, "checkpoint_every": 0},
        )  # fmt: skip
        run = tmp_path / f"run-{share}"
        run_transfer(load_transfer(path), run)
        rows = {
            row["metric"]: row["value"] for row in json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        }
        coverage[share] = rows["coverage of 90%"]
    told = capsys.readouterr().out
    assert "calibration: predicted standard deviations are multiplied by " in told and "of 20 training examples" in told
    assert coverage[0.0] < 0.7 and coverage[0.25] > 0.8, coverage


@pytest.mark.parametrize(("share", "step"), [(0.25, "calibrate"), (0.0, "load_transferred")])
def test_a_divided_model_goes_from_main_memory_to_its_device(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, step: str
) -> None:
    class Reached(Exception):
        pass

    def reached(first: Any, *others: Any) -> None:
        raise Reached(next(first.parameters()).device if step == "calibrate" else others[0])

    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    path = write_recipe(
        tmp_path, start, target="level", catalog=str(tmp_path / "more.yaml"), head={"calibrate": share},
        data={"source": "python: test_calibration:Noisy", "validation": 160}, train={"steps": 1, "batch_size": 4, "device": "cpu"},
    )  # fmt: skip
    monkeypatch.setattr(transfer_run, step, reached)
    recipe = load_transfer(path)
    # Trained on the CPU, and then as if its device were another one.
    monkeypatch.setattr(transfer_run, "local_device", {"cpu": torch.device("meta")}.__getitem__)
    with pytest.raises(Reached, match="meta"):
        run_transfer(recipe, tmp_path / "run")


def test_the_factor_is_that_of_conformal_prediction() -> None:
    rng = np.random.default_rng(0)
    for spread in (0.2, 1.0, 5.0):
        factors = [spread_factor(np.abs(spread * rng.normal(size=40))) for _ in range(400)]
        held = [np.mean(np.abs(spread * rng.normal(size=200)) < 1.64485 * factor) for factor in factors]
        assert 0.895 < np.mean(held) < 0.925
    assert spread_factor(np.zeros(30)) == 1e-3 and spread_factor(np.zeros(0)) == 1


def test_deviations_below_the_least_one_are_calibrated(start: Path, tmp_path: Path) -> None:
    """The factor lifts them to where they hold 90%, not only to the least deviation."""
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"modalities": NEW}), encoding="utf-8")
    path = write_recipe(
        tmp_path, start, target="level", catalog=str(tmp_path / "more.yaml"),
        data={"source": "python: test_calibration:Noisy", "validation": 40},
    )  # fmt: skip
    recipe = load_transfer(path)
    entries = recipe.load_catalog()
    parts = open_examples(recipe.data, entries, recipe.inputs, recipe.target, recipe.label)
    facts = fit_facts(parts.train.target, answers(parts.train, 200), recipe.head)
    objective = build_objective(recipe, entries, parts.train.target, facts).objective
    head = objective.head
    assert isinstance(head, NumberHead) and head.out.bias is not None
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([0.0, -20.0]))  # the mean of all, with a deviation far too small
    calibrate(objective, parts.train, {})
    assert head.out.bias[1].item() == pytest.approx(0, abs=0.2), "the deviation of all"


def test_examples_are_held_out_by_groups() -> None:
    def examples(total: int, group: str = "") -> Any:
        keys = [f"place{i % 12}-{i}" for i in range(total)]
        return SizedExamples(indices=range(100, 100 + total), key=lambda i: keys[i], group=group_of(group))

    trained, held, _ = hold_out(examples(200), 0.1)
    assert (
        held is not None and len(held.indices) == 20 and sorted([*trained.indices, *held.indices]) == [*range(100, 300)]
    )
    assert hold_out(examples(200), 0.1)[1].indices == held.indices  # type: ignore[union-attr]
    trained, held, _ = hold_out(examples(240, r"place\d+"), 0.1)
    assert held is not None and {i % 12 for i in held.indices}.isdisjoint({i % 12 for i in trained.indices})
    assert hold_out(examples(200), 0)[1:] == (None, "")
    _, held, reason = hold_out(examples(40), 0.1)
    assert held is None and "40 training examples are too few to hold out 10" in reason
    _, held, reason = hold_out(examples(240, "place"), 0.1)  # one group
    assert held is None and "240 of 240 training examples would be held out" in reason
    assert len(hold_out(examples(60), 0.1)[1].indices) == 12  # type: ignore[union-attr]
    with pytest.raises(MaskweaveError, match="calibrate must be a share from 0 to 0.5"):
        HeadSettings(calibrate=0.9)


class SizedExamples(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.indices)
