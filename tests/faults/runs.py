"""Faults of whole runs: kills, full disks, folders that vanish or cannot be written to, times and clocks that jump, two commands at once.

A run that was killed, or that ran out of space, and is started again must end equal to one that was not, bit for bit.
"""

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from damage import Outcome
from forks import (
    HUNG,
    Fork,
    counted_writes,
    fault_after,
    full_after,
    jumping_clock,
    kill_child,
    killed_after,
    mount,
    nothing,
    remove_one,
    unmount,
)
from two_imports import Imports

from maskweave.cli.main import main

RESULTS = ("clear", "accepted", "skipped", "raw", "slow", "crash")
BAD = RESULTS[3:]
PATIENCE = 600.0
"""Seconds after which a command hangs."""
SECONDS_TO_END = 60.0
"""After a process of a command was killed."""
TOGETHER = ("--data.workers=2", "--tokenizers.jobs=2", "--tokenizers.train.workers=1", "--train.workers=1", "--train.processes=2", "--train.batch_size=4")  # fmt: skip
"""Words for a run with processes of each kind."""
RECIPE = """\
catalog: scenes
modalities: [rgb, tok_rgb, depth, caption]
data: {source: scenes, samples: 32, validation: 8, shard_size: 8}
tokenizers: {samples: 24, train: {steps: 4, batch_size: 8, log_every: 2}}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 32, target_tokens: 32}}
train: {steps: 12, batch_size: 8, log_every: 1, checkpoint_every: 3, validate_every: 6}
evaluate: {samples: 2, requests: [{inputs: [rgb], targets: [depth]}], sheets: [{inputs: [rgb], targets: [depth]}]}
"""
GOLDEN = (5**0.5 - 1) / 2
"""The parts after the point of its multiples lie evenly from 0 to 1, however many there are."""
MADE = ("tokenizers", "tokens", "checkpoints", "model", "cache", "sheets", "recipe.yaml", "modalities.yaml")
"""What a run makes, in whose way a file may stand."""


