"""Shares of examples, their curves, class shares, calibration and outliers of transfers, with numbers computed by hand."""

import json
import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from layouts import figure_lines

from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow
from maskweave.ranks import JobPart
from maskweave.training.gathering import Gathered
from maskweave.transfer import blocks, calibration, fractions
from maskweave.transfer.blocks import block_scales
from maskweave.transfer.calibration import hold_out, spread_factor
from maskweave.transfer.features import in_order
from maskweave.transfer.fractions import CurvePoint, counts, curve_figure, curve_table, parse_fractions, write_curve
from maskweave.transfer.outliers import area_interval, area_under_curve, mahalanobis, maximum_softmax, nearest
from maskweave.transfer.probe import Labeled
from maskweave.transfer.shares import answers, differing_shares


@pytest.mark.parametrize(("text", "found"), [("1", [1.0]), ("0.5,0.1, 1 ,0.1", [0.1, 0.5, 1.0]), ("1e-9", [1e-9])])
def test_shares_in_a_text(text: str, found: list[float]) -> None:
    assert parse_fractions(text) == found


@pytest.mark.parametrize("text", ["", "0", "0.5,0", "1.01", "-1", "a", "nan", "inf", "0.1,,1"])
def test_texts_that_are_no_shares(text: str) -> None:
    with pytest.raises(MaskweaveError, match="expected shares above 0 up to 1, such as 0.01,0.1,1"):
        parse_fractions(text)


def test_numbers_of_examples() -> None:
    assert counts([0.02, 0.5, 1.0], 101) == [2, 50, 101]
    assert counts([0.05, 1.0], 100, least=5) == [5, 100]
    with pytest.raises(MaskweaveError, match="--fractions: 0.01 of 101 training examples are 1, expected 2 or more"):
        counts([0.01, 1.0], 101)


def row(metric: str, value: float, constant: float, part: bool = False) -> EvaluationRow:
    return EvaluationRow(["rgb"], "depth", metric, "lower", value, constant, math.nan, 9, 0, part=part)


POINTS = [
    CurvePoint(0.1, 10, [row("a", 0.5, 0.9), row("b", 2.0, math.nan)]),
    CurvePoint(1.0, 100, [row("a", 0.25, 0.9), row("b", 1.0, math.nan), row("c", 0.01234, 123456.0), row("d", 3, 4, part=True), *(row(f"more {n}", 1, 2) for n in range(3))]),
]  # fmt: skip


def test_the_table_of_a_curve() -> None:
    heads, rows = curve_table(POINTS)
    assert heads == ["target", "metric", "better", "0.1 (10)", "1 (100)", "constant"]
    assert rows[:3] == [
        ["depth", "a", "lower", "0.500", "0.250", "0.900"],
        ["depth", "b", "lower", "2.000", "1.000", "nan"],
        ["depth", "c", "lower", "nan", "0.0123", "1.23e+05"],
    ]
    assert len(rows) == 6


