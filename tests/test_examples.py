"""The scripts in `examples/` that need only the bundle that ships run as they are, from any folder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("script", "pictures"), [("any_to_any.py", 3), pytest.param("twelve_requests.py", 13, marks=pytest.mark.slow)]
)
def test_it_draws_what_it_says(script: str, pictures: int, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sheets = [
        path for path in (tmp_path / "runs/examples").rglob("*.png") if script[0] == "t" or path.name == "sheet.png"
    ]
    assert len(sheets) == pictures
    for path in sheets:
        assert np.asarray(Image.open(path)).std() > 10, f"{path}: nothing is drawn"
    assert str(Path("runs/examples")) in done.stdout
