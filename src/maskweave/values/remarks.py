"""Remarks: what reading changed about a value without refusing it, such as clipping or compositing.

Whoever reads many values listens, counts the remarks and reports them; otherwise they are ignored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def remark(text: str) -> None:
    """Reports a change of the value that is being read, in the same words for each such value, so that they can be counted."""
    listener = _listener.get()
    if listener is not None:
        listener(text)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Context in which `listener` gets all remarks of this thread."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)
