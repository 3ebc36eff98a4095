"""Token shards: a tokenized data set, as the model reads it.

    ROOT/index.json                            the modalities, with fingerprints of the entries and tokenizers that made their tokens
    ROOT/samples/shard-00000.json              keys of the shard's samples; written last: if it exists, the shard is complete
    ROOT/samples/shard-00000.skipped.jsonl     names of the shard's skipped samples and the reasons, if any
    ROOT/samples/starts.npy                    (shards + 1,) int64: index of each shard's first sample, and the number of samples; written when all
                                               shards are complete. Folders of earlier versions lack it, and their lists are read
    ROOT/MODALITY/shard-00000.safetensors      present (S,); ids (S, L), length (S,) for sequences and vectors, rows (S, L, C) for raw values,
                                               valid (S, L) for values with unknown points

Shards are memory-mapped when samples of them are asked for, and few stay open. Raw rows are read only where they are drawn (`StoredRows`).
"""

import ctypes
import hashlib
import json
import mmap
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import torch

from maskweave.config import plain_changes
from maskweave.data.columns import Column, RowFile, StoredRows
from maskweave.data.places import Folder, folder_at
from maskweave.data.remote import NoSuchFile, is_remote
from maskweave.data.windows import ShardWindows, window_size
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import parse_json, read_json, write_aside
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality, training_facts
from maskweave.nn.tensor_files import open_file
from maskweave.nn.weights import save_tensors
from maskweave.values.formats.numpy_rows import NpyRows

Columns = dict[str, Column]

MOST_OPEN = 512
"""Files of one modality and shard that stay open, of all stores of a process. Systems allow it 65,530 maps, and often 1,024 open files."""
STARTS = "starts.npy"
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def shard_name(number: int) -> str:
    return f"shard-{number:05d}"


