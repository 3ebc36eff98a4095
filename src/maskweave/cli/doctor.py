"""The command `maskweave doctor`."""

from jsonargparse import ArgumentParser, Namespace

from maskweave.doctor import describe, examine


def doctor_arguments(parser: ArgumentParser) -> None:
    """It has none."""


def doctor(given: Namespace) -> None:
    print(describe(list(examine())))
