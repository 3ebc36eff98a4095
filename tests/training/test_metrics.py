"""The one reader of metrics.jsonl, over what a crash or a hand may leave there."""

from pathlib import Path

import pytest

from maskweave.training.metrics import FILE, MetricsLog, read_metrics


def test_what_was_written_is_read_and_a_torn_end_passed_over(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    with MetricsLog(tmp_path, step=0) as log:
        for step in (1, 2):
            log.write(step, "train", {"loss": float("nan") if step == 2 else 0.5})
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write('{"step": 3, "split": "tr')
    assert read_metrics(tmp_path) == [
        {"step": 1, "split": "train", "loss": 0.5},
        {"step": 2, "split": "train", "loss": None},
    ]
    with MetricsLog(tmp_path, step=1) as log:  # goes on from an earlier checkpoint
        log.write(2, "train", {"loss": 0.25})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [0.5, 0.25]


@pytest.mark.parametrize("line", ["", "null", "[]", '{"loss": 1}', '{"step": "1", "split": "train"}', "[" * 100_000])
def test_lines_that_are_none_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(f'{line}\n{{"step": 1, "split": "train"}}\n', encoding="utf-8")
    with pytest.warns(UserWarning, match="line 1 is not a line of metrics"):
        assert read_metrics(tmp_path) == [{"step": 1, "split": "train"}]