def entry_fingerprint(modality: Modality) -> str:
    """Hash of an entry that changes if tokens made from the old entry are no longer valid. A setting that a later version adds does not change it
    while it has its default."""
    facts = training_facts(modality, plain_changes)
    content = {key: facts.get(key) for key in ("name", "kind", "value", "grid", "max_tokens", "tokenizer")}
    content |= {key: facts[key] for key in ("valid", "weight") if facts.get(key)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_column(root: Path, name: str, shard: int, column: Column) -> None:
    """Write one modality of a shard with the smallest integer type that fits: to a temporary file, then renamed."""
    tensors = {"present": torch.from_numpy(column.present)}
    if column.ids is not None:
        small = np.uint16 if column.ids.max(initial=0) < 2**16 else np.int32
        tensors["ids"] = torch.from_numpy(column.ids.astype(small))
    if column.length is not None:
        tensors["length"] = torch.from_numpy(column.length.astype(np.int32))
    if column.valid is not None:
        tensors["valid"] = torch.from_numpy(column.valid)
    if column.rows is not None:
        tensors["rows"] = torch.from_numpy(np.ascontiguousarray(column.rows))
    with write_aside(root / name / f"{shard_name(shard)}.safetensors") as aside:
        save_tensors(tensors, aside)


class TokenData:
    """A folder of token shards, with map-style access.

    Args:
        root: path or URL of the folder. Of a URL, whole shards are read into the cache of this machine (`maskweave.data.cache`).
        catalog: modalities to read; a modality that the shards lack is missing from every sample.
        window: shards of a window of block-wise shuffling; 0: all samples are shuffled together; None: windows are used for large data sets.

    Raises:
        MaskweaveError: there are no shards, one is truncated, or tokens were made from another entry than the catalog's.
    """

    def __init__(self, root: str | os.PathLike[str], catalog: Catalog, window: int | None = None):
        self.root, self.catalog = root, catalog
        self.folder = _folder_at(root)
        index = self.folder.use("index.json", lambda path: read_json(path, limit=None))
        if not isinstance(index, dict) or not isinstance(index.get("modalities", {}), dict):
            raise MaskweaveError(f"{self.root}: its index.json is damaged; remove the folder and tokenize again")
        for name, fingerprint in index.get("modalities", {}).items():
            if name in catalog and fingerprint != entry_fingerprint(catalog[name]):
                raise MaskweaveError(
                    f"{self.root}: the entry of {name!r} in {catalog.where} has changed since these tokens were made; restore it, or tokenize again"
                )
        self.names = [name for name in catalog if name in index.get("modalities", {})]
        self.tokenizers: dict[str, str] = index.get("tokenizers", {})
        """Fingerprint of the tokenizer of each modality."""
        self.starts = self._read_starts(-(-index.get("samples", 0) // index.get("shard_size", 1)))
        if not self.names or not len(self):
            raise MaskweaveError(
                f"{self.root}: has no token shards for any of {', '.join(catalog)}; make them with 'maskweave tokenize'"
            )
        self.counts, self.weights = (len(self),), (1.0,)  # one data set; `MixedTokens` has several
        size = window_size(self.starts, window)
        self.windows = (ShardWindows(self.starts, size, self._prefetch) if size else None,)
        self._ahead = np.empty(0, np.int64)
        self._open: OrderedDict[tuple[str, int], _OpenShard] = OrderedDict()  # used last at the end
        _stores.add(self)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # each worker process maps the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _stores.add(self)

    def key(self, i: int) -> str:
        shard = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.folder.use(f"samples/{shard_name(shard)}.json", _keys)[i - int(self.starts[shard])]

    def columns(self, indices: np.ndarray) -> Columns:
        """The tokens of the samples `indices` (B,), in that order. Raw rows are not read yet."""
        shard_of = np.searchsorted(self.starts, indices, side="right") - 1
        row = indices - self.starts[shard_of]
        shards, part_of = np.unique(shard_of, return_inverse=True)
        columns = {}
        for name in self.names:
            parts = [self._arrays(name, shard) for shard in shards.tolist()]
            joined: dict[str, Any] = {
                field: _taken([part[field] for part in parts], part_of, row) for field in parts[0] if field != "rows"
            }
            if "rows" in parts[0]:
                joined["rows"] = StoredRows([part["rows"] for part in parts], part_of, row)
            columns[name] = Column(**joined)
        return columns

    def _arrays(self, name: str, shard: int) -> dict[str, Any]:
        """The mapped arrays of a shard, and its `RowFile` if it has rows."""
        key = (name, shard)
        if key not in self._open:
            samples = int(self.starts[shard + 1] - self.starts[shard])
            shard_file = self.folder.use(
                f"{name}/{shard_name(shard)}.safetensors", lambda path: _OpenShard(path, samples)
            )
            if sum(len(store._open) for store in _stores) >= MOST_OPEN:
                max(_stores, key=lambda store: len(store._open))._open.popitem(last=False)
            self._open[key] = shard_file
        self._open.move_to_end(key)
        self._open[key].check(may_be_gone=is_remote(self.root))
        return self._open[key].arrays

    def _prefetch(self, shards: np.ndarray) -> None:
        if not np.array_equal(shards, self._ahead):
            self._ahead = shards
            self.folder.prefetch(
                f"{n}/{shard_name(shard)}.safetensors" for shard in shards.tolist() for n in self.names
            )

    def _read_starts(self, shards: int) -> np.ndarray:
        """Returns the index of each shard's first sample.

        Args:
            shards: number of shards; 0: it is not known.
        """
        samples = Path(self.root) / "samples"
        if is_remote(self.root) or (samples / STARTS).exists():
            return self.folder.use(f"samples/{STARTS}", lambda path: read_starts(path, shards))
        lists = sorted(samples.glob("shard-*.json"), key=lambda path: (len(path.name), path.name))
        if len(lists) < shards:
            raise MaskweaveError(
                f"{self.root}: found {len(lists)} token shards, expected {shards}; write the others with 'maskweave tokenize'"
            )
        return np.cumsum([0, *(len(_keys(path)) for path in lists)])


_stores: WeakSet[TokenData] = WeakSet()
"""The stores of this process."""


def _folder_at(root: str | os.PathLike[str]) -> Folder:
    starts = f"samples/{STARTS}"
    try:
        return folder_at(root, ("index.json", starts))
    except NoSuchFile as error:
        if starts not in str(error):
            raise
        raise MaskweaveError(
            f"{root}: has an index.json but no {starts}, so these tokens are not complete, or were made by an earlier version; "
            "run 'maskweave tokenize' once where they were made, then upload the folder 'samples' again"
        ) from error


def write_starts(root: Path, counts: Sequence[int]) -> None:
    """Write the index of a folder whose shards are complete and have `counts` samples."""
    with write_aside(root / "samples" / STARTS) as aside, open(aside, "wb") as file:
        np.save(file, np.cumsum([0, *counts], dtype=np.int64))


def read_starts(path: Path, shards: int) -> np.ndarray:
    """Returns the index that `write_starts` wrote.

    Raises:
        MaskweaveError: it is damaged, or of another number of shards.
    """
    try:
        starts = NpyRows(path)[:]
        if starts.dtype != np.int64 or starts.ndim != 1 or not len(starts) or starts[0] or (np.diff(starts) < 0).any():
            raise ValueError("expected ascending whole numbers from 0")
        if shards and len(starts) != shards + 1:
            raise ValueError(f"of {len(starts) - 1} shards, expected {shards}")
    except (ValueError, BadSample) as error:
        raise MaskweaveError(
            f"{path}: is damaged ({error}); remove it and run 'maskweave tokenize' again, which writes it anew"
        ) from error
    return starts


def _taken(arrays: Sequence[np.ndarray], part_of: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns (B, ...): for each sample, its `row` of the array `part_of`."""
    taken = np.empty((len(row), *arrays[0].shape[1:]), np.result_type(*arrays))
    for part, array in enumerate(arrays):
        here = np.flatnonzero(part_of == part)
        taken[here] = array[row[here]]
        if array.ndim > 1:
            _release(array)
    return taken


class _OpenShard:
    """The file of one modality of a shard: its mapped arrays, whose pages are read on access, and its `RowFile` if it has rows.

    Raises:
        MaskweaveError: it is damaged, or does not have so many samples.
    """

    def __init__(self, path: Path, samples: int):
        with open_file(path, mapped=True) as file:
            self.arrays: dict[str, Any] = {field: file.get_tensor(field).numpy() for field in file.keys()}  # noqa: SIM118
        if (found := len(self.arrays["present"])) != samples:
            raise MaskweaveError(f"{path}: contains {found} samples, expected {samples}; tokenize again")
        self.path, self.size = path, path.stat().st_size
        if "rows" in self.arrays:
            rows = self.arrays["rows"]
            self.arrays["rows"] = RowFile(path, _offset(path, "rows"), rows.shape, rows.dtype)

    def check(self, may_be_gone: bool) -> None:
        """Refuse a file that has changed: reading beyond its new end would kill the process.

        Args:
            may_be_gone: the file may be removed, from a cache; it stays readable.
        """
        if self.path.stat().st_size != self.size if self.path.exists() else not may_be_gone:
            raise MaskweaveError(
                f"{self.path}: was changed while it was read: it had {self.size:,} bytes; tokenize again"
            )


def _offset(path: Path, name: str) -> int:
    """Returns the place of a tensor's first byte in a safetensors file: after the header's length, 8 bytes, and the header."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length + int(parse_json(file.read(length))[name]["data_offsets"][0])


def _release(mapped: np.ndarray) -> None:
    """Take the pages of a memory-mapped array, which nothing writes to, out of this process's memory. They stay in the system's cache."""
    if _LIBC is not None:
        start = mapped.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        size = mapped.ctypes.data + mapped.nbytes - start
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def _keys(path: Path) -> list[str]:
    """Keys of a shard's samples. They are not cached: for a large data set they would take more memory than everything else."""
    return read_json(path, limit=None)["keys"]
