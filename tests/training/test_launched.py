"""Commands in processes that a launcher started together: the result is that of one process, and an error in one ends all."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_parts import contents
from launched import command_line, free_port, losses, pids, stored, torchrun, wait_for, weights, write_recipe
from PIL import Image
from small_bundle import m3ae_bundle, save

from maskweave.cli.main import main
from maskweave.data.export import export
from maskweave.data.folders import import_folders
from maskweave.files import write_yaml
from maskweave.label.derive import label
from maskweave.modality.catalogs import load_catalog
from maskweave.retrieve.index import Index
from maskweave.synthetic.scenes import Scenes
from maskweave.training.pipeline import claim, make_tokens
from maskweave.training.recipe import load_recipe
from maskweave.training.tokenizers import train_tokenizers


def write_transfer(folder: Path, start: Path, target: str) -> Path:
    path = folder / "transfer.yaml"
    data, train = "{source: scenes, samples: 16, validation: 8}", "{steps: 3, batch_size: 4, log_every: 1}"
    path.write_text(
        f"start: {start}\ninputs: [rgb]\ntarget: {target}\ndata: {data}\nhead: {{width: 16}}\ntrain: {train}\n",
        encoding="utf-8",
    )
    return path


def test_a_run_under_torchrun_is_that_of_one_process(tmp_path: Path) -> None:
    path, folder = write_recipe(tmp_path), tmp_path / "two"
    out, err = (started := torchrun(2, "run", str(path), "--out", str(folder))).communicate(timeout=300)
    assert started.returncode == 0, err
    assert out.count("report: ") == 1 and out.count("caption") >= 1 and (folder / "report.html").is_file()
    assert err.count("train model: 4/4") == 1, "only the first process shows its progress"
    recipe = load_recipe(write_recipe(tmp_path, accumulate=2))
    alone = tmp_path / "one"
    catalog = claim(recipe, alone)
    train_tokenizers(recipe, catalog, alone)
    make_tokens(recipe, catalog, alone)
    assert stored(folder) == stored(alone)
    assert len(losses(folder)) == 4 and not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_teachers_under_torchrun_make_the_labels_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function, a chain, and labels that are dropped for their confidence or cannot be computed."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1] / 'label'}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "label"))
    text = {"kind": "sequence", "vocabulary": "text", "max_tokens": 32, "value": {"type": "text"}}
    picture = {"id": 1, "kind": "patches", "grid": [4, 4], "value": {"type": "image", "size": [16, 16], "channels": 3}}
    vectors = {"kind": "vectors", "max_tokens": 8, "value": {"type": "vectors", "channels": 2}}

    def by(function: str, source: str = "rgb", **more: Any) -> dict[str, Any]:
        return {"derive": {"from": source, "by": "teacher", "model": f"python: own_teachers:{function}", **more}}

    entries = {
        "rgb": picture,
        "words": {"id": 2, **text, **by("unsure_of_tall", confidence={"drop_below": 0.5})},
        "t5": {"id": 3, **vectors, **by("letters", "words")},
        "wide": {"id": 4, **text, **by("wide_only")},
    }
    vocabulary = {"size": 400, "sentinels": 4, "values": {"v0": 64}}
    write_yaml(tmp_path / "mine.yaml", {"vocabularies": {"text": vocabulary}, "modalities": entries})
    (tmp_path / "in" / "rgb").mkdir(parents=True)
    for n in range(9):
        shape = (20, 30, 3) if n % 2 else (30, 20, 3)
        Image.fromarray(np.full(shape, 20 * n, np.uint8)).save(tmp_path / "in" / "rgb" / f"{n}.png")
    for name in ("one", "two"):
        import_folders(tmp_path / "in", tmp_path / name, load_catalog(str(tmp_path / "mine.yaml")), shard_size=2)
    words = ["label", str(tmp_path / "two"), "--catalog", str(tmp_path / "mine.yaml")]
    out, err = (started := torchrun(2, *words, "--limit=0.6", "--device=cpu", "--allow-code")).communicate(timeout=120)
    assert started.returncode == 0, err
    report = label(tmp_path / "one", load_catalog(str(tmp_path / "mine.yaml")), allow_code=True, limit=0.6)
    assert report.labels == {"words": 4, "t5": 4, "wide": 4} and report.low["words"] == 5 and len(report.faults) == 5
    assert out.strip() == str(report).replace(str(tmp_path / "one"), str(tmp_path / "two")).strip()
    one, two = ({k: v for k, v in contents(tmp_path / name).items() if k.endswith(".tar")} for name in ("one", "two"))
    assert one == two and len(one) == 5 + 3 * 4, "the last shard has one picture, which is tall"


FAILING = """
import os, sys
from maskweave.cli.main import main
from maskweave.data import importing
from maskweave.errors import FullDisk
if os.environ["RANK"] == "1":
    def full(*_):
        raise FullDisk("no space left on the disk of process 1")
    importing.Tars.add = full
