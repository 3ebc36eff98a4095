"""Tar shards ROOT/MODALITY/shard-00000.tar, the published 4M layout: written range by range, read by random access.

A member KEY.EXT belongs to sample KEY. The tar's headers are read once per shard to find the offset of each member. The member's bytes are then
read at this offset; nothing is extracted. Folders written by `maskweave data import` have an index; other folders are scanned.
"""

import bisect
import contextlib
import io
import itertools
import os
import tarfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave import system
from maskweave.arguments import check_arguments
from maskweave.data.mirror import with_local
from maskweave.data.parts import read_part
from maskweave.data.source import check_key
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.files import read_json, write_aside
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.files import MAX_BYTES
from maskweave.values.formats import split_ending

INDEX = "index.json"
"""File with the record of the entire data set, written when its import is finished."""
RANGES = ".index"
"""Folder with the record of each range of samples. No modality can have this name."""
FORMAT = 1
SAMPLES_IN_MEMORY = 64
"""Samples that an import or labeling holds before it writes them."""


class Tars(contextlib.ExitStack):
    """The tars of one range of samples, one per modality: temporary files, renamed together when the context exits without an error.

    The same content gives the same bytes: members have no times and no owner. A modality without members gets no tar.

    Raises:
        FullDisk: on exit, no space is left; incomplete tars are removed, and tars of an earlier run are kept.
    """

    def __init__(self, root: Path, shard: str):
        super().__init__()
        self.root, self.shard = root, shard
        self.counts: dict[str, int] = {}
        """Members by modality."""
        self._open: dict[str, tarfile.TarFile] = {}

    def add(self, name: str, key: str, ending: str, content: bytes) -> None:
        if name not in self._open:
            aside = self.enter_context(write_aside(self.path(name)))
            tar = tarfile.open(aside, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (the stack closes it)
            self._open[name] = self.enter_context(tar)
        info = tarfile.TarInfo(f"{key}.{ending}")
        info.size, info.mode, info.mtime = len(content), 0o644, 0
        self._open[name].addfile(info, io.BytesIO(content))
        self.counts[name] = self.counts.get(name, 0) + 1

    def finish(self) -> None:
        """Write the end marks of all tars. Must be the last call, so that no tar is renamed before all are complete."""
        for tar in self._open.values():
            tar.close()

    def path(self, name: str) -> Path:
        return self.root / name / f"{self.shard}.tar"


MAX_HEADER = 2**20
"""Bytes of an extended header of a tar, such as one with a long name."""


class _Headers(io.FileIO):
    """A tar whose headers are read: a damaged size in one must not allocate memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size or 0:,} bytes")
        return super().read(size)


class Scan(NamedTuple):
    """The members of one tar."""

    members: dict[str, tuple[str, int, int]]
    """Ending, offset and size in bytes by key."""
    faults: dict[str, str]
    """Reasons why a member cannot or must not be read, by key."""
    refused: list[str]
    """Reasons for members without a valid key."""
    damage: str
    """Why the tar could not be read to its end; empty if it is complete."""


def scan(path: Path, split: Callable[[str], tuple[str, str]] = split_ending) -> Scan:
    """Scan a tar, which may be in remote storage; see `_scan`."""
    return with_local(path, lambda local: _scan(local, str(path), split))


def _scan(local: Path, path: str, split: Callable[[str], tuple[str, str]]) -> Scan:
    """Read a tar's headers. Links, devices, sparse files, names that lead out of the folder, and too large members are refused.

    Args:
        local: the tar on this machine.
        path: its name in messages.
        split: splits a member's name into its key and its ending.

    If a tar is truncated or damaged, the members before the fault are kept and `damage` says where the fault is.
    """
    members: dict[str, tuple[str, int, int]] = {}
    faults: dict[str, str] = {}
    refused: list[str] = []
    offset, length = 0, 0
    damage = ""
    try:
        length = local.stat().st_size
        with _Headers(local) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                if tar.offset <= offset or info.size < 0:  # with a negative size, tarfile would loop forever
                    raise tarfile.ReadError("a header with an impossible size")
                offset = tar.offset
                name = info.name.removeprefix("./")
                if info.isdir() or name.rpartition("/")[2].startswith("."):
                    continue
                key, ending = split(name)
                try:
                    check_key(key if ending else "", path)
                except BadSample as error:
                    refused.append(str(error))
                    continue
                end = info.offset_data + info.size
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
                    faults[key] = f"{path}: member {name!r} is a link, device or sparse file; refused"
                elif info.size > MAX_BYTES:
                    faults[key] = f"{path}: member {name!r} has {info.size:,} bytes; expected at most {MAX_BYTES:,}"
                elif end > length:
                    faults[key] = f"{path}: member {name!r} is cut off: it ends at byte {end:,}, the file at {length:,}"
                elif key in members:
                    faults[key] = f"{path}: two members with the name {key!r}; keep one"
                else:
                    members[key] = (ending, info.offset_data, info.size)
            if tar.offset + 512 > length:
                raise tarfile.ReadError("no end mark")
    except (
        tarfile.TarError,
        OSError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:  # exceptions of tarfile for damaged headers
        if isinstance(error, FileNotFoundError) and str(local) != path:
            raise  # the cache has removed its copy, and fetches it again
        reason = " ".join(str(error).split())
        damage = f"{path}: truncated or damaged after {len(members)} members, at byte {offset:,} of {length:,} ({reason}); restore this file"
    return Scan(members, faults, refused, damage)


class _Table(NamedTuple):
    """Offsets of a shard's samples in the tar of one modality. Arrays, because millions of members must fit in memory."""

    offsets: np.ndarray
    """Offset in bytes of each sample's member, -1 if the sample has none."""
    sizes: np.ndarray
    endings: np.ndarray
    """Index into the entry's endings."""
    faults: dict[int, str]
    damage: str


class Shards:
    """A data set of tar shards: `shards[i]` is a sample whose values have the sizes of their entries.

    Args:
        root: folder with one folder of tars per modality, as `maskweave data import` or the published tools write it.
        catalog: the entries of the modalities; other folders are ignored.

    Raises:
        MaskweaveError: root is missing, has no tars of these modalities, its import is not finished, or it was imported with other entries.
    """

    @check_arguments
    def __init__(self, root: str | os.PathLike[str], catalog: Catalog):
        self.root = Path(root)
        self.catalog = catalog
        self.problems: list[str] = []
        """Messages about damaged tars and refused members found so far."""
        self._tables: dict[tuple[str, str], _Table] = {}
        self._entries = self._found()
        self._imported: dict[tuple[str, str], tuple[int, int]] = {}  # bytes and samples
        if (self.root / RANGES).is_dir():
            self._keys = self._indexed()
        else:
            self._keys = self._scanned()
            for problem in self.problems:
                warnings.warn(problem, stacklevel=2)
        self.shards: list[str] = list(self._keys)
        """Names of the shards, in order."""
        self._starts = [0, *itertools.accumulate(len(keys) for keys in self._keys.values())]
        if not len(self):
            found = "; ".join([f"{self.root}: its tars have no samples", *self.problems[:3]])
            raise MaskweaveError(f"{found}; expected members KEY.EXT; restore the tars")
        unique = set().union(*self._keys.values())
        self._repeated = len(unique) < len(self)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __len__(self) -> int:
        return self._starts[-1]

    def key(self, i: int) -> str:
        shard, j = self._locate(i)
        key = self._keys[shard][j]
        return f"{shard}/{key}" if self._repeated else key

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Returns sample i with each value at its entry's size. Missing modalities are left out.

        Raises:
            BadSample: a value cannot be read. The message names the file, what was found and what was expected.
            IndexError: i is not from 0 to len - 1.
        """
        return fit(self.raw(i), self.catalog)

    def raw(self, i: int, names: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Returns sample i, or only the modalities `names` of it, with each value at its stored resolution. Raises the errors of `shards[i]`."""
        shard, j = self._locate(i)
        sample = {}
        for name in self.names if names is None else names:
            part = self._bytes_of(shard, j, name)
            if part is not None:
                content, ending = part
                where = f"{self.path(shard, name)}: {self._keys[shard][j]}.{ending}"
                value = read_part(name, partial(self._entries[name].value.read, content, ending, where))
                if value is not None:
                    sample[name] = value
        return sample

    def keys_of(self, shard: str) -> list[str]:
        """Names of the samples in a shard, in order, as in its members."""
        return self._keys[shard]

    def first_of(self, shard: str) -> int:
        """Index of the first sample of a shard."""
        return self._starts[self.shards.index(shard)]

    def path(self, shard: str, name: str) -> Path:
        return self.root / name / f"{shard}.tar"

    def _locate(self, i: int) -> tuple[str, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = bisect.bisect_right(self._starts, i) - 1
        return self.shards[number], i - self._starts[number]

    def _bytes_of(self, shard: str, j: int, name: str) -> tuple[bytes, str] | None:
        """Returns the bytes and ending of one modality of a sample, or None if the sample lacks it."""
        table = self._table(shard, name)
        if j in table.faults:
            raise BadSample(table.faults[j])
        offset, size = int(table.offsets[j]), int(table.sizes[j])
        if offset < 0:
            if table.damage:  # the sample's member may be in the lost part of the tar
                raise BadSample(table.damage)
            return None
        try:
            content = with_local(self.path(shard, name), partial(read_range, offset=offset, size=size))
            if len(content) != size:
                raise OSError(0, f"read {len(content):,} of {size:,} bytes at byte {offset:,}")
        except OSError as error:
            raise BadSample(f"{self.path(shard, name)}: cannot be read: {error.strerror}") from error
        return content, self._entries[name].value.endings[table.endings[j]]

    def _table(self, shard: str, name: str) -> _Table:
        table = self._tables.get((shard, name))
        if table is None:
            table = self._tabled(shard, name)
            self._tables[shard, name] = table
        return table

    def _tabled(self, shard: str, name: str) -> _Table:
        keys, path = self._keys[shard], self.path(shard, name)
        expected = self._imported.get((shard, name))
        if expected is None and not path.exists():
            found = Scan({}, {}, [], "")
        else:
            found = scan(path)
            state = path.stat().st_size if path.exists() else 0, len(found.members) + len(found.faults)
            if not found.damage and expected is not None and expected != state:
                changed = (
                    f"{state[0]:,} bytes and {state[1]} members; expected {expected[0]:,} and {expected[1]} as imported"
                )
                found = found._replace(damage=f"{path}: {changed}; restore this file or import the folders again")
            if (
                not found.damage
                and expected is not None
                and (other := (found.members | found.faults).keys() - set(keys))
            ):
                reason = f"has {shown(min(other))}, which its index lacks"
                found = found._replace(damage=f"{path}: {reason}; restore {RANGES}, or import the folders again")
            self.problems += [*found.refused, *([found.damage] if found.damage else [])]
        return _table_of(found, keys, self._entries[name], path)

    def _found(self) -> dict[str, Modality]:
        """Returns the entries whose folders contain tars."""
        if not self.root.is_dir():
            raise MaskweaveError(f"{self.root}: no such folder; expected tar shards as MODALITY/shard-00000.tar")
        expected = [name for name, m in self.catalog.items() if not m.source]
        found = {name: self.catalog[name] for name in expected if any((self.root / name).glob("*.tar"))}
        if not found:
            folders = ", ".join(sorted(path.name for path in self.root.iterdir() if path.is_dir())[:10]) or "no folders"
            raise MaskweaveError(
                f"{self.root}: contains {folders}; expected tar shards as MODALITY/shard-00000.tar with MODALITY one of {', '.join(expected)}"
            )
        return found

    def _indexed(self) -> dict[str, list[str]]:
        if not (self.root / INDEX).exists():
            raise MaskweaveError(
                f"{self.root}: its import is not finished (no {INDEX}); run the same import again, it resumes where it stopped"
            )
        index = read_json(self.root / INDEX, limit=None)
        keys: dict[str, list[str]] = {}
        try:
            if index["format"] != FORMAT:
                raise MaskweaveError(
                    f"{self.root / INDEX}: format {index['format']}; expected {FORMAT}; import the folders again"
                )
            for name, record in index["modalities"].items():
                if name in self._entries:
                    _check_same(self._entries[name], record["value"], f"{self.root / INDEX}: {name}")
            for shard, samples in index["shards"].items():
                record = read_json(self.root / RANGES / f"{shard}.json", limit=None)
                keys[shard] = record["keys"]
                if len(keys[shard]) != samples or not all(isinstance(key, str) for key in keys[shard]):
                    raise KeyError
                for name, part in record["modalities"].items():
                    self._imported[shard, name] = part["bytes"], part["samples"]
            if sum(map(len, keys.values())) != index["samples"]:
                raise KeyError
        except (KeyError, TypeError, AttributeError) as error:
            raise MaskweaveError(f"{self.root}: its index is damaged; import the folders again") from error
        return keys

    def _scanned(self) -> dict[str, list[str]]:
        shards = sorted({path.stem for name in self._entries for path in (self.root / name).glob("*.tar")})
        keys: dict[str, list[str]] = {}
        for shard in shards:
            scans = {name: scan(self.path(shard, name)) for name in self._entries if self.path(shard, name).exists()}
            keys[shard] = list(dict.fromkeys(key for s in scans.values() for key in (*s.members, *s.faults)))
            for name, found in scans.items():
                self._tables[shard, name] = _table_of(found, keys[shard], self._entries[name], self.path(shard, name))
                self.problems += [*found.refused, *([found.damage] if found.damage else [])]
        return keys


def read_range(path: Path, offset: int, size: int) -> bytes:
    """Returns bytes of a file; fewer if it ends before."""
    with open(path, "rb", buffering=0) as file:  # opened for each read: processes share no file handle
        return system.read_at(file.fileno(), size, offset)


def _table_of(found: Scan, keys: list[str], entry: Modality, path: Path) -> _Table:
    known = entry.value.endings
    offsets, sizes, kinds = (
        np.full(len(keys), -1, np.int64),
        np.zeros(len(keys), np.int64),
        np.zeros(len(keys), np.uint8),
    )
    faults = {}
    for j, key in enumerate(keys):
        if key in found.faults:
            faults[j] = found.faults[key]
        elif key in found.members:
            ending, offset, size = found.members[key]
            if ending not in known:
                faults[j] = (
                    f"{path}: member {key}.{ending}: a file with this ending cannot hold values of type {entry.value.type!r}; expected {', '.join(known)}"
                )
                continue
            offsets[j], sizes[j], kinds[j] = offset, size, known.index(ending)
    return _Table(offsets, sizes, kinds, faults, found.damage)


def _check_same(entry: Modality, imported: dict[str, Any], where: str) -> None:
    """Check that the entry has not changed since the values were checked. Sizes may differ, because values are stored at their own."""
    for fact in entry.value.stored_facts:
        now = getattr(entry.value, fact)
        now = list(now) if isinstance(now, tuple) else now
        if imported.get(fact, now) != now:
            raise MaskweaveError(
                f"{where}: imported with value.{fact} {shown(imported[fact])}, but the catalog says {shown(now)}; use the catalog of the import, or import again"
            )
