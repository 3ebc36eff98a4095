"""Metrics in metrics.jsonl and for TensorBoard, over what a crash or a hand may leave there."""

import math
import shutil
import threading
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


def test_tensorboard_shows_what_was_written(tmp_path: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for step, loss in ((0, 0.5), (2, 0.25)):  # the second goes on after step 2
        with MetricsLog(tmp_path, step) as log:
            for i in (1, 2, 3):
                log.write(step + i, "train", {"loss": loss + i, "rate": math.nan})
        next((tmp_path / "events").glob("events.out.tfevents.*")).rename(tmp_path / "events" / f"tfevents.{step}")
    events = loading.EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Tags()["scalars"] == ["train/loss", "train/rate"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (1, 1.5),
        (2, 2.5),
        (3, 1.25),
        (4, 2.25),
        (5, 3.25),
    ]
    assert all(math.isnan(e.value) for e in events.Scalars("train/rate"))


@pytest.mark.parametrize("name", ["events", ""])
def test_a_folder_that_vanishes_is_no_matter_of_a_thread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    threads = threading.active_count()
    with MetricsLog(tmp_path / "run", step=0) as log:
        assert threading.active_count() == threads, "a thread's error would be printed"
        log.write(1, "train", {"loss": 0.5})
        shutil.rmtree(tmp_path / "run" / name)
        for step in range(2, 30):
            log.write(step, "train", {"loss": 0.5})
    assert not faults
