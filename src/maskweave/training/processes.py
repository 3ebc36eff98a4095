"""Child processes: helpers that end with this process, and workers that train together with it."""

import contextlib
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from maskweave.errors import MaskweaveError
from maskweave.interruption import ignore_sigint
from maskweave.training import distributed as parallel


def start(function: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None) -> SpawnProcess:
    """Runs `function` in a new process with one thread. The process ignores Ctrl-C, and ends if this process is killed."""
    process = multiprocessing.get_context("spawn").Process(target=_body, args=(environment or {}, function, arguments))
    with ignore_sigint():
        process.start()
    return process


def _body(environment: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


def _end_with_parent() -> None:
    """Exits when the parent ends: a killed parent cannot stop its children, and the next start must not write at the same time."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def spawn_workers(number: int, function: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Context in which this process is rank 0 of `number` processes that train together. The others run `function`, with one thread each.

    Does nothing if `number` is 1 or if torchrun started this process.

    Raises:
        MaskweaveError: a worker process died.
    """
    if number == 1 or "WORLD_SIZE" in os.environ:
        yield
        return
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(number)}
    ranks = [{**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(number)]
    others = [start(function, *arguments, environment=rank) for rank in ranks[1:]]
    os.environ.update(ranks[0])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
        for process in others:
            process.join()
    except RuntimeError as error:  # raised by torch when another process is gone
        died = [process.exitcode for process in others if process.exitcode]
        if died:
            raise MaskweaveError(
                f"a worker process of this training run died (exit code {died[0]}); run the same command again to resume"
            ) from error
        raise
    finally:
        for process in others:
            process.terminate()
        parallel.leave()
        torch.set_num_threads(threads)
        for name in ranks[0]:
            del os.environ[name]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
