"""Child processes: helpers that end with this process, and workers that train together."""

import atexit
import contextlib
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from maskweave import ranks
from maskweave.errors import MaskweaveError, died
from maskweave.interruption import Interrupted, StopSignal, ignore_sigint

GRACE = 10.0
"""Seconds that the other workers have to end by themselves after one has failed; some would wait for it for ever."""


def start(function: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None) -> SpawnProcess:
    """Runs `function` in a new process with one thread. The process ignores Ctrl-C, and ends if this process is killed."""
    process = multiprocessing.get_context("spawn").Process(target=_body, args=(environment or {}, function, arguments))
    with ignore_sigint():
        process.start()
    return process


def _body(environment: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ranks.forget_launcher(os.environ)
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


def _end_with_parent() -> None:
    """Exits when the parent ends: a killed parent cannot stop its children, and the next start must not write at the same time."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_together(number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `function` in `number` new processes that train together, with one thread each. This process only looks after them.

    With one process, or if torchrun started this one, the function is called here.

    Returns:
        what it returned in the first process, which JSON can hold.

    Raises:
        MaskweaveError: as the function; or a worker process died.
    """
    if number == 1 or ranks.world() > 1:
        return function(*arguments)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    workers: dict[SpawnProcess, Connection] = {}
    answers: list[dict[str, Any]] = []
    try:
        with StopSignal() as stop:
            for r in range(number):
                here, there = multiprocessing.Pipe(duplex=False)
                own = {**shared, "RANK": str(r), "LOCAL_RANK": str(r)}
                workers[start(_answer, there, function, arguments, environment=own)] = here
                there.close()
            _look_after(workers, stop, answers)
        codes = [process.exitcode or 0 for process in workers]  # before those that are left are killed
    finally:
        for process in workers:
            process.kill()
        for process in workers:
            process.join(GRACE)
    return _outcome(codes, answers)


def _look_after(workers: dict[SpawnProcess, Connection], stop: StopSignal, answers: list[dict[str, Any]]) -> None:
    """Waits until all workers have ended, and collects their answers. Passes a stop on; ends those that are left after one has failed."""
    running, is_stopping, deadline = dict(workers), False, float("inf")
    while running:
        wait([*running.values()], timeout=0.3)
        if stop.asked and not is_stopping:
            is_stopping = True
            for process in running:
                process.terminate()  # it writes a checkpoint before it exits
        for process, answer in list(running.items()):
            if answer.poll():
                with contextlib.suppress(EOFError):  # it died without an answer
                    answers.append(json.loads(answer.recv_bytes()))
                process.join(GRACE)
                if process.is_alive():
                    process.kill()
                    process.join()
                del running[process]
                if process.exitcode:
                    deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() > deadline:
            break


def _outcome(codes: list[int], answers: list[dict[str, Any]]) -> Any:
    """Returns the first process's result, or raises the error that explains the others."""
    for answer in sorted(answers, key=lambda a: "error" not in a):
        if "error" in answer:
            raise (Interrupted if answer["interrupted"] else MaskweaveError)(answer["error"])
    if killed := [code for code in codes if code < 0]:
        raise died("a worker process of this training run", killed[0])
    if found := [answer["traceback"] for answer in answers if "traceback" in answer]:
        print(found[0], file=sys.stderr)
        raise RuntimeError("a worker process failed; see the traceback above")
    return next(answer["result"] for answer in answers if answer["rank"] == 0)


def _answer(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Body of a worker process. It ends without the destructors of process groups, which may wait for others for ever."""
    failed, answer = True, dict[str, Any]()
    try:
        result = function(*arguments)
        failed, answer = False, {"result": result} if ranks.rank() == 0 else {}
    except Interrupted as error:
        failed, answer = False, {"error": str(error), "interrupted": True}
    except MaskweaveError as error:
        answer = {"error": str(error), "interrupted": False}
    except BaseException:
        answer = {"traceback": traceback.format_exc()}
    pipe.send_bytes(json.dumps({**answer, "rank": ranks.rank()}).encode())
    if failed:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    atexit.register(os._exit, 0)  # after multiprocessing has cleaned up


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
