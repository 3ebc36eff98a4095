"""Processes that this one starts: helpers that end when it ends, and workers that train together with it."""

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
    """Run `function` in a new process with one thread. It does not hear Ctrl-C, and it ends if this process is killed."""
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
    """A killed parent cannot stop its children, and the next start must not write beside them."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def spawn_workers(number: int, function: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """While open, this process is the first of `number` that train together, and `function` runs in each of the others, one thread each.

    Does nothing for one process, or where torchrun has started several already.

    Raises:
        MaskweaveError: a companion died.
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
    except RuntimeError as error:  # how torch tells that the other end is gone
        died = [process.exitcode for process in others if process.exitcode]
        if died:
            raise MaskweaveError(
                f"a process that trains together with this one died (exit code {died[0]}); start the same command again to go on"
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