class Runs:
    """Runs a small recipe with faults.

    Args:
        folder: for the recipe, the run without faults, and those with faults.
    """

    KINDS = (
        "kill",
        "full disk",
        "small disk",
        "vanishing folder",
        "read-only folder",
        "times",
        "clock",
        "two at once",
        "killed companion",
    )
    COUNTS: ClassVar[dict[str, int]] = {"kill": 100, "full disk": 80, "small disk": 25, "vanishing folder": 25, "read-only folder": 25, "times": 10, "clock": 10, "two at once": 10, "killed companion": 10}  # fmt: skip
    """Cases of each kind."""

    def __init__(self, folder: Path):
        self.folder, self.whole, self.recipe = folder / "fault", folder / "whole", folder / "recipe.yaml"
        self.recipe.write_text(RECIPE, encoding="utf-8")
        torch.set_num_threads(1)  # also because other threads would not be in the forks
        self.kills, self.seconds_together = 0, 0.0
        self.more: tuple[str, ...] = ()
        """Further words of the commands."""
        with (
            open(os.devnull, "w", encoding="utf-8") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(null),
        ):
            assert main(["run", str(self.recipe), "--out", str(self.whole)]) == 0
            start = time.process_time()  # the first run has imported what the forks need
            with counted_writes() as writes:
                assert main(["run", str(self.recipe), "--out", str(folder / "again")]) == 0
            self.seconds, self.writes = time.process_time() - start, len(writes)
        assert self.writes <= self.COUNTS["full disk"], "each write is tried once"
        assert self._equal(folder / "again")

    def run_case(self, kind: str, number: int) -> Outcome:
        rng = random.Random(f"{kind} {number}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        try:
            result, said = getattr(self, f"_{kind.replace(' ', '_').replace('-', '_')}")(
                self.folder / "run", rng, number
            )
        finally:
            unmount(self.folder / "run")
        return Outcome(kind, number, result, " ".join(said.split())[-300:])

    def _start(self, run: Path, before: Callable[[], None] = nothing) -> Fork:
        said = self.folder / f"said-{time.monotonic_ns()}"
        return Fork(["run", self.recipe, "--out", run, *self.more], said, before)

    def _call(self, run: Path, before: Callable[[], None] = nothing) -> tuple[int, str]:
        return self._start(run, before).wait(PATIENCE)

    def _judged(self, code: int, said: str) -> str:
        if code == HUNG:
            return "slow"
        return "crash" if code < 0 else "raw" if "Traceback" in said else "accepted" if code == 0 else "clear"

    def _finished(self, run: Path, before: Callable[[], None] = nothing) -> tuple[str, str]:
        """Runs the command to its end: it must have the weights and tokens of the run without faults."""
        code, said = self._call(run, before)
        if code == 0 and (differing := self._differing(run)):
            return "raw", f"differs from the run without faults in {differing}"
        return self._judged(code, said), said

    def _equal(self, run: Path) -> bool:
        return not self._differing(run)

    def _differing(self, run: Path) -> list[str]:
        patterns = ("model/*", "tokenizers/*/*", "tokens/**/*.safetensors", "tokens/**/*.json")
        made = [p for pattern in patterns for p in self.whole.glob(pattern) if p.is_file()]
        same = [p.relative_to(self.whole) for p in made if p.suffix not in (".jsonl", ".txt")]  # they have times
        found = [
            str(p) for p in same if not (run / p).is_file() or (run / p).read_bytes() != (self.whole / p).read_bytes()
        ]
        found += [str(p.relative_to(run)) for p in run.rglob("*") if p.suffix in (".partial", ".old")]
        lines = [(folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for folder in (run, self.whole)]
        found += ["metrics.jsonl"] * (len(lines[0]) != len(lines[1]))
        return found

    def _kill(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """A kill, sometimes two, at random moments."""
        for _ in range(rng.choice([1, 1, 1, 2])):
            code, said = self._call(run, killed_after(rng.uniform(0, self.seconds)))
            self.kills += code < 0
            if code > 0:
                return self._judged(code, said), said
        return self._finished(run)

    def _full_disk(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """No space is left at a write: the cases take them in turn, evenly over the run and each of them once; later at another one."""
        used = self.folder / "used"
        in_turn = sorted(range(self.writes), key=lambda n: n * GOLDEN % 1)
        for writes in (in_turn.index(number % 10_000 % self.writes), rng.randrange(self.writes)):
            used.unlink(missing_ok=True)
            code, said = self._call(run, full_after(writes, used))
            told = code == 1 and "no space left while writing" in said and "Traceback" not in said
            if not (told or (code == 0 and not used.exists())):
                return "raw", f"exit code {code}: {said}"
            if writes == 0 and not used.exists():
                return "raw", "a run without any space wrote everything"
        result, said = self._finished(run)
        return ("clear" if result == "accepted" and used.exists() else result), said

    def _small_disk(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """A real disk that fills up, anywhere in a file, and is larger later."""
        needed = sum(p.stat().st_size for p in self.whole.rglob("*") if p.is_file())
        run.mkdir()
        if not mount("-t", "tmpfs", "-o", f"size={rng.randint(needed // 50, needed)}", "tmpfs", run):
            return "skipped", "this user may not mount a disk"
        code, said = self._call(run)
        if code and not (code == 1 and "space left" in said and "Traceback" not in said):
            return "raw", f"exit code {code}: {said}"
        mount("-o", f"remount,size={10 * needed}", run)
        result, again = self._finished(run)
        return ("clear" if result == "accepted" and code else result), again

    def _vanishing_folder(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        code, said = self._call(run, fault_after(rng.uniform(0, self.seconds), lambda: remove_one(run, rng)))
        return self._judged(code, said), said

    def _read_only_folder(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """A run that was killed is on a disk that is read-only now; or a file stands where a folder is needed."""
        if rng.random() < 0.5:
            run.mkdir()
            (run / rng.choice(MADE)).write_text("in the way", encoding="utf-8")
            code, said = self._call(run)
            return self._judged(code, said), said
        self._call(run, killed_after(rng.uniform(0, self.seconds)))
        run.mkdir(exist_ok=True)
        if not (mount("--bind", run, run) and mount("-o", "remount,ro,bind", run)):
            return "skipped", "this user may not mount a disk"
        code, said = self._call(run)
        unmount(run)
        result = self._judged(code, said)
        if result != "clear":
            return ("raw" if result == "accepted" else result), f"exit code {code}: {said}"
        again, said = self._finished(run)
        return ("clear" if again == "accepted" else again), said

    def _times(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """All files have times of other years."""
        self._call(run, killed_after(rng.uniform(0.3, 1.2) * self.seconds))
        for path in run.rglob("*"):
            os.utime(path, (rng.uniform(0, 4e9), rng.uniform(0, 4e9)))
        return self._finished(run)

    def _clock(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """The clock jumps by years, before and after a kill."""

        def prepare() -> None:
            jumping_clock(rng)()
            killed_after(rng.uniform(0, self.seconds))()

        self._call(run, prepare)
        return self._finished(run, jumping_clock(rng))

    def _two_at_once(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """Two runs in one folder; in every other case two imports, of other samples."""
        if number % 2:
            return self._two_imports(rng)
        first = self._start(run)
        time.sleep(rng.uniform(0, self.seconds))
        second, (other, told) = self._call(run), first.wait(PATIENCE)
        worst = max((self._judged(*second), self._judged(other, told)), key=RESULTS.index)
        return (worst, second[1] + told) if worst in BAD else self._finished(run)

    def _two_imports(self, rng: random.Random) -> tuple[str, str]:
        imports = Imports(self.folder)
        first = imports.start(0)
        time.sleep(rng.uniform(0, 0.2))
        second = imports.start(4)
        ended = [first.wait(PATIENCE), second.wait(PATIENCE)]
        worst = max((self._judged(*end) for end in ended), key=RESULTS.index)
        said = f"{ended[0][1]} {ended[1][1]}"
        if worst not in BAD and not (
            any(code == 0 for code, _ in ended) and imports.has_all_of(4 * (ended[1][0] == 0))
        ):
            return "raw", f"not all samples of one source: {said}"
        return worst, said

    def _killed_companion(self, run: Path, rng: random.Random, number: int) -> tuple[str, str]:
        """A process that reads, trains a tokenizer, or trains the model with another one is killed: the others end and say so, and the run goes on."""
        alone, together = self.whole, self.whole.with_name("together")
        self.more = TOGETHER
        try:
            if not together.exists():
                start = time.monotonic()
                if (made := self._call(together))[0]:
                    return "raw", f"processes do not work together: {made[1]}"
                self.seconds_together = time.monotonic() - start
            self.whole = together
            fork = self._start(run)
            killed = kill_child(fork.pid, rng.uniform(0, self.seconds_together), rng)
            code, said = fork.wait(SECONDS_TO_END)
            self.kills += killed
            if code != 0 and not (code == 1 and "died (exit code -9)" in said and "Traceback" not in said):
                return ("slow" if code == HUNG else "raw"), f"exit code {code}: {said}"
            result, again = self._finished(run)
            return ("clear" if result == "accepted" and code else result), again
        finally:
            self.whole, self.more = alone, ()
