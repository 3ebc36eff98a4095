"""Token shards: a tokenized data set, as the model reads it.

    ROOT/index.json                            the modalities, with fingerprints of the entries and tokenizers that made their tokens
    ROOT/samples/shard-00000.json              keys of the shard's samples; written last: if it exists, the shard is complete
    ROOT/samples/shard-00000.skipped.jsonl     names of the shard's skipped samples and the reasons, if any
    ROOT/MODALITY/shard-00000.safetensors      present (S,); ids (S, L), length (S,) for sequences and vectors, rows (S, L, C) for raw values,
                                               valid (S, L) for values with unknown points

Shards are memory-mapped.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.config import plain_changes
from maskweave.data.columns import Column
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, write_aside
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality, training_facts
from maskweave.nn.weights import open_tensors, save_tensors

Columns = dict[str, Column]


def shard_name(number: int) -> str:
    return f"shard-{number:05d}"


def entry_fingerprint(modality: Modality) -> str:
    """Hash of an entry that changes if tokens made from the old entry are no longer valid. A setting that a later version adds does not change it
    while it has its default."""
    facts = training_facts(modality, plain_changes)
    content = {key: facts.get(key) for key in ("name", "kind", "value", "grid", "max_tokens", "tokenizer")}
    if facts.get("valid"):
        content["valid"] = facts["valid"]
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
        catalog: modalities to read; a modality that the shards lack is missing from every sample.

    Raises:
        MaskweaveError: there are no shards, one is truncated, or tokens were made from another entry than the catalog's.
    """

    def __init__(self, root: str | os.PathLike[str], catalog: Catalog):
        self.root = Path(root)
        self.catalog = catalog
        index = read_json(self.root / "index.json", limit=None)
        if not isinstance(index, dict) or not isinstance(index.get("modalities", {}), dict):
            raise MaskweaveError(f"{self.root}: its index.json is damaged; remove the folder and tokenize again")
        for name, fingerprint in index.get("modalities", {}).items():
            if name in catalog and fingerprint != entry_fingerprint(catalog[name]):
                raise MaskweaveError(
                    f"{self.root}: the entry of {name!r} in {catalog.where} has changed since these tokens were made; restore it, or tokenize again"
                )
        self.names = [name for name in catalog if name in index.get("modalities", {})]
        shards = sorted((self.root / "samples").glob("shard-*.json"))
        self.shards = [path.stem for path in shards]
        self.starts = np.cumsum([0, *(len(_keys(path)) for path in shards)])
        expected = -(-index.get("samples", 0) // index.get("shard_size", 1))
        if len(shards) < expected:
            raise MaskweaveError(
                f"{self.root}: found {len(shards)} token shards, expected {expected}; write the others with 'maskweave tokenize'"
            )
        if not self.names or not len(self):
            raise MaskweaveError(
                f"{self.root}: has no token shards for any of {', '.join(catalog)}; make them with 'maskweave tokenize'"
            )
        self.counts, self.weights = (len(self),), (1.0,)  # one data set; `MixedTokens` has several
        self._open: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self._mapped: dict[tuple[str, int], tuple[Path, int]] = {}
        """File and bytes of each open shard."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # each worker process maps the files itself

    def key(self, i: int) -> str:
        shard = int(np.searchsorted(self.starts, i, side="right")) - 1
        return _keys(self.root / "samples" / f"{self.shards[shard]}.json")[i - int(self.starts[shard])]

    def columns(self, indices: np.ndarray) -> Columns:
        """The tokens of the samples `indices` (B,), in that order."""
        shard_of = np.searchsorted(self.starts, indices, side="right") - 1
        order = np.argsort(shard_of, kind="stable")
        back = np.argsort(order, kind="stable")
        groups = [order[shard_of[order] == s] for s in np.unique(shard_of)]
        columns = {}
        for name in self.names:
            parts = []
            for group in groups:
                shard = int(shard_of[group[0]])
                arrays = self._arrays(name, shard)
                parts.append({key: a[indices[group] - self.starts[shard]] for key, a in arrays.items()})
            joined = {key: np.concatenate([part[key] for part in parts])[back] for key in parts[0]}
            columns[name] = Column(**joined)
        return columns

    def _arrays(self, name: str, shard: int) -> dict[str, np.ndarray]:
        key = (name, shard)
        if key not in self._open:
            path = self.root / name / f"{self.shards[shard]}.safetensors"
            with open_tensors(path) as file:  # memory-mapped: pages are read on access
                arrays = {field: file.get_tensor(field).numpy() for field in file.keys()}  # noqa: SIM118
            found, expected = len(arrays["present"]), int(self.starts[shard + 1] - self.starts[shard])
            if found != expected:
                raise MaskweaveError(f"{path}: contains {found} samples, expected {expected}; tokenize again")
            self._open[key] = arrays
            self._mapped[key] = path, path.stat().st_size
        path, size = self._mapped[key]
        if not path.exists() or path.stat().st_size != size:  # reading beyond its new end would kill the process
            raise MaskweaveError(f"{path}: was changed while it was read: it had {size:,} bytes; tokenize again")
        return self._open[key]


def _keys(path: Path) -> list[str]:
    """Keys of a shard's samples. They are not cached: for a large data set they would take more memory than everything else."""
    return read_json(path, limit=None)["keys"]
