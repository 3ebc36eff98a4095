"""Random kills of processes under torchrun end in the same files."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(2, 10), (4, 4)])
def test_random_kills(processes: int, kills: int) -> None:
    """Sums over four processes depend on their order, which a resumed run must keep; those over two do not."""
    words = [str(Path(__file__).with_name("kill.py")), f"--kills={kills}", f"--processes={processes}"]
    made = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=1800)
    assert made.returncode == 0 and f"{kills} kills; everything is bit-equal" in made.stdout, made.stderr
