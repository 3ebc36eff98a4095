"""The metrics of a run without those that depend on clock and machine."""

from pathlib import Path
from typing import Any

from maskweave.training.metrics import read_metrics

MEASURED = ("second", "memory", "peak")


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that a repeated run writes again, bit for bit."""
    return [timeless(line) for line in read_metrics(folder)]


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if not any(word in k for word in MEASURED)}
