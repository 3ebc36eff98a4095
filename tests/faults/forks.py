"""Commands in forks of this process, which start in milliseconds, and the faults put into them."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from maskweave import files
from maskweave.cli.main import main
from maskweave.training import checkpoint_files

HUNG = -99
"""Exit code of a command that did not end in time."""


def nothing() -> None:
    pass


class Fork:
    """A `maskweave` command in a fork of this process, which should have no other threads.

    Args:
        words: of the command.
        said: file for what it prints as errors.
        before: called in the fork before the command starts, to prepare a fault.
    """

    def __init__(self, words: Sequence[object], said: Path, before: Callable[[], None] = nothing):
        self.said = said
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._become([str(word) for word in words], before)

    def _become(self, words: list[str], before: Callable[[], None]) -> NoReturn:
        code = 70
        try:
            os.setsid()
            for number, path in ((1, Path(os.devnull)), (2, self.said)):
                with open(path, "wb") as file:
                    os.dup2(file.fileno(), number)
            before()
            code = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float = 300.0) -> tuple[int, str]:
        """Returns its exit code, negative for a signal, and what it printed as errors."""
        end = time.monotonic() + seconds
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return HUNG, "hangs"
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(found[1]), self.said.read_text(errors="replace", encoding="utf-8")


def killed_after(seconds: float) -> Callable[[], None]:
    """The process is killed after so many seconds of processor time: SIGPROF, which nothing handles, ends it as SIGKILL does."""
    return lambda: signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-3)) and None


def children(process: int) -> list[int]:
    """The processes that a process has started with multiprocessing, and those that they have started."""
    found, commands = list[int](), (b"spawn_main", Path(f"/proc/{process}/cmdline").read_bytes())
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, listed.read_text(encoding="utf-8").split()):
            with contextlib.suppress(OSError):  # it has ended
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                if command and any(own in command for own in commands):
                    found += [child, *children(child)]
    return found


def kill_child(process: int, seconds: float, rng: random.Random) -> bool:
    """Kills any one of the `children` of a process, the first time that there are some after so many seconds. Returns whether there were."""
    time.sleep(seconds)
    while True:
        found = list[int]()
        with contextlib.suppress(OSError):
            found = children(process)
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
                return True
        time.sleep(0.005)


def fault_after(seconds: float, fault: Callable[[], None]) -> Callable[[], None]:
    """Something is done after so many seconds of the process's processor time."""

    def prepare() -> None:
        signal.signal(signal.SIGPROF, lambda *_: fault())
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-3))

    return prepare


def full_after(writes: int, used: Path) -> Callable[[], None]:
    """The disk has room for so many files and folders. `used` says whether the command needed more."""

    def prepare() -> None:
        left, sync = writes, files.make_durable

        def full(path: Path) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                used.touch()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            sync(path)

        files.make_durable = checkpoint_files.make_durable = full

    return prepare


@contextlib.contextmanager
def counted_writes() -> Iterator[list[Path]]:
    """Yields a list that gets each file and folder as `full_after` counts them."""
    written: list[Path] = []
    sync = files.make_durable

    def count(path: Path) -> None:
        written.append(path)
        sync(path)

    files.make_durable = checkpoint_files.make_durable = count
    try:
        yield written
    finally:
        files.make_durable = checkpoint_files.make_durable = sync


def jumping_clock(rng: random.Random) -> Callable[[], None]:
    """Each look at the clock is years before or after the last one."""
    jumps = random.Random(rng.random())

    def prepare() -> None:
        now = time.time
        time.time = lambda: now() + jumps.uniform(-1e9, 1e9)
        time.time_ns = lambda: int(time.time() * 1e9)

    return prepare


def remove_one(run: Path, rng: random.Random) -> None:
    """Removes a file or folder of a run, but not its lock."""
    if found := sorted(p for p in run.glob(rng.choice(["*", "*/*"])) if p.name != ".lock"):
        path = rng.choice(found)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def mount(*words: object) -> bool:
    """Mounts something; returns whether that was permitted."""
    try:
        return not subprocess.run(["mount", *map(str, words)], capture_output=True).returncode
    except FileNotFoundError:
        return False


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
