"""Nothing depends on times of files: clocks jump, and copies and archives set times."""

import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from maskweave.cli.main import main
from maskweave.data.folders import import_folders
from maskweave.modality.catalogs import load_catalog


def scatter_times(folder: Path, seed: int) -> None:
    """Sets random times, past and future, for all files and folders."""
    rng = random.Random(seed)
    for path in (folder, *folder.rglob("*")):
        when = rng.choice([0.0, 1e8, 1.7e9, 3e9, 4e9]) + rng.random()
        os.utime(path, (when, when))


@pytest.mark.parametrize("seed", range(2))
def test_training_further_gives_the_further_model(tiny_run: Path, tiny_recipe: Path, tmp_path: Path, seed: int) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = (run / "model" / "model.safetensors").read_bytes()
    scatter_times(run, seed)
    words = ["train", str(tiny_recipe), "--out", str(run)]
    assert main(words) == 0
    assert (run / "model" / "model.safetensors").read_bytes() == before
    assert main([*words, "--train.steps", str(41 + seed)]) == 0
    after = (run / "model" / "model.safetensors").read_bytes()
    assert after != before
    shutil.rmtree(run / "model")
    assert main([*words, "--train.steps", str(41 + seed)]) == 0
    assert (run / "model" / "model.safetensors").read_bytes() == after


def test_a_finished_run_stays_finished(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    scatter_times(run, 3)
    report = (run / "report.html").read_bytes()
    assert main(["run", str(tiny_recipe), "--out", str(run)]) == 0
    assert "already finished" in capsys.readouterr().out and (run / "report.html").read_bytes() == report


@pytest.mark.parametrize("seed", range(3))
def test_a_repeated_import_notices_a_change_that_keeps_size_and_time(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    root = tmp_path / "in"
    (root / "depth").mkdir(parents=True)
    for i in range(6):
        np.save(root / "depth" / f"{i}.npy", np.full((4, 4), i + 1, np.float32))
    catalog = load_catalog("scenes")
    assert import_folders(root, tmp_path / "out", catalog, shard_size=2).kept == 0
    assert import_folders(root, tmp_path / "out", catalog, shard_size=2).kept == 3
    number = rng.randrange(6)
    path = root / "depth" / f"{number}.npy"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<f", 9.5)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert import_folders(root, tmp_path / "out", catalog, shard_size=2).kept == 2
    fresh = tmp_path / "fresh"
    import_folders(root, fresh, catalog, shard_size=2)
    for tar in sorted(fresh.rglob("*.tar")):
        assert tar.read_bytes() == (tmp_path / "out" / tar.relative_to(fresh)).read_bytes()
