"""Reading many samples in order, optionally in worker processes. Bad samples are returned with their error, not raised."""

import itertools
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from maskweave.data.loader import items
from maskweave.data.mirror import Mirror, adopt, mirrors
from maskweave.data.parts import OnBad, Remarks, noting
from maskweave.data.source import Source
from maskweave.errors import BadSample, LackingSample
from maskweave.ranks import WHOLE, JobPart, forget_launcher


class Read(NamedTuple):
    key: str
    sample: dict[str, Any]
    error: str = ""
    """Why the sample is unusable; empty if it is valid."""
    dropped: dict[str, str] = {}  # noqa: RUF012 (never changed)
    """Why values were dropped from the sample, by modality."""
    remarks: Remarks = Counter()  # noqa: RUF012 (never changed)
    """What reading changed about the values."""
    lacks: bool = False
    """Whether the error is that the sample lacks a modality, which is no fault."""


class _Safe(Dataset[Read]):
    def __init__(self, source: Source, bad: OnBad):
        self.source, self.bad = source, bad

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Read:
        with noting(self.bad) as notes:
            try:
                sample = self.source[i]
            except BadSample as error:
                return Read(self.source.key(i), {}, str(error), lacks=isinstance(error, LackingSample))
        if notes.dropped and not sample:
            return Read(self.source.key(i), {}, "; ".join(notes.dropped.values()))
        return Read(self.source.key(i), sample, "", notes.dropped, notes.remarks)


class Joined:
    """The numbers of ranges, one range after another. They are not listed: there may be billions."""

    def __init__(self, ranges: Sequence[range]):
        self.ranges = ranges

    def __len__(self) -> int:
        return sum(map(len, self.ranges))

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self.ranges)


def shard_ranges(samples: int, shard_size: int, shards: Sequence[int]) -> dict[int, range]:
    """Returns the numbers of the samples in each of these shards; the last shard of all has the rest."""
    return {s: range(s * shard_size, min((s + 1) * shard_size, samples)) for s in shards}


def read(source: Source, indices: Sequence[int] | Joined, workers: int = 0, bad: OnBad = "part") -> Iterator[Read]:
    """Yield the samples `indices` in order.

    Args:
        bad: what an unusable value drops.
        workers: processes that read ahead; 0: read in this process.

    Raises:
        MaskweaveError: one of these processes died.
    """
    if workers == 0:
        safe = _Safe(source, bad)
        yield from (safe[i] for i in indices)
        return
    loader: DataLoader[Read] = DataLoader(
        _Safe(source, bad),
        batch_size=32,
        sampler=indices,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=partial(_prepare, mirrors()),
    )
    for chunk in items(loader):
        yield from chunk


def read_chunks(source: Source, size: int, workers: int = 0, part: JobPart = WHOLE) -> Iterator[list[tuple[int, Read]]]:
    """Yield samples with their indices, `size` consecutive ones at a time; of all such chunks, those of a part of the job. What is in a chunk does not
    depend on the number of parts.

    Args:
        workers: as for `read`.
    """
    chunks = [range(start, min(start + size, len(source))) for start in part.mine(range(0, len(source), size))]
    stream = read(source, Joined(chunks), workers)
    for chunk in chunks:
        yield [(i, next(stream)) for i in chunk]


def _prepare(parent: Mapping[Path, Mirror], worker: int) -> None:
    """Use the main process's mirrors and one thread, forget the launcher, whose processes a worker is none of, and ignore Ctrl-C, which reaches the workers
    too: only the main process handles it."""
    adopt(parent)
    forget_launcher(os.environ)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