def test_the_files_of_a_curve(tmp_path: Path) -> None:
    write_curve(POINTS[:1], tmp_path / "deep" / "x")
    assert json.loads((tmp_path / "deep" / "x" / "fractions.json").read_text(encoding="utf-8")) == [
        {"fraction": 0.1, "examples": 10, "scores": {"a": 0.5, "b": 2.0}, "constants": {"a": 0.9, "b": None}}
    ]
    assert (tmp_path / "deep" / "x" / "fractions.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_of_a_curve() -> None:
    """Four metrics, each with its best constant if that has a score."""
    with patch.object(fractions, "as_png", lambda figure: [*figure_lines(figure)]):
        lines: Any = curve_figure(POINTS)
        nothing: Any = curve_figure([CurvePoint(1.0, 3, [])])
    assert lines[0] == "figure [12.4, 2.3] dpi 144 alpha 0" and nothing[0] == "figure [3.1, 2.3] dpi 144 alpha 0"
    assert [line.split()[1] for line in lines if line.startswith("axes")] == ["'a'", "'b'", "'c'", "'more"]
    assert sum(line.startswith("axes") and "x 'training examples'" in line for line in lines) == 4
    drawn = [line.rpartition("): ")[2] for line in lines if line.startswith("  line")]
    assert drawn == [
        "[10, 100] [0.5, 0.25]", "[0, 1] [0.9, 0.9]", "[10, 100] [2, 1]", "[10, 100] [nan, 0.01234]", "[0, 1] [1.235e+05, 1.235e+05]",
        "[10, 100] [nan, 1]", "[0, 1] [2, 2]",
    ]  # fmt: skip
    looks = [line for line in lines if line.startswith("  line")]
    assert "'#3b82d6', None, 1.6, '-', 'o'" in looks[0] and "'#7d8186', None, 1.0, '--', 'None'" in looks[1]


def test_metrics_with_dollar_signs_are_no_formulas() -> None:
    assert curve_figure([CurvePoint(1.0, 3, [row(r"MAE $\frac$", 1.0, 2.0)])]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("train", "held_out", "told"),
    [
        ([0] * 50 + [1] * 50, [0] * 50 + [1] * 50, ""),
        ([], [0], ""),
        ([0], [], ""),
        ([0] * 90 + [1] * 10, [0] * 10 + [1] * 90, "2 of 4 classes differ strongly between training and held-out examples: a 90% and 10%, b 10% and 90%;"),
        ([0, 1], [1, 1], ""),
        ([0] * 5000 + [1] * 5000, [0] * 4600 + [1] * 5400, ""),
        ([0] * 5000 + [1] * 5000, [0] * 4400 + [1] * 5600, "2 of 4 classes differ"),
        ([0] * 400, [1] * 100 + [2] * 100 + [3] * 200, "4 of 4 classes differ strongly between training and held-out examples: a 100% and 0%, d 0% and 50%, b 0% and 25%;"),
    ],
)  # fmt: skip
def test_shares_of_classes(train: list[int], held_out: list[int], told: str) -> None:
    """Told from a difference of 5%, and of four standard errors."""
    found = differing_shares(train, held_out, ["a", "b", "c", "d"])
    assert (told in found) and bool(found) == bool(told)


def test_answers_are_evenly_spread() -> None:
    examples: Any = SimpleNamespace(target=SimpleNamespace(modality=None), answer=lambda i, sample: i)
    examples = type(
        "Examples", (), {"__len__": lambda self: 11, "target": examples.target, "answer": lambda self, i, sample: i}
    )()
    assert answers(examples, 3) == [0, 5, 10] and answers(examples, 99) == [*range(11)]


class Few:
    """Training examples of which only the names are asked."""

    def __init__(self, total: int, group: int = 1):
        self.indices, self.size = [*range(1000, 1000 + total)], group

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, i: int) -> str:
        return str(i)

    def group(self, name: str) -> str:
        return str(int(name) // self.size)


@pytest.mark.parametrize(
    ("total", "share", "held"),
    [(1000, 0.1, 100), (1000, 0.0, 0), (60, 0.01, 12), (50, 0.01, 10), (49, 0.01, 0), (49, 0.2, 10), (300, 0.01, 20), (20_000, 0.1, 1000)],
)  # fmt: skip
def test_how_many_examples_are_held_out(total: int, share: float, held: int) -> None:
    """At least 20, or a fifth of few, and at most 1000; with fewer than 10 nothing is calibrated."""
    rest, out, told = hold_out(Few(total), share)  # type: ignore[arg-type]
    assert len(rest) == total - held and (0 if out is None else len(out)) == held
    assert bool(told) == (share > 0 and not held)
    if out is not None:
        assert sorted(rest.indices + out.indices) == [*range(1000, 1000 + total)] and len(set(out.indices)) == held
    else:
        assert not told or told.endswith(f"{total} training examples are too few to hold out 10 of them")


def test_groups_that_are_too_large() -> None:
    rest, out, told = hold_out(Few(100, group=60), 0.3)  # type: ignore[arg-type]
    assert len(rest) == 100 and out is None and "the groups are so large that" in told
    rest, out, told = hold_out(Few(100, group=50), 0.3)  # type: ignore[arg-type]
    assert out is not None and (len(rest), len(out), told) == (50, 50, ""), "a half is held out"


@pytest.mark.parametrize(
    ("errors", "factor"),
    [([], 1.0), ([1.0], 1 / 1.6448536), ([*range(1, 10)], 9 / 1.6448536), ([*range(1, 20)], 18 / 1.6448536), ([*range(99, 0, -1)], 90 / 1.6448536), ([0.0], 1e-3)],
)  # fmt: skip
def test_the_factor_of_deviations(errors: list[float], factor: float) -> None:
    assert spread_factor(np.array(errors, float)) == pytest.approx(factor)
    assert (calibration.LEAST, calibration.ENOUGH, calibration.MOST) == (10, 20, 1000)


def test_rows_of_processes_come_in_their_order() -> None:
    parts = [
        Gathered(None, {"numbers": torch.tensor([0, 4]), "x": torch.tensor([[0.0], [4.0]])}),
        Gathered(None, {}),
        Gathered(None, {"numbers": torch.tensor([3, 1]), "x": torch.tensor([[3.0], [1.0]])}),
    ]
    found = in_order(parts)
    assert found["numbers"].tolist() == [0, 1, 3, 4] and found["x"].tolist() == [[0], [1], [3], [4]]
    assert in_order([Gathered(None, {})]) == {} and JobPart(1, 2).mine(range(4)) == range(1, 4, 2)


def labeled(features: Any, labels: list[int]) -> Labeled:
    return Labeled(torch.tensor(features, dtype=torch.float32), torch.tensor(labels))


def test_outlier_scores_by_hand() -> None:
    train = labeled([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 3.0]], [0, 0, 2, 2])
    covariance = torch.tensor([[0.5, 0.0], [0.0, 0.5]]) + 1e-3 * 0.5 * torch.eye(2)
    query = torch.tensor([[2.0, 1.0], [0.0, 2.0]])
    expected = [
        -float(v @ torch.linalg.inv(covariance) @ v) for v in (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    ]
    assert mahalanobis(train, query).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    distances = sorted(
        float((torch.tensor([0.6, 0.8]) - other).norm())
        for other in torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]])
    )
    for k in (1, 2, 3, 9):
        assert nearest(train, torch.tensor([[3.0, 4.0]]), k).item() == pytest.approx(
            -distances[min(k, 4) - 1], abs=1e-5
        )
    probe: Any = lambda features: torch.log(features)  # noqa: E731
    assert maximum_softmax(probe, torch.tensor([[1.0, 3.0], [2.0, 2.0]])).tolist() == pytest.approx([0.75, 0.5])


