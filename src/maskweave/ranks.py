"""Processes that a launcher such as torchrun started together, as the environment describes them; and the part of a job that each one does."""

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass

from maskweave.errors import MaskweaveError, shown

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables of a launcher that helper processes must not see; those of torchrun start with one of `PREFIXES`, too."""
PREFIXES = ("GROUP_", "ROLE_", "TORCHELASTIC_")
FINISH = "finish"


def rank() -> int:
    """Number of this process among those that were launched together; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes that were launched together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the first one, which writes files and speaks."""
    return rank() == 0


def processes_of(settings_processes: int) -> int:
    """Returns the number of processes that will train together: those that a launcher started, else `train.processes`."""
    return int(os.environ.get("WORLD_SIZE", settings_processes))


def forget_launcher(environment: MutableMapping[str, str]) -> None:
    """Removes a launcher's variables: a helper that sees them would join the process group in its parent's place."""
    for name in [n for n in environment if n in LAUNCHER or n.startswith(PREFIXES)]:
        del environment[name]


@dataclass(frozen=True)
class JobPart:
    """One of `count` parts of a job over shards. A part writes its shards; whoever finds all shards written finishes the job.

    Parts need no connection: they may run at any time, in any order, die, and be repeated. Part `index` has the shards index, index + count, …;
    with a count of 0, no shard at all: it only finishes what the other parts have written.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "JobPart":
        """Reads `I/N`, with I from 0 to N - 1, or `finish`.

        Raises:
            MaskweaveError: the text is neither.
        """
        if text == FINISH:
            return ONLY_FINISH
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if found is None or not int(found[1]) < int(found[2]):
            raise MaskweaveError(
                f"--part is {shown(text)}; expected I/N with I from 0 to N - 1, such as 0/8 to 7/8, or {FINISH!r}"
            )
        return cls(int(found[1]), int(found[2]))

    def mine(self, items: range) -> range:
        """Returns this part's share of a range."""
        return items[self.index :: self.count] if self.count else items[:0]

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    def left(self, left: int, total: int, what: str) -> str:
        """A line about the shards that other parts have not written yet; empty if none is left, or if the others were launched together with this one.

        Raises:
            MaskweaveError: shards are left, but this part is to finish the job.
        """
        if left and not self.count:
            raise MaskweaveError(
                f"{what}: {left:,} of {total:,} shards are not finished; run the parts that are missing, then this command again"
            )
        if not left or world() > 1:
            return ""
        return f"{what}: part {self.index}/{self.count} is done; {left:,} of {total:,} shards are left to other parts, the last of which finishes"


WHOLE, ONLY_FINISH = JobPart(0, 1), JobPart(0, 0)


def own_part() -> JobPart:
    """The part of a job of this process among those that were launched together; the whole job without a launcher."""
    return JobPart(rank(), world())
