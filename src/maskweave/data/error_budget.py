"""Error budget of long jobs: unusable samples are skipped, counted and listed at the end; too many of them stop the job."""

from collections.abc import Sequence
from pathlib import Path

from maskweave.errors import MaskweaveError
from maskweave.files import read_json_lines, remove, write_json_lines

SKIPPED = ".skipped.jsonl"
"""Ending of the files that list the skipped samples of a shard, one [key, reason] per line. The shard's record has only their count."""

FIRST_CHECK = 100
"""A running job is not stopped before it has seen this many samples: the share of bad ones among fewer is not reliable."""


class ErrorBudget:
    """The skipped samples of a job.

    Args:
        limit: largest share of bad samples, 0 to 1. It is checked once 100 samples were seen, and again at the end. At the end, a single bad
            sample out of a few can exceed it.

    Raises:
        MaskweaveError: limit is not from 0 to 1.
    """

    def __init__(self, limit: float = 0.01):
        if not 0 <= limit <= 1:
            raise MaskweaveError(f"the limit of skipped samples must be a share from 0 to 1, found {limit}")
        self.limit = limit
        self.seen = 0
        self.skipped: list[tuple[str, str]] = []
        """Name and reason of each."""

    def good(self, count: int = 1) -> None:
        self.seen += count

    def bad(self, key: str, error: Exception | str) -> None:
        self.seen += 1
        self.skipped.append((key, str(error)))

    def check(self, finished: bool = False) -> None:
        """Stop the job if too many samples are bad. Call this during the job, and with `finished` at its end.

        Raises:
            MaskweaveError: the share of bad samples exceeds the limit. The message lists the first five and the reasons.
        """
        if len(self.skipped) > self.limit * self.seen and (finished or self.seen >= FIRST_CHECK):
            raise MaskweaveError(
                f"{len(self.skipped)} of {self.seen} samples are unusable, more than the limit of {self.limit:.3g} ({self.limit:.1%}):\n"
                f"{named(self.skipped, 5)}\nFix or remove them, or raise the limit, then run the same command again; finished shards are kept"
            )

    def summary(self) -> str:
        """One line with the counts, then the names and reasons of the first 20 skipped samples; empty if no sample was skipped."""
        if not self.skipped:
            return ""
        return f"skipped {len(self.skipped)} of {self.seen} samples:\n{named(self.skipped)}"


def named(skipped: Sequence[tuple[str, str]], most: int = 20) -> str:
    """One line with name and reason for each of the first `most` skipped samples, then the number of the others."""
    lines = [f"  {key}: {reason}" for key, reason in skipped[:most]]
    if len(skipped) > most:
        lines.append(f"  … and {len(skipped) - most} more")
    return "\n".join(lines)


def write_skipped(path: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """Write the names and reasons to `path`; without skipped samples, remove the file."""
    if skipped:
        write_json_lines(path, skipped)
    else:
        remove(path)


def read_skipped(path: Path, count: int) -> list[tuple[str, str]]:
    """Read the names and reasons that `write_skipped` wrote.

    Args:
        count: their number according to the record. If the file is missing or damaged, as many entries with the name "?" are returned.
    """
    try:
        skipped = [(str(key), str(reason)) for key, reason in read_json_lines(path)] if count else []
    except (MaskweaveError, OSError, ValueError, TypeError):
        skipped = []
    return skipped if len(skipped) == count else [("?", f"{path} is missing or damaged")] * count
