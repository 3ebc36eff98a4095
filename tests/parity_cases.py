"""Where the reference cases of the parity tests are: the folder in MASKWEAVE_PARITY, by default ../shared/parity beside the repository."""

import os
from collections.abc import Collection
from pathlib import Path

VARIABLE = "MASKWEAVE_PARITY"
FOLDER = Path(os.environ.get(VARIABLE) or Path(__file__).parents[1] / ".." / "shared" / "parity").resolve()


def cases_in(folder: Path) -> list[Path]:
    """Folders of cases, in order."""
    return [path.parent for path in sorted(folder.glob("*/case.json"))]


def summary(folder: Path, names: Collection[str], ran: Collection[str]) -> str:
    """One line for the end of a test run."""
    if not names:
        return f"PARITY NOT TESTED: no reference cases in {folder}; set {VARIABLE} to their folder"
    left = sorted(set(names) - set(ran))
    summary = f"parity: {len(ran)} of {len(names)} reference cases in {folder} ran"
    return summary + (f"; not {', '.join(left)}" if left else "")
