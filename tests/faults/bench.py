"""Tries to break maskweave, from a seed: `make faults`, or python tests/faults/bench.py --share 0.1

Damaged values, pictures, tars, recipes, catalogs, schedules, bundles, tokens, requests and imports (`damage.py`), in a process of their own; and
faults of a whole run: kills at random moments, a disk that is full at each of its writes, folders that vanish or cannot be written to, times of
files that jump, and two commands at once. Prints how many gave a clear error, were accepted, raised another exception, were slow or hung, or killed
the process. A run that was killed or ran out of space must end equal to one that was not, bit for bit.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from damage import Cases, Outcome

RESULTS = ("clear", "accepted", "raw", "slow", "crash")
PATIENCE = 120.0
"""Seconds after which a case hangs."""
RECIPE = """\
catalog: scenes
data: {source: scenes, samples: 32, validation: 8, shard_size: 8}
tokenizers: {samples: 24, train: {steps: 4, batch_size: 8, log_every: 2}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 32, target_tokens: 32}}
train: {steps: 12, batch_size: 8, log_every: 1, checkpoint_every: 3, validate_every: 6}
evaluate: {samples: 2, requests: [{inputs: [rgb], targets: [depth]}], sheets: [{inputs: [rgb], targets: [depth]}]}
"""
FULL = """
import errno, os, sys
from maskweave import files
from maskweave.cli.main import main
left, sync = int(sys.argv[1]), files._sync
def full(path):
    global left
    left -= 1
    if left < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    sync(path)
files._sync = full
code = main(sys.argv[2:])
sys.exit(code if left < 0 else 77)
"""
"""A command on a disk with room for a number of files and folders; exit code 77 if it needed no more."""


def work(run: Path, folder: Path, pipe: Connection) -> None:
    """Body of the process that runs cases, one by one."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    cases = Cases(run, folder)
    pipe.send(None)
    while (case := pipe.recv()) is not None:
        pipe.send(cases.run_case(*case))


class Worker:
    """Runs cases in a process of its own, which is started again if it dies or hangs."""

    def __init__(self, run: Path, folder: Path):
        self.run, self.folder = run, folder
        self.start()

    def start(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=work, args=(self.run, self.folder, other), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def run_case(self, kind: str, number: int) -> Outcome:
        try:
            self.pipe.send((kind, number))
            if self.pipe.poll(PATIENCE):
                return self.pipe.recv()  # type: ignore[no-any-return]
            result = "slow"
        except (EOFError, OSError):
            result = "crash"
        self.process.kill()
        self.process.join()
        self.start()
        return Outcome(kind, number, result, f"exit code {self.process.exitcode}")

    def end(self) -> None:
        self.process.kill()


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "maskweave", *map(str, words)]


