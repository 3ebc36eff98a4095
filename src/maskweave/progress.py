"""Progress of long jobs: a bar with the time left on a terminal, otherwise a plain line every 10 seconds."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from maskweave.ranks import rank

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Progress of one job; created by `progress`."""

    def __init__(self, title: str, total: int, done: int, stream: TextIO | None):
        self.title, self.total, self.done = title, total, done
        self._stream: TextIO | None = stream
        self._bar: Any = None  # rich's, on a terminal
        self._task: Any = None
        self._start = self._last = time.monotonic()
        self._first = done
        self._printed: int | None = None
        self._info: dict[str, Any] = {}
        if stream is not None and stream.isatty():
            self._open_bar(stream)

    def advance(self, n: int = 1, **info: Any) -> None:
        """Record `n` more items as done. `info` is shown next to the count until a later call changes it."""
        self.done += n
        self._info.update(info)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, info=self._shown())
        elif self._stream is not None and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._print_line()

    def say(self, text: str) -> None:
        """Print a message without disturbing the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._stream is not None:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End the bar, or print the last line."""
        if self._bar is not None:
            self._bar.stop()
        elif self._stream is not None and self._printed != self.done:
            self._print_line()

    def _open_bar(self, stream: TextIO) -> None:
        from rich import progress as rich_progress
        from rich.console import Console

        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[info]}", markup=False),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(),
            console=Console(file=stream),
        )
        self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, info="")
        self._bar.start()

    def _print_line(self) -> None:
        now = time.monotonic()
        elapsed, new = now - self._start, self.done - self._first
        left = (
            f", {_clock(elapsed / new * (self.total - self.done))} left" if new > 0 and self.done < self.total else ""
        )
        shown = self._shown()
        text = f"{self.title}: {self.done}/{self.total}{', ' if shown else ''}{shown}, {_clock(elapsed)} elapsed{left}"
        print(text, file=self._stream, flush=True)
        self._last, self._printed = now, self.done

    def _shown(self) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
            for name, value in self._info.items()
        )


@contextlib.contextmanager
def progress(title: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Progress]:
    """Show a long job's progress on standard error while open.

    Args:
        title: what is being done.
        total: number of items to do.
        done: number of items that an earlier run completed.
        quiet: show nothing. Of processes that were launched together, only the first one shows its progress.
    """
    shown = Progress(title, total, done, None if quiet or rank() else sys.stderr)
    try:
        yield shown
    finally:
        shown.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
