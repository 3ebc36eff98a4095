"""Ctrl-C and SIGTERM: the first asks, the second acts; ignored while processes are started; other threads cannot set handlers."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from maskweave.interruption import StopSignal, ignore_sigint


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that reach the usual handlers, which are replaced."""
    found: list[int] = []

    def note(number: int, frame: Any) -> None:
        found.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts(number: signal.Signals, heard: list[int]) -> None:
    with StopSignal() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked and heard == []
        os.kill(os.getpid(), number)
        assert stop.asked and heard == [number]
    os.kill(os.getpid(), number)
    assert heard == [number] * 2


def test_the_usual_handlers_come_back(heard: list[int]) -> None:
    before = [signal.getsignal(number) for number in StopSignal.SIGNALS]
    with StopSignal() as stop:
        assert all(signal.getsignal(number) not in before for number in StopSignal.SIGNALS)
    assert [signal.getsignal(number) for number in StopSignal.SIGNALS] == before and not stop.asked


def test_a_signal_that_is_ignored_stays_ignored(heard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_is_ignored_only_inside(heard: list[int]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with ignore_sigint():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_change_no_handler() -> None:
    before, seen = [signal.getsignal(number) for number in StopSignal.SIGNALS], []

    def body() -> None:
        with ignore_sigint(), StopSignal() as stop:
            seen.append([signal.getsignal(number) for number in StopSignal.SIGNALS])
        seen.append(stop.asked)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before, False]
