"""Loads batches by index in worker processes. There is no state: resuming means asking for later indices."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from maskweave.data.loader import items
from maskweave.data.mirror import Mirror, adopt, mirrors
from maskweave.data.order import Batches
from maskweave.errors import MaskweaveError
from maskweave.ranks import forget_launcher
from maskweave.training.distributed import DistContext
from maskweave.training.one_copy import in_one_buffer


def load(batches: Batches, indices: range, workers: int, ranks: DistContext) -> Iterator[Any]:
    """Yields the batches at `indices`, prefetched by `workers` processes (torch gives each one thread)."""
    loader: DataLoader[Any] = DataLoader(
        _Loading(batches),  # type: ignore[arg-type]
        sampler=indices,
        batch_size=None,
        num_workers=min(workers, len(indices)),
        collate_fn=_identity,
        pin_memory=ranks.device.type == "cuda",
        worker_init_fn=partial(_prepare, mirrors()),
        generator=torch.Generator(),  # otherwise it would advance the generator that resuming restores
    )
    for loaded in items(loader):
        if isinstance(loaded.item, MaskweaveError):
            raise loaded.item
        yield loaded.item


def with_static_shapes(batches: Any) -> Any:
    """Returns the same batches with the same shapes for all, if they have a method `static() -> Batches`, and otherwise themselves."""
    return batches.static() if hasattr(batches, "static") else batches


@dataclass(frozen=True)
class _Loaded:
    """A batch, or the `MaskweaveError` that it raised: torch would wrap an exception of a worker in its traceback."""

    item: Any

    def pin_memory(self) -> "_Loaded":
        """Copies to page-locked memory, which a GPU reads while the training goes on. Torch calls this in a thread of its own."""
        return _Loaded(in_one_buffer(self.item))


class _Loading:
    """The batches as torch loads them."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, index: int) -> _Loaded:
        try:
            return _Loaded(self.batches[index])
        except MaskweaveError as error:
            return _Loaded(error)


def _identity(item: Any) -> Any:
    return item


def _prepare(parent: Mapping[Path, Mirror], worker: int) -> None:
    adopt(parent)
    forget_launcher(os.environ)
    _ignore_stops()


def _ignore_stops() -> None:
    """Ignores Ctrl-C and SIGTERM in workers, so that the training process can finish its step: launchers send them to all processes. SIGTERM from the
    training process itself still ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
