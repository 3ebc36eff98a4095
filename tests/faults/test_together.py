"""Two commands at once on one folder: one does its work, the other says who is at work; nothing is lost."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.cli.main import main
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


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A folder that another process is writing to."""
    folder = tmp_path / "folder"
    code = f"import sys\nfrom maskweave.locks import lock\nwith lock({str(folder)!r}):\n    print('in', flush=True)\n    sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    yield folder
    process.communicate(timeout=60)


@pytest.mark.parametrize("more", [[], ["--tiles"]])
def test_two_generations_into_one_folder(
    tiny_run: Path, other: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = other.with_name("x.png")
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    words = ["generate", str(tiny_run), f"--input=rgb={picture}", "--target=depth", f"--out={other}", *more]
    assert main(words) == 1
    assert "is writing to this folder; wait until it has ended, or choose another folder" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == [".lock"]


def test_evaluation_and_report_of_a_run_that_is_written_to(
    tiny_run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, other, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in (other / "evaluation.json", other / "report.html")}
    probe = ["probe", str(other), "scenes", "--samples=24", "--validation=8", "--inputs=rgb", "--target=metadata", "--label=object_count", "--catalog=scenes"]  # fmt: skip
    for words in (
        ["evaluate", str(other)],
        ["report", str(other)],
        ["evaluate", str(other), "--suite=scenes"],
        probe,
        [*probe, "--fractions=0.5,1"],
    ):
        assert main(words) == 1
        assert "is writing to this folder" in capsys.readouterr().err, words
    assert before == {name: (other / name).read_bytes() for name in before}
    assert not [*other.glob("probe.json"), *other.glob("fractions.*")]


def test_evaluation_of_an_index_that_is_written_to(
    tiny_run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = other.with_name("index")
    words = ["retrieve", "index", str(tiny_run), "scenes", f"--out={index}", "--samples=4", "--views=rgb"]
    assert main(words) == 0
    shutil.copytree(index, other, dirs_exist_ok=True)
    assert main(["retrieve", "evaluate", str(other), "--query=rgb"]) == 1
    assert "is writing to this folder" in capsys.readouterr().err
    assert not (other / "recall.json").exists()


def test_two_transfers_with_shares_into_one_folder(
    tiny_run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = other.with_name("transfer.yaml")
    recipe.write_text(
        f"start: {tiny_run}\ninputs: [rgb]\ntarget: depth\ndata: {{source: scenes, samples: 16, validation: 8}}\n"
        "train: {steps: 2, batch_size: 4}\n",
        encoding="utf-8",
    )
    assert main(["transfer", str(recipe), f"--out={other}", "--fractions=0.5,1"]) == 1
    assert "is writing to this folder" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == [".lock"]


def test_what_is_generated_leaves_no_lock(tiny_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    words = ["generate", str(tiny_run), f"--input=rgb={picture}", "--target=depth", f"--out={tmp_path / 'out'}"]
    assert main(words) == 0 and main([*words, "--tiles"]) == 0
    assert (tmp_path / "out" / "schedule.yaml").exists() and not list((tmp_path / "out").glob(".*"))
