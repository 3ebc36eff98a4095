"""Processes on two "nodes", network namespaces whose link is cut, and on disks of which one is full. Also which process is stopped or killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launched import command_line, free_port, losses, stored, wait_for, weights, write_recipe

from maskweave.cli.main import main
from maskweave.training.checkpoints import latest

NODES = ("maskweave-a", "maskweave-b")
LINKS = ("mw-a", "mw-b")
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PROGRAM = """\
import errno, os, sys
from maskweave import files
from maskweave.cli.main import main
from maskweave.training import launch
launch.BEAT, launch.LOOK_EVERY, launch.MOST_SILENT, launch.GRACE = 0.2, 1, 50, 1.0
full = os.environ.get("FULL_RANK")
if full == os.environ["RANK"]:
    left, sync = int(os.environ["FULL_AFTER"]), files.make_durable
    def no_space(path):
        global left
        left -= "tokens" in str(path)
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(path)
    files.make_durable = no_space
sys.exit(main(sys.argv[1:]))
"""
"""Ten seconds of silence mean that a process is lost, instead of ten minutes."""


def ip(*words: str) -> bool:
    return not subprocess.run(["ip", *words], capture_output=True).returncode


@pytest.fixture
def nodes() -> Iterator[None]:
    """Two network namespaces with a link between them."""
    if shutil.which("ip") is None:
        pytest.skip("NOT TESTED: a cut between nodes, because iproute2 is not installed (apt-get install iproute2)")
    made = [ip("netns", "add", node) for node in NODES]
    try:
        if not all(made) or not ip("link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1]):
            pytest.skip("NOT TESTED: a cut between nodes, because this user may not make network namespaces")
        for node, link, address in zip(NODES, LINKS, ADDRESSES, strict=True):
            assert ip("link", "set", link, "netns", node) and ip(
                "-n", node, "addr", "add", f"{address}/24", "dev", link
            )
            assert ip("-n", node, "link", "set", link, "up") and ip("-n", node, "link", "set", "lo", "up")
        yield
    finally:
        for node in NODES:
            ip("netns", "del", node)


def program(folder: Path) -> str:
    path = folder / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return str(path)


def start_node(number: int, port: int, program: str, *words: str) -> "subprocess.Popen[str]":
    """Starts torchrun with one process on a node."""
    launcher = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}", f"--master-addr={ADDRESSES[0]}"]
    return subprocess.Popen(
        ["ip", "netns", "exec", NODES[number], sys.executable, "-m", "torch.distributed.run", *launcher, f"--master-port={port}", program, *words],
        env={**os.environ, "GLOO_SOCKET_IFNAME": LINKS[number]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def ranks_of(folder: Path) -> dict[int, int]:
    """The process of each rank of a command on a folder."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(v.split(b"=", 1) for v in (path / "environ").read_bytes().split(b"\0") if b"=" in v)
        except OSError:
            continue
        if b"RANK" in variables and str(folder).encode() in command_line(int(path.name)):
            found.setdefault(int(variables[b"RANK"]), int(path.name))
    return found


def until(happened: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.1)
    return happened()


@pytest.mark.slow
def test_a_cut_between_nodes_ends_both_and_one_of_them_resumes(nodes: None, tmp_path: Path) -> None:
    path, folder, port = write_recipe(tmp_path, 400), tmp_path / "run", free_port()
    words = ("run", str(path), "--out", str(folder))
    both = [start_node(number, port, program(tmp_path), *words) for number in range(2)]
    try:
        wait_for(both[0], lambda: len(losses(folder)) > 6 and len(ranks_of(folder)) == 2)
        found = ranks_of(folder)
        ip("-n", NODES[0], "link", "set", LINKS[0], "down")
        began = time.monotonic()
        assert until(lambda: not any(str(folder).encode() in command_line(pid) for pid in found.values()))
        assert time.monotonic() - began < 100
    finally:
        for process in both:  # torchrun itself waits long for the other node
            os.killpg(process.pid, signal.SIGKILL)
    said = "".join("".join(process.communicate()) for process in both)
    assert "process 1 has shown no sign of life" in said or "the connection to the first process is lost" in said, said
    assert not re.search(r'File ".*/maskweave/', said), said  # torchrun may show where it failed itself
    done = latest(folder)
    assert done is not None
    step = int(done.name.removeprefix("step-"))
    last = ["--train.steps", str(step + 3), "--train.accumulate", "2"]  # one process takes the batches of two
    assert main([*words, *last]) == 0
    assert len(losses(folder)) == step + 3


@pytest.mark.slow
def test_a_disk_that_is_full_on_one_rank_ends_all_and_loses_nothing(tmp_path: Path) -> None:
    path, whole, folder = write_recipe(tmp_path), tmp_path / "whole", tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]

    def run(out: Path, **variables: str) -> tuple[int, str]:
        words = [*launcher, f"--master-port={free_port()}", program(tmp_path), "run", str(path), "--out", str(out)]
        done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stderr

    code, said = run(whole)
    assert code == 0, said
    for after in ("0", "2"):
        code, said = run(folder, FULL_RANK="1", FULL_AFTER=after)
        assert code == 1 and said.count("maskweave run: no space left while writing") == 1, said
        assert not list(folder.rglob("*.partial")) and not (folder / "model").exists()
    code, said = run(folder)
    assert code == 0, said
    assert stored(folder) == stored(whole) and weights(folder) == weights(whole) and losses(folder) == losses(whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_signal_to_one_rank_alone_writes_a_checkpoint_on_all(rank: int, tmp_path: Path) -> None:
    path, folder = write_recipe(tmp_path, 1000), tmp_path / "run"
    words = ["run", str(path), "--out", str(folder)]
    started = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", program(tmp_path), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(started, lambda: len(losses(folder)) > 3 and len(ranks_of(folder)) == 2)
    os.kill(ranks_of(folder)[rank], signal.SIGTERM)
    _, said = started.communicate(timeout=120)
    assert said.count("maskweave run: stopped after step ") == 1, said
    step = int(said.split("stopped after step ")[1].split()[0])
    assert (folder / "checkpoints" / f"step-{step:08d}" / "state.json").is_file()
    assert not ranks_of(folder)
