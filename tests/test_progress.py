"""Progress of long jobs: lines where there is no terminal, a bar where there is one."""

import io
import sys
import time
from collections.abc import Callable

import pytest

from maskweave.progress import _clock, progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed since the last look."""
    monkeypatch.delenv("RANK", raising=False)
    return lambda: capsys.readouterr().err


def test_a_line_every_ten_seconds_and_one_at_the_end(clock: Clock, printed: Callable[[], str]) -> None:
    with progress("train", 8, done=2) as bar:
        clock.now += 9.9
        bar.advance(loss=0.123456, learning_rate="auto")
        assert printed() == ""
        clock.now += 0.1
        bar.advance()
        assert printed() == "train: 4/8, loss 0.1235, learning rate auto, 0:10 elapsed, 0:20 left\n"
        clock.now += 9.9
        bar.advance(2, loss=2.0)
        clock.now += 0.1
        bar.advance()
        bar.say("a message [x]")
        bar.advance()
    assert printed().splitlines() == [
        "train: 7/8, loss 2, learning rate auto, 0:20 elapsed, 0:04 left",
        "a message [x]",
        "train: 8/8, loss 2, learning rate auto, 0:20 elapsed",
    ]


def test_the_last_line_comes_once(clock: Clock, printed: Callable[[], str]) -> None:
    with progress("label", 1) as bar:
        clock.now += 10
        bar.advance()
    assert printed() == "label: 1/1, 0:10 elapsed\n"


def test_without_new_items_nothing_is_known_of_the_time_left(clock: Clock, printed: Callable[[], str]) -> None:
    with progress("label", 5, done=3):
        clock.now += 61
    with progress("read", 0):
        pass
    assert printed() == "label: 3/5, 1:01 elapsed\nread: 0/0, 0:00 elapsed\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_jobs_and_other_processes_show_nothing(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    for rank, quiet in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        with progress("train", 2, quiet=quiet) as bar:
            bar.advance()
            bar.say("a message")
        assert bar.done == 1
    assert shown.getvalue() == ""


def test_a_bar_on_a_terminal(printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is rich's own; the numbers and texts are ours."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress("train [all]", 9, done=3) as bar:
        assert bar._bar.live.is_started
        (task,) = bar._bar.tasks
        assert (task.completed, task.total) == (3, 9)
        bar.say("a message [x]")
        bar.advance(2, loss=0.5, step="[y]")
        assert (task.completed, task.fields["info"]) == (5, "loss 0.5, step [y]")
        bar._bar.refresh()
    assert not bar._bar.live.is_started
    for text in ("train [all]", "3/9", "5/9", "loss 0.5, step [y]", "a message [x]", "left"):
        assert text in terminal.getvalue()
    assert "elapsed" not in terminal.getvalue()


def test_an_error_ends_it_too(clock: Clock, printed: Callable[[], str]) -> None:
    with pytest.raises(RuntimeError), progress("train", 2) as bar:
        bar.advance()
        raise RuntimeError
    assert printed() == "train: 1/2, 0:00 elapsed, 0:00 left\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (90_061, "25:01:01"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert _clock(seconds) == text
