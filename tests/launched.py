"""Runs in processes that torchrun starts, and what they leave behind."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from maskweave.training.metrics import read_metrics

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
    path.write_text(RECIPE.replace("STEPS", str(steps)).replace("ACCUMULATE", str(accumulate)), encoding="utf-8")
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
