"""Long jobs skip unusable samples, count them, name them at the end, and stop when there are too many."""

from collections.abc import Sequence
from pathlib import Path

from maskweave.errors import MaskweaveError
from maskweave.files import read_json_lines, remove, write_json_lines

SKIPPED = ".skipped.jsonl"
"""Ending of the files beside shards that name their skipped samples, one [key, reason] a line. Records keep only the count."""

FIRST_CHECK = 100
"""A share of fewer samples says little, so a running job is not stopped before this many were seen."""


class ErrorBudget:
    """The samples a job had to skip.

    Args:
        limit: largest share of bad samples, 0 to 1. It is checked once at least 100 samples were seen, and at the end, where even one bad
            sample out of a few can be too many.

    Raises:
        MaskweaveError: limit is not from 0 to 1.
    """

    def __init__(self, limit: float = 0.01):
        if not 0 <= limit <= 1:
            raise MaskweaveError(f"the limit of skipped samples is a share from 0 to 1, found {limit}")
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
        """Stop the job if too many samples are bad; call it as the job goes, and with `finished` at its end.

        Raises:
            MaskweaveError: the share of bad samples exceeds the limit; names the first five and their faults.
        """
        if len(self.skipped) > self.limit * self.seen and (finished or self.seen >= FIRST_CHECK):
            raise MaskweaveError(
                f"{len(self.skipped)} of {self.seen} samples are unusable, more than the limit of {self.limit:.3g} ({self.limit:.1%}):\n"
                f"{named(self.skipped, 5)}\nMend or remove them, or raise the limit, then start the same command again; finished shards are kept"
            )

    def summary(self) -> str:
        """One line of counts, then the first 20 skipped samples by name; empty if there are none."""
        if not self.skipped:
            return ""
        return f"skipped {len(self.skipped)} of {self.seen} samples:\n{named(self.skipped)}"


def named(skipped: Sequence[tuple[str, str]], most: int = 20) -> str:
    """A line for each of the first skipped samples, name and reason, and how many more there are."""
    lines = [f"  {key}: {reason}" for key, reason in skipped[:most]]
    if len(skipped) > most:
        lines.append(f"  … and {len(skipped) - most} more")
    return "\n".join(lines)


def write_skipped(path: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """Write names and reasons to a file of their own; none: no file."""
    if skipped:
        write_json_lines(path, skipped)
    else:
        remove(path)


def read_skipped(path: Path, count: int) -> list[tuple[str, str]]:
    """What `write_skipped` wrote.

    Args:
        count: how many the record says there are; where the file is lost or damaged, so many are named "?".
    """
    try:
        found = [(str(key), str(reason)) for key, reason in read_json_lines(path)] if count else []
    except (MaskweaveError, OSError, ValueError, TypeError):
        found = []
    return found if len(found) == count else [("?", f"{path} is lost or damaged")] * count
