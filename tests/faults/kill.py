"""Kills random processes of a job at random moments, resumes it each time, and compares what it ends with.

The job, under torchrun: import files, label them, and run a recipe from nothing to the report.

    python tests/faults/kill.py --kills 100 --processes 2
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from job_parts import contents
from launched import pids, stored, torchrun, weights, write_recipe

from maskweave.data.export import export
from maskweave.modality.catalogs import load_catalog
from maskweave.synthetic.scenes import Scenes

PATIENCE = 90.0
"""Seconds in which all processes must have ended after a kill."""


def commands(folder: Path, out: Path) -> list[list[str]]:
    return [
        ["data", "import", str(folder / "files"), str(out / "data"), "--catalog=photos", "--shard-size=4"],
        ["data", "label", str(out / "data"), "--catalog=photos"],
        ["run", str(folder / "recipe.yaml"), "--out", str(out / "run")],
    ]


def finish(words: list[str], processes: int) -> float:
    """Runs a command to its end. Returns its seconds."""
    begin = time.monotonic()
    _, err = (started := torchrun(processes, *words)).communicate(timeout=600)
    assert started.returncode == 0, err
    return time.monotonic() - begin


def end(started: "subprocess.Popen[str]", victim: int) -> bool:
    """Kills a process, and waits for the others. Returns whether it was killed in time."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    _, err = started.communicate(timeout=PATIENCE)
    assert started.returncode in (0, 1), err
    return started.returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = load_catalog("photos")
        export(Scenes(photos.subset(["rgb"]), 16, 0), photos, folder / "files")
        write_recipe(folder, steps=8)
        whole, killed = folder / "whole", folder / "killed"
        seconds = [finish(words, given.processes) for words in commands(folder, whole)]
        print("seconds without kills:", [round(s, 1) for s in seconds], flush=True)
        kills = 0
        while kills < given.kills:
            for words, usual in zip(commands(folder, killed), seconds, strict=True):
                if kills == given.kills:
                    break
                started = torchrun(given.processes, *words)
                time.sleep(chance.uniform(0.3, 1.0) * usual)
                found = pids(Path(words[-1] if words[0] == "run" else killed / "data"), given.processes)
                if not found:
                    started.communicate(timeout=PATIENCE + 10 * usual)
                    continue
                kills += end(started, chance.choice(found))
                print(f"kill {kills} in {' '.join(words[:2])}", flush=True)
        for words in commands(folder, killed):
            finish(words, given.processes)
        of = [{k: v for k, v in contents(out / "data").items() if k.endswith(".tar")} for out in (whole, killed)]
        assert of[0] == of[1]
        assert stored(killed / "run") == stored(whole / "run")
        assert weights(killed / "run") == weights(whole / "run")
        assert not list(killed.rglob("*.partial"))
    print(f"{kills} kills; everything is bit-equal")


if __name__ == "__main__":
    main()
