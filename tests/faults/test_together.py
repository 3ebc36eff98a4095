"""Two commands at once on one folder: one does its work, the other says who is at work; nothing is lost."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from maskweave.data.shards import Shards
from maskweave.modality.catalogs import load_catalog


def test_two_imports_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "depth").mkdir(parents=True)
    for i in range(150):
        np.save(tmp_path / "in" / "depth" / f"{i:03d}.npy", np.full((64, 64), 1 + i % 9, np.float32))
    words = [sys.executable, "-m", "maskweave", "data", "import", str(tmp_path / "in"), str(tmp_path / "out")]
    words += ["--catalog", "scenes", "--shard-size", "5"]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / ".lock").exists():
        assert first.poll() is None
        time.sleep(0.001)
    second = subprocess.run(words, capture_output=True, text=True)
    out, error = first.communicate(timeout=300)
    assert first.returncode == 0 and "150 samples in 30 shards" in out, error
    if second.returncode:
        assert f"process {first.pid} on" in second.stderr and "is writing to this folder" in second.stderr
        assert "Traceback" not in second.stderr
    else:  # it came after the first one had ended
        assert "30 kept" in second.stdout
    shards = Shards(tmp_path / "out", load_catalog("scenes"))
    assert [int(shards[i]["depth"][0, 0]) for i in range(150)] == [1 + i % 9 for i in range(150)]
    assert not list((tmp_path / "out").rglob("*.partial")) and not (tmp_path / "out" / ".lock").exists()
