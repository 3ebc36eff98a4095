"""The errors a user can mend. Each message says what was found, what was expected and what to do."""

import reprlib


class MaskweaveError(ValueError):
    """Bad input, in one clear message; the command line prints it without a traceback."""


class BadSample(MaskweaveError):
    """One sample that cannot be used. Long jobs skip and count these, and stop when there are too many."""


class FullDisk(MaskweaveError):
    """The disk filled up while writing; nothing half-written remains."""


def shown(value: object, limit: int = 80) -> str:
    """A value in a message, cut short."""
    text = reprlib.repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
