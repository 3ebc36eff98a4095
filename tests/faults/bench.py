"""Tries to break maskweave, from a seed: `make faults`, or python tests/faults/bench.py --share 0.1

Damaged values, pictures, tars, recipes, catalogs, schedules, bundles, tokens, requests, arguments and imports (`damage.py`), in a process of their
own; and faults of a whole run (`runs.py`). Prints how many gave a clear error, were accepted, could not be tried (disks that only root may mount), raised
another exception, were slow or hung, or killed the process.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from damage import Cases, Outcome
from runs import BAD, RECIPE, RESULTS, Runs

from maskweave.cli.main import main as maskweave

DAMAGED = 100
"""Cases of each kind of damage."""
PATIENCE = 300.0
"""Seconds after which a case hangs."""


def work(run: Path, folder: Path, pipe: Connection) -> None:
    """Body of the process that runs cases, one by one."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
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
        self.process.join()


def made_run(folder: Path) -> Path:
    """Makes a run with all modalities of the scenes, whose files are damaged."""
    recipe = folder / "all.yaml"
    recipe.write_text(
        "".join(line for line in RECIPE.splitlines(keepends=True) if not line.startswith("modalities")),
        encoding="utf-8",
    )
    with (
        open(os.devnull, "w", encoding="utf-8") as null,
        contextlib.redirect_stdout(null),
        contextlib.redirect_stderr(null),
    ):
        assert maskweave(["run", str(recipe), "--out", str(folder / "all")]) == 0
    return folder / "all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help=f"share of {DAMAGED} cases of each kind of damage, and of those of each kind of fault of a run (runs.py)",
    )
    parser.add_argument("--kinds", default="", help="kinds, separated by commas (default: all)")
    given = parser.parse_args()
    kinds = [*Cases.KINDS, *Runs.KINDS] if not given.kinds else given.kinds.split(",")
    counts = {**dict.fromkeys(Cases.KINDS, DAMAGED), **Runs.COUNTS}
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder, start = Path(name), time.monotonic()
        runs = Runs(folder) if {*kinds} & {*Runs.KINDS} else None
        worker = Worker(made_run(folder), folder / "work") if {*kinds} & {*Cases.KINDS} else None
        total = Counter[str]()
        print(f"{'kind':<18}{'cases':>10}" + "".join(f"{result:>10}" for result in RESULTS), flush=True)
        for kind in kinds:
            cases = worker if kind in Cases.KINDS else runs
            assert cases is not None
            run_case: Callable[[str, int], Outcome] = cases.run_case
            found, bad = Counter[str](), list[Outcome]()
            for number in range(given.seed * 10_000, given.seed * 10_000 + math.ceil(counts[kind] * given.share)):
                outcome = run_case(kind, number)
                found[outcome.result] += 1
                bad += [outcome] * (outcome.result in BAD)
            print(row(kind, found), flush=True)
            for outcome in bad:
                print(f"  {outcome.number}: {outcome.result}: {outcome.said}", flush=True)
            total += found
        print(row("all", total))
        if runs is not None:
            print(f"{runs.kills} kills; {time.monotonic() - start:.0f} s")
        if worker is not None:
            worker.end()
    sys.exit(any(total[result] for result in BAD))


def row(kind: str, found: Counter[str]) -> str:
    return f"{kind:<18}{found.total():>10}" + "".join(f"{found[result]:>10}" for result in RESULTS)


if __name__ == "__main__":
    main()
