"""Shared by all tests: one torch thread (two on contended cores can be many times slower), no limits of time, and one tiny finished run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # of processes that tests start, too
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background of a script; tests of Ctrl-C need to hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import HealthCheck, settings
from look_at import advice, changed_files
from parity_cases import FOLDER, cases_in, summary

from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.progress import Progress

torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

PATIENCE = 300
"""Seconds after which what a test waits for is taken never to come."""

TINY = """\
catalog: scenes
data: {source: scenes, samples: 48, validation: 8, shard_size: 8}
tokenizers:
  samples: 32
  train: {steps: 4, batch_size: 8, log_every: 2}
model: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1, masking: {input_tokens: 32, target_tokens: 32}}
train: {steps: 40, batch_size: 8, log_every: 1, checkpoint_every: 10, validate_every: 20}
evaluate:
  samples: 4
  requests:
    - {inputs: [rgb], targets: [depth, normal, semseg, edges, caption, boxes]}
    - {inputs: [caption], targets: [tok_rgb], read: [caption]}
  sheets:
    - {inputs: [rgb], targets: [depth, caption]}
"""


@pytest.fixture(scope="session")
def scenes_catalog() -> Catalog:
    return load_catalog("scenes")


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over all modalities of the scenes that runs in seconds and learns next to nothing."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `tiny_recipe`. Read only: a test that changes something works on a copy."""
    from maskweave.cli.main import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["run", str(tiny_recipe), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each long job that ends without an error has counted all of its items as done, and no more."""
    counts: list[tuple[str, int, int]] = []
    close = Progress.close

    def record(bar: Progress) -> None:
        close(bar)
        if sys.exc_info()[0] is None:
            counts.append((bar.title, bar.done, bar.total))

    monkeypatch.setattr(Progress, "close", record)
    yield
    assert [one for one in counts if one[1] != one[2]] == []


STOPPED = """
import os, signal, sys
from pathlib import Path
from maskweave.cli.main import main
number, path, text, *words = sys.argv[1:]
def look(*_):
    if Path(path).exists() and text in Path(path).read_text():
        (os.killpg if int(number) == signal.SIGINT else os.kill)(os.getpid(), int(number))
    else:
        signal.setitimer(signal.ITIMER_REAL, 0.002)  # once, or a look could begin within another and both send
signal.signal(signal.SIGALRM, look)
look()
sys.exit(main(words))
"""
"""A command that signals itself once a file holds a text: a test that watches from outside may be too slow to send it in time."""


class Command:
    """A `maskweave` command in a process of its own, to be watched, interrupted or killed.

    Args:
        at: a file and a text: once the file holds the text, `send` comes, SIGINT to the whole group, as from a terminal.
    """

    def __init__(self, *words: object, at: tuple[Path, str] | None = None, send: signal.Signals = signal.SIGKILL):
        program = ["-m", "maskweave"] if at is None else ["-c", STOPPED, str(int(send)), str(at[0]), at[1]]
        self.process = subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def when(self, happened: Callable[[], bool], send: signal.Signals, group: bool = False) -> None:
        """Send a signal some time after something has happened; to the whole group, as a terminal does, or to the process alone."""
        until = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, "ended too early:\n" + "".join(self.end())
            assert time.monotonic() < until, "it never happened"
            time.sleep(0.002)
        (os.killpg if group else os.kill)(self.process.pid, send)

    def end(self) -> tuple[str, str]:
        """What it printed, once it has ended."""
        return self.process.communicate(timeout=PATIENCE)

    @property
    def code(self) -> int:
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Starts commands, and leaves none behind."""
    started: list[Command] = []

    def run(*words: object, **options: Any) -> Command:
        started.append(Command(*words, **options))
        return started[-1]

    yield run
    for command in started:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
            command.process.communicate()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure says what to look at."""
    report = yield
    if report.failed and call.excinfo is not None:
        frames = [(str(entry.path), entry.lineno + 1, entry.name) for entry in call.excinfo.traceback]
        report.sections.append(("look at", "\n".join(advice(frames, item.nodeid, changed_files()))))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Whether the parity tests had reference cases: skipped ones are easily overlooked."""
    ended = {how: terminalreporter.getreports(how) for how in ("passed", "failed", "skipped")}
    parity = {how: [r.nodeid for r in reports if "tests/parity/" in r.nodeid] for how, reports in ended.items()}
    if any(parity.values()):
        names = [folder.name for folder in cases_in(FOLDER)]
        ran = {name for name in names for id in (*parity["passed"], *parity["failed"]) if id.endswith(f"[{name}]")}
        line = summary(FOLDER, names, ran)
        terminalreporter.write_sep("=", line, bold=True, **{"green" if len(ran) == len(names) > 0 else "red": True})
