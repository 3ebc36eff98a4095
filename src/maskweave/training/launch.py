"""What processes do together that torchrun or another launcher started: wait for each other, divide a job, stop when one fails.

They talk over the launcher's key-value store, not over a process group, so that none waits for a GPU or for a time limit. Each process has
a thread that shows the others that it lives, and ends the process when another one has failed. Without a launcher, all of this does nothing.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from maskweave import ranks
from maskweave.errors import reason
from maskweave.ranks import ONLY_FINISH, WHOLE, JobPart

T = TypeVar("T")

BEAT = 1.0
"""Seconds between signs of life."""
LOOK_EVERY = 10
"""Beats between looks at the others' signs of life."""
MOST_SILENT = 60
"""Looks in which a process may show no sign of life; then it is taken for lost. Looks are counted instead of seconds, because a machine may have been suspended."""
GRACE = 5.0
"""Seconds in which a process may end by itself after another one has failed."""
SECONDS_TO_END = 30.0
"""Seconds in which a process that is done must end."""
FAILED = "failed"


class Launch:
    """The processes that were launched together, seen from this one."""

    def __init__(self) -> None:
        self.rank, self.world = ranks.rank(), ranks.world()
        self.part = ranks.own_part()
        self._store, self._barriers = _connected(), 0
        self._left, self._beats = threading.Event(), 0
        threading.Thread(target=self._watch, args=(_connected(),), daemon=True).start()
        threading.Thread(target=self._watch_the_watch, daemon=True).start()

    def barrier(self) -> None:
        """Waits until all processes are here, for as long as they live."""
        self._barriers += 1
        self._wait(f"barrier/{self._barriers}", self.world)

    def tell(self, value: Any) -> Any:
        """Returns the value of the first process, which JSON can hold, in all of them."""
        key = f"value/{self._barriers}"
        if self.rank == 0:
            self._store.set(key, json.dumps(value))
        self.barrier()
        return json.loads(self._store.get(key))

    def leave(self) -> None:
        """Waits for all processes at the end. The first one may hold the store, so it is the last to go."""
        self.barrier()
        self._left.set()
        if self.rank:
            self._store.add("left", 1)
        else:
            self._wait("left", self.world - 1, add=0)

    def _wait(self, key: str, count: int, add: int = 1) -> None:
        pause = 0.01
        reached = self._store.add(key, add)
        while reached < count:
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            reached = self._store.add(key, 0)

    def is_first_to_fail(self) -> bool:
        return self._store.compare_set(FAILED, "", str(self.rank)) == str(self.rank).encode()

    def has_failed(self, seconds: float) -> bool:
        """Whether another process has reported a failure, now or within some seconds."""
        for _ in range(round(10 * seconds)):
            if self._store.check([FAILED]):
                return True
            time.sleep(0.1)
        return False

    def _watch(self, store: Any) -> None:
        watched = [0] if self.rank else list(range(1, self.world))
        seen, silent = dict.fromkeys(watched, b""), dict.fromkeys(watched, 0)
        while not self._left.wait(BEAT):
            try:
                store.set(f"alive/{self.rank}", str(self._beats))
                if store.check([FAILED]):
                    time.sleep(GRACE)
                    _exit(1)
                self._beats += 1
                if self._beats % LOOK_EVERY:
                    continue
                for other in watched:
                    key = f"alive/{other}"
                    sign = store.get(key) if store.check([key]) else b""
                    silent[other] = 0 if sign != seen[other] else silent[other] + 1
                    seen[other] = sign
                    if silent[other] > MOST_SILENT:
                        fail(
                            f"maskweave: process {other} has shown no sign of life for {LOOK_EVERY * BEAT * MOST_SILENT / 60:.0f} minutes; run the same command again to resume"
                        )
            except dist.DistError:  # the store is gone, and with it the launcher or the first process
                if not self._left.wait(GRACE):
                    _lose_connection()

    def _watch_the_watch(self) -> None:
        """Notices that the store does not answer, as after a cut in the network, which breaks no connection."""
        before, silent = -1, 0
        while not self._left.wait(BEAT * LOOK_EVERY):
            silent = silent + 1 if self._beats == before else 0
            before = self._beats
            if silent > MOST_SILENT:
                _lose_connection()


def _lose_connection() -> NoReturn:
    print(
        f"maskweave{where()}: the connection to the first process is lost; run the same command again to resume",
        file=sys.stderr,
    )
    _exit(1)


def _connected() -> Any:
    """A new connection to the store of the launcher, or of the first process if the launcher has none."""
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=ranks.rank() == 0 and not hosted,
        timeout=timedelta(minutes=10),
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(f"maskweave/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@functools.cache
def _launch() -> Launch:
    return Launch()


def launched() -> Launch | None:
    """The processes that were launched together; None if this one was not."""
    return _launch() if ranks.world() > 1 else None


def barrier() -> None:
    """Waits until all launched processes are here."""
    if (launch := launched()) is not None:
        launch.barrier()


def first(job: Callable[[], T]) -> T | None:
    """Does a job in the first process, while the others wait; they get None."""
    launch = launched()
    if launch is None:
        return job()
    result = job() if launch.rank == 0 else None
    launch.barrier()
    return result


def tell(value: Any) -> Any:
    """Returns the first process's value, which JSON can hold, in all processes."""
    launch = launched()
    return value if launch is None else launch.tell(value)


def divide(job: Callable[[JobPart], T], part: JobPart = WHOLE) -> T:
    """Divides a job over the launched processes: each does its part, then the first one finishes. Returns what `job` returned last.

    Args:
        job: does a part of the job, and finishes it if all other parts are done.
        part: the part to do if no launcher started this process.
    """
    launch = launched()
    if launch is None:
        return job(part)
    result = job(launch.part)
    launch.barrier()
    if launch.rank == 0:
        result = job(ONLY_FINISH)
    launch.barrier()
    return result


def fail(text: str, code: int = 1) -> NoReturn:
    """Ends this launched process after an error. The first process that fails prints its error; the others, which fail for that reason, are silent."""
    _ignore_sigterm()
    try:
        speaks = _launch().is_first_to_fail()
    except Exception:  # if the store is gone, every process prints its error
        speaks = True
    if speaks:
        print(text, file=sys.stderr)
    _exit(code)


def fail_unexpectedly(prefix: str) -> NoReturn:
    """Ends this launched process after an exception that no user can fix: with its traceback, unless it comes from the end of another process."""
    _ignore_sigterm()
    error = sys.exception()
    if isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error):
        with contextlib.suppress(Exception):
            if _launch().has_failed(1.0):
                _exit(1)
        fail(
            f"{prefix}another process of this job ended or lost its connection ({reason(error)}); run the same command again to resume"
        )
    fail(traceback.format_exc())


def _ignore_sigterm() -> None:
    """From now on this process ends by itself; a launcher that has noticed the failure must not cut off its message."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def where() -> str:
    """This process, for messages of jobs on several machines; empty on a single one."""
    return (
        f" (process {ranks.rank()} on {socket.gethostname()})"
        if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1
        else ""
    )


def leave() -> None:
    """Waits for the other launched processes at the end of a command. Destructors of process groups, which come next, may not wait for ever."""
    if ranks.world() > 1:
        _launch().leave()
        end = threading.Timer(SECONDS_TO_END, os._exit, (0,))
        end.daemon = True
        end.start()


def _exit(code: int) -> NoReturn:
    """Ends at once: after a failure, destructors of process groups may wait for ever for processes that are gone."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
