"""Advice: every rule with a made-up history or made-up scores, and none where there is nothing to say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskweave.report.advice import (
    RunFacts,
    advise,
    below_constant,
    below_reference,
    collapsed,
    ended_early,
    limited,
    one_step,
    overfits,
    still_falling,
)
from maskweave.report.html import Sections, write_report

STEPS = range(20, 1001, 20)
NETWORK = RunFacts(codes={"depth": 256})


def row(value: float | None, constant: float | None, tokenizer: float | None, better: str = "lower") -> dict[str, Any]:
    scores = {"value": value, "constant": constant, "tokenizer": tokenizer}
    return {"inputs": ["rgb", "caption"], "target": "depth", "metric": "MAE", "better": better, **scores}


def losses(training: Any, held_out: Any = None) -> list[dict[str, Any]]:
    """A history: losses as functions of the share of the training, validated every 100 steps."""
    lines = []
    for step in STEPS:
        lines.append({"step": step, "split": "train", "loss": float(training(step / 1000))})
        if held_out is not None and step % 100 == 0:
            lines.append({"step": step, "split": "validation", "loss": float(held_out(step / 1000))})
    return lines


def flat(share: float) -> float:
    return 2.0 + 4 * np.exp(-20 * share)


def noisy(share: float) -> float:
    return 2.0 + 0.3 * np.sin(1e4 * share)


class TestScores:
    def test_the_tokenizer_is_the_limit(self) -> None:
        (text,) = below_constant([row(0.5, 0.4, 0.41)], NETWORK)
        assert text == (
            "depth from rgb + caption: MAE is 0.5, not better than the best constant (0.4): the tokenizer is the limit (reconstruction 0.41): "
            "train it longer, or give it more codes or a finer grid"
        )

    def test_the_tokenizer_is_not_the_limit(self) -> None:
        (text,) = below_constant([row(0.5, 0.4, 0.1)], NETWORK)
        assert "its tokenizer is not the limit (reconstruction 0.1): train longer" in text

    def test_a_tokenizer_without_network_is_never_the_limit(self) -> None:
        (text,) = below_constant([row(0.5, 0.4, 0.4)], RunFacts())
        assert text.endswith("(0.4): train longer, or add inputs that tell it")
        assert limited([row(0.11, 0.4, 0.1)], RunFacts()) == []

    def test_a_transfer_has_no_tokenizer(self) -> None:
        (text,) = below_constant([row(0.2, 0.4, None, "higher")], NETWORK)
        assert text.endswith("(0.4): train longer, or add inputs that tell it")

    @pytest.mark.parametrize(
        "fine", [row(0.2, 0.4, 0.1), row(0.6, 0.4, 0.9, "higher"), row(0.2, None, 0.1), row(None, 0.4, 0.1)]
    )
    def test_better_or_unknown_scores_need_no_advice(self, fine: dict[str, Any]) -> None:
        assert below_constant([fine], NETWORK) == limited([fine], NETWORK) == []

    def test_a_simple_method_is_as_good(self) -> None:
        beaten = {**row(0.3, 0.4, 0.1), "references": {"ridge": 0.25, "nearest neighbor": 0.2, "other": None}}
        (text,) = below_reference([beaten])
        assert text.startswith(
            "depth from rgb + caption: MAE is 0.3, not better than the simple reference nearest neighbor (0.2)"
        )
        better = {**row(0.3, 0.4, 0.1), "references": {"ridge": 0.35}}
        worse_than_constant = {**row(0.5, 0.4, 0.1), "references": {"ridge": 0.25}}
        assert below_reference([better, worse_than_constant, row(0.3, 0.4, 0.1)]) == []

    def test_predictions_as_good_as_their_tokenizer(self) -> None:
        (text,) = limited([row(0.12, 0.4, 0.1), row(0.11, 0.4, 0.1)], NETWORK)
        assert "is 0.11, close to the tokenizer's own reconstruction (0.1): the tokenizer is the limit now" in text
        assert limited([row(0.38, 0.4, 0.41)], NETWORK) == [], "there is no way to go"

    def test_small_grids_need_one_step(self) -> None:
        facts = RunFacts(grids={"depth": (64, 8)}, target_tokens=128)
        (text,) = one_step([row(0.35, 0.4, 0.1), row(0.39, 0.4, 0.1)], facts)
        assert text.startswith("depth has 64 tokens, which fit into target_tokens (128), but is generated in 8 steps")
        assert "decoding: {steps: 1}" in text
        for other in (
            RunFacts(grids={"depth": (64, 1)}, target_tokens=128),
            RunFacts(grids={"depth": (256, 8)}, target_tokens=128),
            RunFacts(grids={"depth": (1, 8)}, target_tokens=128),
        ):
            assert one_step([row(0.35, 0.4, 0.1)], other) == []
        assert one_step([row(0.15, 0.4, 0.1)], facts) == [], "it is good as it is"


class TestHistories:
    def test_train_longer(self) -> None:
        (text,) = still_falling(losses(lambda s: 3 - s))
        assert text == "train longer: the training loss (2) still falls by 0.1 per 100 steps"
        lines = losses(flat) + [{"step": s, "split": "validation", "loss": 3 - s / 1000} for s in range(50, 1001, 50)]
        (text,) = still_falling(lines)
        assert "the validation loss (2) still falls by 0.1 per 100 steps" in text

    @pytest.mark.parametrize("history", [losses(flat), losses(noisy), losses(lambda s: 2 + s), [], losses(flat)[:3]])
    def test_losses_that_do_not_fall(self, history: list[dict[str, Any]]) -> None:
        assert still_falling(history) == []

    def test_overfitting(self) -> None:
        (text,) = overfits(losses(lambda s: 3 - 2 * s, lambda s: 2 + 4 * (s - 0.4) ** 2))
        assert text.startswith("overfits since step 400: the validation loss rose from 2 to 3.44; set early_stopping")

    def test_two_validations_after_the_best_show_it_and_one_does_not(self) -> None:
        (text,) = overfits(losses(lambda s: 3 - 2 * s, lambda s: 2 + 20 * (s - 0.8) ** 2))
        assert text.startswith("overfits since step 800: the validation loss rose from 2 to 2.8; set early_stopping")
        assert overfits(losses(lambda s: 3 - 2 * s, lambda s: 2 + 80 * (s - 0.9) ** 2)) == []

    @pytest.mark.parametrize(
        ("training", "held_out"),
        [
            (lambda s: 3 - 2 * s, lambda s: 3 - s),
            (lambda s: 3 - 2 * s, lambda s: 2 + 0.01 * np.sin(40 * s)),
            (lambda s: 2 + s, lambda s: 2 + 4 * (s - 0.4) ** 2),  # training diverges as well
            (lambda s: 3 - 2 * s, None),
        ],
    )
    def test_histories_that_do_not_overfit(self, training: Any, held_out: Any) -> None:
        assert overfits(losses(training, held_out)) == []

    def test_a_collapsed_codebook(self) -> None:
        lines = [{"step": s, "split": "train", "loss": 1.0, "codebook_use": 12 / 1024} for s in STEPS]
        (text,) = collapsed(lines, 1024)
        assert text.startswith("codebook collapsed (12 of 1,024 codes used)")
        assert collapsed(lines, 0) == collapsed(lines[:5], 1024) == []
        assert collapsed([{**line, "codebook_use": 0.3} for line in lines], 1024) == []

    def test_early_stopping(self) -> None:
        end = {
            "split": "early_stopping",
            "step": 600,
            "best_step": 400,
            "best_loss": 2.0,
            "waited": 2,
            "last_step": 1000,
        }
        (text,) = ended_early([*losses(flat), end])
        assert (
            text
            == "stopped early at step 600 of 1,000: the validation loss was lowest (2) at step 400, and the weights are from there"
        )
        (text,) = ended_early([{**end, "step": 1000}])
        assert text.startswith("the validation loss was lowest (2) at step 400")
        assert ended_early([{**end, "step": 1000, "best_step": 1000}]) == ended_early(losses(flat)) == []


def test_a_run_folder(tmp_path: Path) -> None:
    def write(folder: Path, lines: list[dict[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    assert advise(tmp_path, RunFacts()) == []
    write(tmp_path, losses(lambda s: 3 - 2 * s, lambda s: 2 + 4 * (s - 0.4) ** 2))
    write(tmp_path / "tokenizers" / "depth", [{**line, "codebook_use": 0.01} for line in losses(lambda s: 3 - s)])
    part = {**row(0.5, 0.4, 0.3), "part": True}
    (tmp_path / "evaluation.json").write_text(json.dumps([row(0.5, 0.4, 0.41), part]), encoding="utf-8")
    found = advise(tmp_path, RunFacts(codes={"depth": 1000}))
    starts = [
        "depth from rgb + caption: MAE",
        "tokenizer depth: codebook collapsed (10",
        "overfits since",
        "tokenizer depth: train longer",
    ]
    assert len(found) == 4 and all(text.startswith(start) for text, start in zip(found, starts, strict=True))
    page = write_report(tmp_path, Sections(advice=["a < b", *found])).read_text(encoding="utf-8")
    assert "What to do" in page and "a &lt; b" in page and page.index("overfits since") < page.index("<h2>Evaluation")
    (tmp_path / "evaluation.json").write_text("[", encoding="utf-8")
    assert len(advise(tmp_path, RunFacts())) == 2, "a damaged file is told by the report"
