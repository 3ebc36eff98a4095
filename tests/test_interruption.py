"""Ctrl-C while processes are started: ignored in the main thread, and left alone in others, which cannot set handlers."""

import signal
import threading

from maskweave.interruption import ignore_sigint


def test_ctrl_c_is_ignored_only_inside() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ignore_sigint():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_change_no_handler() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def body() -> None:
        with ignore_sigint():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]