sys.exit(main(sys.argv[1:]))
"""


def start_ranks(code: str, folder: Path) -> "list[subprocess.Popen[str]]":
    """Starts an import in two processes, without torchrun."""
    (folder / "t.csv").write_text("title,n\n" + "".join(f"number {i},{i}\n" for i in range(8)), encoding="utf-8")
    options = ["--shard-size=2", "--fields={caption: title}"]
    words = [sys.executable, "-c", code, "data", "import", str(folder / "t.csv"), str(folder / "out"), *options]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(words, env={**shared, "RANK": str(r)}, stderr=subprocess.PIPE, text=True) for r in range(2)
    ]


def test_an_error_in_one_process_is_told_once_and_ends_all(tmp_path: Path) -> None:
    """Also without torchrun, as with srun: the first process holds the store."""
    ranks = start_ranks(FAILING, tmp_path)
    errors = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], errors
    assert "".join(errors).count("maskweave data import: no space left on the disk of process 1\n") == 1, errors
    assert "Traceback" not in "".join(errors), errors
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.slow
def test_kills_and_stops_in_all_stages_end_in_the_same_model(tmp_path: Path) -> None:
    number, steps = 4, 12
    path = write_recipe(tmp_path, steps)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    _, err = (started := torchrun(number, "run", str(path), "--out", str(whole))).communicate(timeout=600)
    assert started.returncode == 0, err
    moments: list[tuple[int, Callable[[], bool]]] = [
        (0, lambda: (folder / "tokenizers" / "depth").exists()),
        (2, lambda: (folder / "tokens" / "train" / "samples").exists()),
        (1, lambda: len(losses(folder)) > 0),
        (0, lambda: any((folder / "checkpoints").glob(".*")) or len(losses(folder)) > 6),
        (3, lambda: len(losses(folder)) > 8),
    ]
    for rank, reached in moments:
        started = torchrun(number, "run", str(path), "--out", str(folder))
        wait_for(started, lambda reached=reached: reached() and len(pids(folder, number)) == number)
        found = pids(folder, number)
        os.kill(found[rank], signal.SIGKILL)
        begin = time.monotonic()
        _, err = started.communicate(timeout=120)
        assert started.returncode == 1 and time.monotonic() - begin < 45, err
        assert not [pid for pid in found if str(folder).encode() in command_line(pid)], "all processes have ended"
    started = torchrun(number, "run", str(path), "--out", str(folder))
    wait_for(started, lambda: len(pids(folder, number)) == number)
    stopped = pids(folder, number)[2]
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(15)
    os.kill(stopped, signal.SIGCONT)
    _, err = started.communicate(timeout=600)
    assert started.returncode == 0, err
    assert stored(folder) == stored(whole) and weights(folder) == weights(whole)
    assert losses(folder) == losses(whole)


SILENT = """
import os, signal, sys
from maskweave.cli.main import main
from maskweave.data import importing
from maskweave.training import launch
launch.BEAT, launch.LOOK_EVERY, launch.MOST_SILENT = 0.1, 1, 20
if os.environ["RANK"] == "1":
    importing.Tars.add = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_process_that_shows_no_sign_of_life_ends_the_others(tmp_path: Path) -> None:
    ranks = start_ranks(SILENT, tmp_path)
    try:
        error = ranks[0].communicate(timeout=60)[1]
    finally:
        ranks[1].kill()
    assert ranks[0].returncode == 1 and "process 1 has shown no sign of life for" in error