def test_areas_by_hand() -> None:
    inside, outside = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([2.0, 0.0])
    assert area_under_curve(inside, outside) == (2 + 1.5 + 1) / 6
    assert area_under_curve(outside, inside) == pytest.approx(1 - 4.5 / 6)
    assert math.isnan(area_under_curve(inside, outside[:0])) and math.isnan(area_under_curve(inside[:0], outside))
    low, high = area_interval(torch.arange(40.0) + 15, torch.arange(40.0))
    assert low < area_under_curve(torch.arange(40.0) + 15, torch.arange(40.0)) < high <= 1
    assert area_interval(inside, outside, 1) == area_interval(inside, outside, 1)


def test_blocks_that_know_nothing_are_left_out() -> None:
    """The sum of the squares is the number of features."""
    rng = np.random.default_rng(0)
    good, noise = torch.tensor(rng.normal(size=(80, 3))), torch.tensor(rng.normal(size=(80, 5)))
    y, folds = good @ torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64), np.arange(80) % 4
    assert torch.equal(block_scales(good, y, folds, [3]), torch.ones(3))
    for x, sizes, kept in (
        (torch.cat([good, noise], 1), [3, 5], slice(0, 3)),
        (torch.cat([noise, good], 1), [5, 3], slice(5, 8)),
    ):
        scales = block_scales(x, y, folds, sizes)
        assert scales.square().sum() == pytest.approx(8, rel=1e-5) and scales[kept].tolist() == pytest.approx(
            [(8 / 3) ** 0.5] * 3, rel=1e-5
        )
    nothing = block_scales(torch.cat([noise, noise[:, :3]], 1), torch.tensor(rng.normal(size=(80, 1))), folds, [5, 3])
    assert nothing[:5].tolist() == pytest.approx([(8 / 2 / 5) ** 0.5] * 5, rel=1e-5), "both, if nothing predicts"
    assert nothing[5:].tolist() == pytest.approx([(8 / 2 / 3) ** 0.5] * 3, rel=1e-5)


def test_numbers_that_few_samples_know_are_fitted_on_those() -> None:
    rng = np.random.default_rng(1)
    x, folds = rng.normal(size=(60, 4)), np.arange(60) % 3
    y = np.stack([x[:, 0], x[:, 1], x[:, 1] ** 2], 1) + 0.1 * rng.normal(size=(60, 3))
    y[20:, 1], y[:50, 2] = np.nan, np.nan  # a fold of the third has three samples
    kernel = x @ x.T / 4
    errors = np.zeros(len(blocks.STRENGTHS))
    for fold, k in product(range(3), range(3)):
        kept, out = (folds != fold) & ~np.isnan(y[:, k]), (folds == fold) & ~np.isnan(y[:, k])
        center = np.eye(kept.sum()) - 1 / kept.sum()
        among = center @ kernel[np.ix_(kept, kept)] @ center
        across = (kernel[np.ix_(out, kept)] - kernel[np.ix_(kept, kept)].mean(0)) @ center
        for i, strength in enumerate(blocks.STRENGTHS):
            solved = np.linalg.solve(
                among + strength * np.trace(among) * np.eye(len(among)), y[kept, k] - y[kept, k].mean()
            )
            errors[i] += np.square(across @ solved + y[kept, k].mean() - y[out, k]).sum()
    found = blocks._error(torch.from_numpy(kernel), torch.from_numpy(y), folds)
    assert found == pytest.approx(errors.min(), rel=1e-9)
    y[:] = np.nan
    y[::3, 0] = 2.0  # the samples of one fold alone: nothing to learn from when it is held out
    assert blocks._error(torch.from_numpy(kernel), torch.from_numpy(y), folds) == pytest.approx(20 * 4)
