"""Reading many samples in order, in worker processes if asked, with bad ones handed over instead of raised."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from maskweave.data.source import Source
from maskweave.errors import BadSample


class Read(NamedTuple):
    key: str
    sample: dict[str, Any]
    error: str
    """Why the sample is unusable; empty if it is sound."""


class _Safe(Dataset[Read]):
    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Read:
        try:
            return Read(self.source.key(i), self.source[i], "")
        except BadSample as error:
            return Read(self.source.key(i), {}, str(error))


def read(source: Source, indices: Sequence[int], workers: int = 0) -> Iterator[Read]:
    """Yield the samples `indices` in order.

    Args:
        workers: processes that read ahead; 0 reads here.
    """
    if workers == 0:
        safe = _Safe(source)
        yield from (safe[i] for i in indices)
        return
    loader: DataLoader[Read] = DataLoader(
        _Safe(source), batch_size=32, sampler=indices, num_workers=workers, collate_fn=list, worker_init_fn=_prepare
    )
    for chunk in loader:
        yield from chunk


def _prepare(worker: int) -> None:
    """One thread, and no reaction to Ctrl-C, which reaches workers too: the process that reads tells the user."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
