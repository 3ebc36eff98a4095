"""Names of temporary files as killed processes leave them."""

from pathlib import Path

from maskweave import locks

NO_PROCESS = 2**22 + 1
"""Beyond the highest process id of Linux."""


def left_aside(
    target: Path, ending: str = "partial", process: int = NO_PROCESS, start: int = 1, machine: str = ""
) -> Path:
    """The name under which a process was writing `target`."""
    return target.parent / f".{target.name}.{machine or locks.machine()}.{process}.{start}.0123abcd.{ending}"
