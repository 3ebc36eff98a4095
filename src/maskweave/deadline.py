"""A time limit of work that gives one result at its end: it gives up between two of its parts, such as passes of the model or blocks of vectors."""

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar

from maskweave.errors import MaskweaveError

_end: ContextVar[float] = ContextVar("end of the time", default=math.inf)


class OutOfTime(MaskweaveError):
    """The work took longer than its time limit."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Context in which `check_time` gives up after so many seconds. It does not hold in other threads."""
    before = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(before)


def check_time() -> None:
    """Raises:
    OutOfTime: the time of the `time_limit` around is over.
    """
    if time.monotonic() > _end.get():
        raise OutOfTime("the time is over before there is a result; ask for less, or allow more time")
