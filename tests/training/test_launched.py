"""Commands in processes that a launcher started together: the result is that of one process, and an error in one ends all."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from job_parts import contents
from safetensors.torch import load_file
from small_bundle import m3ae_bundle, save

from maskweave.cli.main import main
from maskweave.data.export import export
from maskweave.modality.catalogs import load_catalog
from maskweave.retrieve.index import Index
from maskweave.synthetic.scenes import Scenes
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import claim, make_tokens
from maskweave.training.recipe import load_recipe
from maskweave.training.tokenizers import train_tokenizers

RECIPE = """\
catalog: scenes
modalities: [rgb, tok_rgb, depth, caption]
data: {source: scenes, samples: 24, validation: 8, shard_size: 8}
tokenizers: {samples: 16, jobs: 2, train: {steps: 2, batch_size: 8}}
model: {width: 16, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 16, target_tokens: 16}}
train: {steps: STEPS, batch_size: 4, accumulate: ACCUMULATE, log_every: 1, checkpoint_every: 2, keep: 100}
evaluate: {samples: 2, requests: [{inputs: [rgb], targets: [caption]}], sheets: [{inputs: [rgb], targets: [depth]}]}
"""


def write_recipe(folder: Path, steps: int = 4, accumulate: int = 1) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("STEPS", str(steps)).replace("ACCUMULATE", str(accumulate)))
    return path


def write_transfer(folder: Path, start: Path, target: str) -> Path:
    path = folder / "transfer.yaml"
    data, train = "{source: scenes, samples: 16, validation: 8}", "{steps: 3, batch_size: 4, log_every: 1}"
    path.write_text(
        f"start: {start}\ninputs: [rgb]\ntarget: {target}\ndata: {data}\nhead: {{width: 16}}\ntrain: {train}\n"
    )
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(number: int, *words: str) -> "subprocess.Popen[str]":
    """Starts a command under torchrun."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={number}", f"--master-port={free_port()}"]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "maskweave", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def weights(folder: Path) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "model" / "model.safetensors").items()}


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if line["split"] == "train"]


def stored(folder: Path) -> dict[str, bytes]:
    found = [p for name in ("tokens", "tokenizers") for p in (folder / name).rglob("*") if p.is_file()]
    kept = [p for p in found if p.suffix in (".json", ".safetensors") and "checkpoints" not in p.parts]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in kept}


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


def test_an_error_in_one_process_is_told_once_and_ends_all(tmp_path: Path) -> None:
    """Also without torchrun, as with srun: the first process holds the store."""
    (tmp_path / "t.csv").write_text("title,n\n" + "".join(f"number {i},{i}\n" for i in range(8)))
    words = [
        "data",
        "import",
        str(tmp_path / "t.csv"),
        str(tmp_path / "out"),
        "--shard-size=2",
        "--fields={caption: title}",
    ]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", FAILING, *words], env={**shared, "RANK": str(r)}, stderr=subprocess.PIPE, text=True
        )
        for r in range(2)
    ]
    errors = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], errors
    assert "".join(errors).count("maskweave data import: no space left on the disk of process 1\n") == 1, errors
    assert "Traceback" not in "".join(errors), errors
    assert not (tmp_path / "out" / "index.json").exists()


def pids(folder: Path, number: int) -> list[int]:
    """The process of each rank of a command that writes to a folder."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            variables = dict(v.split(b"=", 1) for v in (path / "environ").read_bytes().split(b"\0") if b"=" in v)
        except OSError:
            continue
        if str(folder).encode() in words and b"maskweave" in words and b"RANK" in variables:
            found.setdefault(int(variables[b"RANK"]), int(path.name))
    return [found[r] for r in range(number)] if len(found) == number else []


def wait_for(started: "subprocess.Popen[str]", condition: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


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
        "data: {source: scenes, sidecar: SIDECAR, samples: 12, validation: 4, shard_size: 5}\n"
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
            features.read_text().replace("SIDECAR", str(tmp_path / name / "sidecar"))
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