@pytest.mark.slow
def test_a_stop_reaches_all_processes_and_the_checkpoint_is_written(tmp_path: Path) -> None:
    """Launchers send the signal to all processes, also to those that prepare batches."""
    path, folder = write_recipe(tmp_path, 1000), tmp_path / "run"
    started = torchrun(2, "run", str(path), "--out", str(folder), "--train.workers", "1")
    wait_for(started, lambda: len(losses(folder)) > 3)
    os.kill(started.pid, signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert err.count("maskweave run: stopped after step ") == 1, err
    assert "run the same command again to resume" in err
    step = int(err.split("stopped after step ")[1].split()[0])
    assert (folder / "checkpoints" / f"step-{step:08d}" / "state.json").is_file()


@pytest.mark.slow
def test_each_stage_under_torchrun_gives_the_files_of_one_process(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    files = export(Scenes(load_catalog("photos").subset(["rgb"]), 12, 0), load_catalog("photos"), tmp_path / "files")
    features = tmp_path / "features.yaml"
    features.write_text(
        "catalog: scenes-global\nmodalities: [rgb, caption, global]\n"
        "data: {source: scenes, sidecar: SIDECAR, samples: 12, validation: 4, shard_size: 5}\n",
        encoding="utf-8",
    )
    encoder = str(save(m3ae_bundle(width=128), tmp_path / "m3ae"))
    transfer = write_transfer(tmp_path, tmp_path / "two" / "run", target="depth")

    def commands(out: Path) -> list[list[str]]:
        run, data = str(out / "run"), str(out / "data")
        return [
            *([stage, str(path), "--out", run] for stage in ("tokenizer", "tokenize", "train")),
            ["evaluate", run],
            ["report", run],
            ["probe", run, "scenes", "--samples=24", "--validation=8", "--inputs=rgb", "--target=metadata", "--label=object_count", "--catalog=scenes"],
            ["retrieve", "index", run, "scenes", f"--out={out / 'index'}", "--samples=20", "--shard-size=4"],
            ["data", "import", str(files), data, "--catalog=photos", "--shard-size=5"],
            ["data", "label", data, "--catalog=photos"],
            ["data", "features", str(out / "features.yaml"), f"--encoder={encoder}", "--modality=global", "--from=rgb"],
            ["transfer", str(transfer), f"--out={out / 'transfer'}"],
        ]  # fmt: skip

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "features.yaml").write_text(
            features.read_text(encoding="utf-8").replace("SIDECAR", str(tmp_path / name / "sidecar")), encoding="utf-8"
        )
    for alone, together in zip(commands(tmp_path / "one"), commands(tmp_path / "two"), strict=True):
        out, err = (started := torchrun(2, *together)).communicate(timeout=300)
        assert started.returncode == 0 and len(out.strip()) > 0, err
        if together[0] in ("tokenizer", "tokenize", "data"):
            assert main(alone) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert stored(two / "run") == stored(one / "run")
    assert contents(two / "sidecar") == contents(one / "sidecar")
    tars = [{k: v for k, v in contents(folder / "data").items() if k.endswith(".tar")} for folder in (one, two)]
    assert tars[0] == tars[1] and len(tars[0]) == 12, "records of labels hold the times of their pictures' files"
    assert len(Index(two / "index")) == 20
    for made in ("run/evaluation.json", "run/report.html", "run/probe.json", "transfer/evaluation.json"):
        assert (two / made).is_file(), made
    again = shutil.copytree(two / "run", tmp_path / "again")
    for words in commands(tmp_path)[3:6]:
        assert main([word.replace(str(tmp_path / "run"), str(again)) for word in words]) == 0
    for made in ("evaluation.json", "probe.json"):
        assert (again / made).read_text(encoding="utf-8") == (two / "run" / made).read_text(encoding="utf-8"), (
            "the scores of one process"
        )
