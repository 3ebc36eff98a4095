"""Two commands at once on one folder: one does its work, the other says who is at work; nothing is lost."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Fork
from PIL import Image
from two_imports import Imports

from maskweave.cli.main import main

PATIENCE = 60.0
"""Seconds that an import may take."""


def is_refused(code: int, said: str, other: Fork) -> bool:
    """Whether an import says that another one is at work; otherwise it has ended well."""
    if code == 0:
        return False
    assert code == 1 and "is writing to this folder" in said and f"process {other.pid} on" in said, said
    assert "Traceback" not in said
    return True


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_an_import_into_a_folder_that_another_one_writes_to(
    seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    imports, written = Imports(tmp_path), random.Random(seed).randrange(1, 9)
    with capfd.disabled():  # the forks print to files
        first = imports.start(0)
        until = time.monotonic() + PATIENCE
        while len([*imports.out.rglob("*.tar")]) < written:
            assert time.monotonic() < until
            time.sleep(0.0005)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            for shift in (0, 4):
                assert is_refused(*imports.start(shift).wait(PATIENCE), first), "the first one is in the middle"
        finally:
            os.kill(first.pid, signal.SIGCONT)
        assert first.wait(PATIENCE)[0] == 0
        assert imports.has_all_of(0)
        assert imports.start(4).wait(PATIENCE)[0] == 0
        assert imports.has_all_of(4)


def test_two_imports_into_one_folder_at_random_moments(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    imports, rng, refused = Imports(tmp_path), random.Random(0), 0
    with capfd.disabled():
        for number in range(6):
            shutil.rmtree(imports.out, ignore_errors=True)
            first = imports.start(0)
            time.sleep(rng.uniform(0, 0.1) if number % 2 else rng.uniform(0, 0.004))
            second = imports.start(4)
            codes = [first.wait(PATIENCE), second.wait(PATIENCE)]
            lost = [is_refused(*codes[0], second), is_refused(*codes[1], first)]
            assert not all(lost), "one of them has the folder"
            refused += any(lost)
            assert imports.has_all_of(0 if lost[1] else 4)
    assert refused > 1, "they hardly met"


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
