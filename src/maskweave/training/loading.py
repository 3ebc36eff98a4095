"""Batches by index, prepared ahead by worker processes. There is no state: to resume is to ask for later indices."""

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from maskweave.data.order import Batches
from maskweave.errors import MaskweaveError
from maskweave.training.distributed import DistContext


def load(batches: Batches, indices: range, workers: int, ranks: DistContext) -> Iterator[Any]:
    """The batches at `indices`, prepared ahead by worker processes if there are any (torch gives each one thread)."""
    loader: DataLoader[Any] = DataLoader(
        _Guarded(batches),  # type: ignore[arg-type]
        sampler=indices,
        batch_size=None,
        num_workers=min(workers, len(indices)),
        collate_fn=_as_it_is,
        pin_memory=ranks.device.type == "cuda",
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # else it draws from the one that resuming restores
    )
    for item in loader:
        if isinstance(item, MaskweaveError):
            raise item
        yield item


class _Guarded:
    """Batches whose mendable errors are handed over as values, so that none arrives wrapped in a worker's traceback."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, index: int) -> Any:
        try:
            return self.batches[index]
        except MaskweaveError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches workers too; the training process is to finish its step first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
