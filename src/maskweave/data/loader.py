"""What torch's loaders read, from processes that may die: the system kills one that takes too much memory."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader

from maskweave.errors import MaskweaveError, died


def items(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yields the items of a loader.

    Raises:
        MaskweaveError: one of its processes died.
    """
    iterator: Any = iter(loader)
    watch = _Watch(iterator)
    for _ in range(len(loader)):
        with _at_the_end_of_a_child(watch.interrupt):
            watch.check()
            try:
                item = next(iterator)
            except Exception:  # torch's for a dead process, or one of a message that breaks off
                watch.check(seconds=1.0)
                raise
        yield item


class _Watch:
    """Looks whether a process of a loader has died. Torch's own watch raises an error wherever this process is at that moment, such as in a destructor."""

    def __init__(self, iterator: Any):
        self._iterator = iterator
        self._error: MaskweaveError | None = None
        self._processes = getattr(iterator, "_workers", [])
        if self._processes:
            _remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False

    def check(self, seconds: float = 0.0) -> None:
        """Raises an error if a process has died, or dies within so many seconds."""
        for process in self._processes if seconds else ():
            process.join(seconds / len(self._processes))
        if error := self._find():
            raise error from None

    def interrupt(self) -> None:
        """Raises the error for the first process that died, once."""
        if self._error is None and (error := self._find()):
            raise error

    def _find(self) -> MaskweaveError | None:
        codes = [process.exitcode for process in self._processes if process.exitcode is not None]
        if codes and self._error is None:
            self._error = died("a process that reads samples", codes[0])
            self._iterator._shutdown = True  # torch would wait for locks, which the dead process may hold
            for process in self._processes:
                process.kill()
        return self._error


@contextlib.contextmanager
def _at_the_end_of_a_child(function: Callable[[], None]) -> Iterator[None]:
    """Context that calls a function when a child process ends, also while this thread waits. Only in the main thread, and not on Windows."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)

    def handle(*arguments: Any) -> None:
        function()
        if callable(before):
            before(*arguments)

    signal.signal(signal.SIGCHLD, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
