"""Random kills of processes under torchrun end in the same files."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_ten_random_kills() -> None:
    script = Path(__file__).with_name("kill.py")
    made = subprocess.run([sys.executable, str(script), "--kills", "10"], capture_output=True, text=True, timeout=1200)
    assert made.returncode == 0 and "10 kills; everything is bit-equal" in made.stdout, made.stderr
