"""Checks of jobs that are divided into parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskweave.errors import MaskweaveError
from maskweave.ranks import ONLY_FINISH, WHOLE, JobPart


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check_parts(job: Callable[[Path, JobPart], Any], root: Path) -> Any:
    """Does a job with three shards in parts that come in any order and repeat, and compares the files with those of one process.

    Args:
        job: does a part of the job into a folder, as often as it is called.

    Returns:
        what the last part returned.
    """
    job(root / "whole", WHOLE)
    parts = root / "parts"
    for part in (JobPart(2, 3), JobPart(2, 3), JobPart(1, 2)):
        job(parts, part)
        with pytest.raises(MaskweaveError, match=r"[12] of 3 shards are not finished; run the parts that are missing"):
            job(parts, ONLY_FINISH)
    last = job(parts, JobPart(0, 2))
    assert contents(parts) == contents(root / "whole")
    return last
