"""The daily benchmark: speeds of the main parts in about a minute, compared with a stored run of the same machine.

CPU seconds of one thread are measured, also of a process that a part starts, the least of several rounds, so that other jobs on the machine matter
little. The first row is a plain matrix product: if it is slower too, the machine is, and not the code. The first run on a machine is stored in
runs/bench; later ones are compared with it. A machine is its processor, cores, torch and Python.

make bench        or: python benchmarks/daily.py [--save] [--slower 1.25] [--rounds 3]

Exit code 1: a part takes more than `slower` times as long as before, relative to the product.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fourm
import generation
import m3ae
import masking
import numpy as np
import torch

import maskweave
from maskweave.files import read_json, write_aside
from maskweave.generate.bundle import load
from maskweave.generate.engine import Engine
from maskweave.generate.schedule import make_schedule
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import load_catalog
from maskweave.modality.decoding import Decoding
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.objectives.m3ae import M3AEObjective
from maskweave.studio.bounds import Bounds
from maskweave.studio.request import StudioRequest
from maskweave.studio.running import run
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.grid import GridTokenizer

ROOT = Path(__file__).parents[1]
PRODUCT = "matrix product 1024³"
STUDIO_START = """
from urllib.request import urlopen
from maskweave.studio.bounds import Bounds
from maskweave.studio.offered import Offered
from maskweave.studio.serve import serve
page = serve(Offered(["scenes"]), Bounds(), blocks=False)
assert urlopen(page.local_url).status == 200
page.close()
"""
Work = Callable[[], object]


def parts() -> Iterator[tuple[str, Work]]:
    """Yields the parts, each with the work that is measured."""
    torch.manual_seed(0)
    a = torch.randn(1024, 1024)
    yield PRODUCT, lambda: a @ a

    scenes = Scenes(load_catalog("scenes"), 64, seed=1)
    yield "16 scenes", lambda: [scenes[i] for i in range(16)]

    entries = masking.catalog()
    data, sampler = masking.columns(entries, np.random.default_rng(0)), MaskSampler(entries, MaskingConfig(128, 128))
    yield f"mask sampling, batch of {masking.BATCH}", lambda: sampler(data, np.random.default_rng(0))

    yield "4M training step, Ti, 7 modalities", fourm.training_step(load_catalog("4m-7"), "float32", "used rows")

    objective = M3AEObjective(M3AE(m3ae.CATALOG, M3AEConfig())).train()
    batch = m3ae.random_batch(32, 0.5, np.random.default_rng(0))
    yield "M3AE training step, 32 samples", lambda: m3ae.seconds(objective, batch, False)

    depth = GridTokenizer(load_catalog("scenes")["depth"]).eval()
    maps = [scenes[i]["depth"] for i in range(32)]
    yield "tokenize 32 depth maps", lambda: depth.encode(maps)

    example = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example
    yield "README example", lambda: fresh_process(example[1])
    yield "studio start", lambda: fresh_process(STUDIO_START)

    shipped = load("scenes")
    request = StudioRequest({"rgb": scenes[0]["rgb"]}, ("depth", "normal", "semseg", "caption"))
    yield "studio request, rgb to 4 modalities", lambda: list(run(shipped, request, Bounds()))

    shown = generation.catalog()
    engine = Engine(FourM(shown, FourMConfig(size="nano")).eval(), shown)
    for name, how in (
        ("MaskGIT, 8 steps", Decoding("maskgit", steps=8)),
        ("ROAR, 25 steps", Decoding("roar", steps=25)),
    ):
        schedule = make_schedule(shown, ["rgb"], ["depth"], decoding={"depth": how})
        yield f"generate 4 depth maps, {name}", lambda schedule=schedule: generation.ours(engine, schedule, 4)


def fresh_process(code: str) -> None:
    """Runs Python code in a process and a folder of its own."""
    package = str(Path(maskweave.__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        words = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=words, check=True, stdout=subprocess.DEVNULL)


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process, and of the processes that it started and that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def least_seconds(work: Work, rounds: int) -> float:
    """Returns the least CPU seconds of a call; the first one, which prepares, does not count."""
    work()
    found = []
    for _ in range(rounds):
        began = cpu_seconds()
        work()
        found.append(cpu_seconds() - began)
    return min(found)


def machine() -> dict[str, str]:
    """Returns what makes two runs comparable."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        name = found[1] if found else name
    return {
        "processor": name,
        "cores": str(os.cpu_count()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernels": os.environ.get("MASKWEAVE_CPU_KERNELS", "auto"),
    }


def compared(now: dict[str, float], before: dict[str, float], slower: float) -> tuple[list[str], list[str]]:
    """Returns a table of seconds, and the parts that became slower by more than a factor, the product's own change taken out."""
    machine_change = now[PRODUCT] / before[PRODUCT] if PRODUCT in before else 1.0
    lines, worse = [f"{'':<38}{'now':>10}{'before':>10}{'change':>9}"], []
    for name, seconds in now.items():
        if name not in before:
            lines.append(f"{name:<38}{seconds:>9.4f}s{'':>10}{'new':>9}")
            continue
        change = seconds / before[name]
        lines.append(f"{name:<38}{seconds:>9.4f}s{before[name]:>9.4f}s{change:>8.2f}×")
        if name != PRODUCT and change / max(machine_change, 1.0) > slower:
            worse.append(name)
    return lines, worse


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="store this run in place of the one before")
    parser.add_argument("--slower", type=float, default=1.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"))
    given = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        now = {name: least_seconds(work, given.rounds) for name, work in parts()}
    finally:
        torch.set_num_threads(threads)
    this = machine()
    path = given.folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', '-'.join(this.values()))}.json"
    before = read_json(path)["seconds"] if path.exists() else {}
    lines, worse = compared(now, before, given.slower)
    print(", ".join(f"{key} {value}" for key, value in this.items()))
    print("\n".join(lines))
    if given.save or not before:
        with write_aside(path) as aside:
            aside.write_text(json.dumps({"machine": this, "seconds": now}, indent=1), encoding="utf-8")
        print(f"stored: {path}")
    if worse:
        print(f"slower by more than {given.slower:g}×: {', '.join(worse)}; --save keeps the new times", file=sys.stderr)
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