class Runs:
    """Faults of whole runs of a small recipe."""

    KINDS = ("kill", "full disk", "vanishing folder", "read-only folder", "times", "two at once")

    def __init__(self, whole: Path, recipe: Path, folder: Path):
        self.whole, self.recipe, self.folder = whole, recipe, folder
        self.seconds = 20.0

    def run_case(self, kind: str, number: int) -> Outcome:
        rng = random.Random(f"{kind} {number}")
        shutil.rmtree(self.folder, ignore_errors=True)
        run = self.folder / "run"
        result, said = getattr(self, f"_{kind.replace(' ', '_').replace('-', '_')}")(run, rng)
        return Outcome(kind, number, result, said[-300:])

    def _call(self, *words: object) -> tuple[int, str]:
        try:
            done = subprocess.run(command(*words), capture_output=True, text=True, timeout=10 * PATIENCE)
        except subprocess.TimeoutExpired:
            return -99, "hangs"
        return done.returncode, done.stderr

    def _judged(self, code: int, said: str) -> str:
        if code == -99:
            return "slow"
        return "crash" if code < 0 else "raw" if "Traceback" in said else "accepted" if code == 0 else "clear"

    def _finished(self, run: Path) -> tuple[str, str]:
        """Runs the same command again: it must end, with the weights of a run without faults."""
        code, said = self._call("run", self.recipe, "--out", run)
        if code == 0 and not self._equal(run):
            return "raw", "other weights than without the fault"
        return self._judged(code, said), said

    def _equal(self, run: Path) -> bool:
        files = [
            "model/model.safetensors",
            *(
                f"tokenizers/{p.name}/model.safetensors"
                for p in self.whole.glob("tokenizers/*")
                if (p / "model.safetensors").exists()
            ),
        ]
        return all((run / f).read_bytes() == (self.whole / f).read_bytes() for f in files) and not [
            *run.rglob("*.partial")
        ]

    def _kill(self, run: Path, rng: random.Random) -> tuple[str, str]:
        for _ in range(rng.choice([1, 2, 3])):
            process = subprocess.Popen(
                command("run", self.recipe, "--out", run),
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(rng.uniform(1, self.seconds))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return self._finished(run)

    def _full_disk(self, run: Path, rng: random.Random) -> tuple[str, str]:
        words = [sys.executable, "-c", FULL, str(rng.randrange(60)), "run", str(self.recipe), "--out", str(run)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10 * PATIENCE)
        if done.returncode == 1 and "no space left while writing" in done.stderr and "Traceback" not in done.stderr:
            again, said = self._finished(run)
            return ("clear" if again == "accepted" else again), said
        return self._judged(0 if done.returncode == 77 else done.returncode, done.stderr), done.stderr

    def _vanishing_folder(self, run: Path, rng: random.Random) -> tuple[str, str]:
        process = subprocess.Popen(
            command("run", self.recipe, "--out", run), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        time.sleep(rng.uniform(2, self.seconds))
        if found := [p for p in run.glob(rng.choice(["*", "*/*"])) if p.name != ".lock"]:
            path = rng.choice(found)
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        try:
            _, said = process.communicate(timeout=10 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return "slow", "hangs"
        return self._judged(process.returncode, said), said

    def _read_only_folder(self, run: Path, rng: random.Random) -> tuple[str, str]:
        """A file stands where a folder is needed; root may write to folders without permissions, too."""
        run.mkdir(parents=True)
        (
            run / rng.choice(["tokenizers", "tokens", "checkpoints", "model", "cache", "recipe.yaml", ".lock"])
        ).write_text("in the way")
        code, said = self._call("run", self.recipe, "--out", run)
        return self._judged(code, said), said

    def _times(self, run: Path, rng: random.Random) -> tuple[str, str]:
        shutil.copytree(self.whole, run)
        for path in run.rglob("*"):
            os.utime(path, (rng.uniform(0, 4e9), rng.uniform(0, 4e9)))
        return self._finished(run)

    def _two_at_once(self, run: Path, rng: random.Random) -> tuple[str, str]:
        first = subprocess.Popen(
            command("run", self.recipe, "--out", run), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        time.sleep(rng.uniform(0, self.seconds / 2))
        code, said = self._call("run", self.recipe, "--out", run)
        _, other = first.communicate(timeout=10 * PATIENCE)
        worst = max((self._judged(code, said), self._judged(first.returncode, other)), key=RESULTS.index)
        return (worst, said + other) if worst not in ("clear", "accepted") else self._finished(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="share of 100 cases of each kind of damage, and 25 of each kind of fault of a run",
    )
    parser.add_argument("--kinds", default="", help="kinds, separated by commas (default: all)")
    given = parser.parse_args()
    kinds = [*Cases.KINDS, *Runs.KINDS] if not given.kinds else given.kinds.split(",")
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE)
        start = time.monotonic()
        subprocess.run(command("run", recipe, "--out", folder / "whole"), check=True, capture_output=True)
        runs = Runs(folder / "whole", recipe, folder / "fault")
        runs.seconds = time.monotonic() - start
        worker = Worker(folder / "whole", folder / "work")
        total = Counter[str]()
        print(f"{'kind':<18}" + "".join(f"{result:>10}" for result in RESULTS))
        for kind in kinds:
            count = max(1, round((100 if kind in Cases.KINDS else 25) * given.share))
            run_case: Callable[[str, int], Outcome] = worker.run_case if kind in Cases.KINDS else runs.run_case
            found, bad = Counter[str](), list[Outcome]()
            for number in range(given.seed * 10_000, given.seed * 10_000 + count):
                outcome = run_case(kind, number)
                found[outcome.result] += 1
                bad += [outcome] * (outcome.result not in ("clear", "accepted"))
            print(f"{kind:<18}" + "".join(f"{found[result]:>10}" for result in RESULTS), flush=True)
            for outcome in bad:
                print(f"  {outcome.number}: {outcome.result}: {outcome.said}", flush=True)
            total += found
        print(f"{'all':<18}" + "".join(f"{total[result]:>10}" for result in RESULTS))
        worker.end()
    sys.exit(any(total[result] for result in ("raw", "slow", "crash")))


if __name__ == "__main__":
    main()
