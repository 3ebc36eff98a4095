"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, say how to resume."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

from maskweave.errors import MaskweaveError


class Interrupted(MaskweaveError):
    """Ctrl-C or SIGTERM: a checkpoint was written, and the message says how to resume."""


class StopSignal:
    """While open, the first Ctrl-C or SIGTERM only sets `asked`; the second acts as usual.

    A signal that this process was started to ignore stays ignored.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._before = {
                n: signal.signal(n, self._ask) for n in self.SIGNALS if signal.getsignal(n) is not signal.SIG_IGN
            }
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *_: Any) -> None:
        self._restore()


@contextlib.contextmanager
def ignore_sigint() -> Iterator[None]:
    """Processes started in this context ignore Ctrl-C, which a terminal sends to all processes; their parent stops them instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
