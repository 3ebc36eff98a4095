"""Reading the parts of a sample: what is missing, unusable or changed is collected, and reported by whoever reads many samples."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from maskweave.errors import BadSample
from maskweave.values.remarks import listening

OnBad = Literal["part", "sample"]
"""What an unusable value drops: only itself, or its whole sample."""

Remarks = Counter[tuple[str, str]]
"""Number of values by modality and remark."""


@dataclass
class PartNotes:
    """What happened to the values of one or more samples."""

    dropped: dict[str, str] = field(default_factory=dict)
    """Why a value of the sample is unusable, by modality."""
    remarks: Remarks = field(default_factory=Counter)
    drops: bool = True
    """Whether unusable values are collected; otherwise they raise."""


_notes: ContextVar[PartNotes | None] = ContextVar("notes", default=None)


@contextmanager
def noting(bad: OnBad) -> Iterator[PartNotes]:
    """Context that collects what happens to the values that are read in this thread.

    Args:
        bad: with `sample`, an unusable value raises.
    """
    notes = PartNotes(drops=bad == "part")
    before = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(before)


def read_part(name: str, read: Callable[[], Any]) -> Any:
    """Returns the value of one modality that `read` returns; None if it is missing, or unusable in a context that drops such values.

    Raises:
        BadSample: it is unusable.
    """
    notes = _notes.get()
    if notes is None:
        return read()

    def count(text: str) -> None:
        notes.remarks[name, text] += 1

    try:
        with listening(count):
            return read()
    except BadSample as error:
        if not notes.drops:
            raise
        notes.dropped[name] = str(error)
        return None
