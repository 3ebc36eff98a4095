"""WebDataset tars (https://github.com/webdataset/webdataset): all parts of a sample in one tar, ROOT/*.tar or *.tar.gz, read by random access.

A member PATH/KEY.FIELD belongs to sample PATH/KEY. The field is all that follows the first dot of its name: `0001.seg.png` has the field
`seg.png`. Members that no modality reads are ignored. Compressed tars are unpacked once into temporary files, which are removed at exit.
"""

import atexit
import functools
import gzip
import hashlib
import itertools
import os
import shutil
import tempfile
import warnings
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskweave.data.mirror import version, with_local
from maskweave.data.part_source import FilePart, PartSource
from maskweave.data.shards import Scan, read_range, scan
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import stamp, write_aside
from maskweave.locks import is_alive, signed, split_signed
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.formats import split_ending

PLAIN, PACKED = (".tar",), (".tar.gz", ".tgz")
SHARED = "MASKWEAVE_UNPACKED_TARS"
"""Variable of the environment with the folder of unpacked tars, for processes that are started from one another."""
UNPACKED = "maskweave-tars"
"""Start of the name of that folder."""
TEXTS = {"cls": "txt", "text": "txt"}
"""Endings that WebDataset uses for texts."""
MOST_LISTED = 12
UNCHECKED, KEPT_FREE = 2**26, 0.1
"""Compressed tars with more bytes than this must leave this part of the disk free while they are unpacked: a small file can contain terabytes."""


def tars_in(place: Path) -> list[Path]:
    """Returns the tars of a WebDataset: the file itself, or the tars directly in a folder, sorted."""
    files = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else []
    return [path for path in files if path.name.lower().endswith(PLAIN + PACKED) and not path.name.startswith(".")]


class _Tar(NamedTuple):
    """The samples of one tar. Arrays, because millions of members must fit in memory."""

    path: Path
    """Plain tar that is read: the tar itself, or its unpacked copy."""
    keys: list[str]
    offsets: np.ndarray
    """(samples, modalities): offset of each part in bytes, -1 if the sample lacks it."""
    sizes: np.ndarray
    endings: np.ndarray
    """Index into the endings of the entry."""
    faults: dict[tuple[int, int], str]
    """Reasons why a part cannot be read, by sample and modality."""
    damage: str


class WebTars(PartSource):
    """A data set of WebDataset tars: `tars[i]` is a sample whose values have the sizes of their entries.

    Args:
        place: a tar, or a folder of tars.
        catalog: the entries of the modalities.
        fields: field of each modality, `{"rgb": "jpg", "caption": "txt"}`; several possible ones are separated by `;`. A modality that is not
            listed is read from the field NAME.ENDING, `depth.npy` for instance.

    Raises:
        MaskweaveError: there is no tar, a field is of no sample or cannot hold the values of its entry, or no modality has a field.
    """

    def __init__(self, place: str | os.PathLike[str], catalog: Catalog, fields: Mapping[str, str] | None = None):
        self.place, self.catalog = Path(place), catalog
        self.notes: list[str] = []
        paths = tars_in(self.place)
        if not paths:
            raise MaskweaveError(f"{place}: contains no tars; expected {', '.join(f'NAME{e}' for e in PLAIN + PACKED)}")
        wanted = _wanted(catalog, fields or {}, str(place))
        self._fields = {name: list(found) for name, found in wanted.items()}
        self.problems: list[str] = []
        """Messages about damaged tars and refused members."""
        found: Counter[str] = Counter()
        self._names = list(wanted)
        self._tars = {path.name: self._tabled(path, wanted, found) for path in paths}
        present = np.zeros(len(self._names), bool)
        for tar in self._tars.values():
            present |= (tar.offsets >= 0).any(axis=0)
        listed = ", ".join(f"{field} ({count})" for field, count in found.most_common(MOST_LISTED)) or "none"
        for name in fields or {}:
            if name in self._names and not present[self._names.index(name)]:
                raise MaskweaveError(
                    f"{place}: no sample has the field {fields[name]!r} of {name}; found the fields {listed}"  # type: ignore[index]
                )
        if not present.any():
            example = "{" + ", ".join(f"{name}: FIELD" for name in self._names[:2]) + "}"
            raise MaskweaveError(
                f"{place}: no field is named like a modality ({', '.join(self._names[:MOST_LISTED])}); found the fields {listed}; set data.fields: {example}"
            )
        self._present = [name for name, is_present in zip(self._names, present, strict=True) if is_present]
        self._starts = [0, *itertools.accumulate(len(tar.keys) for tar in self._tars.values())]
        self._repeated = len(set().union(*(tar.keys for tar in self._tars.values()))) < len(self)
        for problem in self.problems:
            warnings.warn(problem, stacklevel=2)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._present)

    def __len__(self) -> int:
        return self._starts[-1]

    def key(self, i: int) -> str:
        name, tar, j = self._locate(i)
        return f"{split_ending(name)[0].removesuffix('.tar')}/{tar.keys[j]}" if self._repeated else tar.keys[j]

    def part(self, i: int, name: str) -> FilePart | None:
        """Returns one value of sample i. The errors name the tar, what was found and what was expected."""
        file, tar, j = self._locate(i)
        k = self._names.index(name)
        if (j, k) in tar.faults:
            raise BadSample(tar.faults[j, k])
        if tar.offsets[j, k] < 0:
            if tar.damage and j == len(tar.keys) - 1:  # the part may be in the lost rest of the tar
                raise BadSample(tar.damage)
            return None
        ending = self.catalog[name].value.endings[tar.endings[j, k]]
        where = f"{self.place if self.place.is_file() else self.place / file}: {tar.keys[j]} ({name}, {ending})"
        return FilePart(bytes_at(tar.path, int(tar.offsets[j, k]), int(tar.sizes[j, k]), where), ending, where)

    def state(self) -> list[Any]:
        tars = [[path.name, *version(path)] for path in tars_in(self.place)]
        return [tars, self._fields]

    def _locate(self, i: int) -> tuple[str, _Tar, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = bisect_right(self._starts, i) - 1
        name = list(self._tars)[number]
        return name, self._tars[name], i - self._starts[number]

    def _tabled(self, path: Path, wanted: Mapping[str, Mapping[str, int]], found: Counter[str]) -> _Tar:
        plain = unpacked(path, tuple(stamp(path))) if path.name.lower().endswith(PACKED) else path
        members = scan(plain, split=lambda name: (name, "-"))
        if plain != path:  # messages name the user's file
            members = Scan(
                members.members,
                {name: fault.replace(str(plain), str(path)) for name, fault in members.faults.items()},
                [refused.replace(str(plain), str(path)) for refused in members.refused],
                members.damage.replace(str(plain), str(path)),
            )
        self.problems += [*members.refused, *filter(None, [members.damage])]
        samples: dict[str, int] = {}
        parts: list[tuple[int, int, str, str]] = []  # sample, modality, ending's field, member
        for member in (*members.members, *members.faults):
            key, field = split_field(member)
            found[field] += 1
            for k, fields in enumerate(wanted.values()):
                if field in fields:
                    parts.append((samples.setdefault(key, len(samples)), k, field, member))
        shape = len(samples), len(wanted)
        tar = _Tar(
            plain,
            list(samples),
            np.full(shape, -1, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.uint8),
            {},
            members.damage,
        )
        for j, k, field, member in parts:
            if member in members.faults:
                tar.faults[j, k] = members.faults[member]
            elif tar.offsets[j, k] >= 0:
                tar.faults[j, k] = f"{path}: {tar.keys[j]} has two fields for {self._names[k]}; expected one; keep one"
            else:
                _, tar.offsets[j, k], tar.sizes[j, k] = members.members[member]
                tar.endings[j, k] = wanted[self._names[k]][field]
        return tar


def split_field(member: str) -> tuple[str, str]:
    """Splits a member's name at the first dot of its last part into the sample's key and the field, in lower case."""
    folder, slash, name = member.rpartition("/")
    key, _, field = name.partition(".")
    return f"{folder}{slash}{key}", field.lower()


def _wanted(catalog: Catalog, fields: Mapping[str, str], where: str) -> dict[str, dict[str, int]]:
    """Returns the fields that each modality reads, with the index of their ending in the entry's endings."""
    wanted: dict[str, dict[str, int]] = {}
    for name in fields:
        if name not in catalog or catalog[name].source:
            known = [n for n, m in catalog.items() if not m.source]
            raise MaskweaveError(
                f"{where}: data.fields has {name!r}; expected modalities of the catalog: {', '.join(known)}"
            )
    for name, entry in catalog.items():
        if entry.source:
            continue
        given = [field.strip().lstrip(".").lower() for field in fields[name].split(";")] if name in fields else []
        wanted[name] = {field: _ending_of(field, entry) for field in given} or {
            f"{name.lower()}.{ending}": i for i, ending in enumerate(entry.value.endings)
        }
    return wanted


def _ending_of(field: str, entry: Modality) -> int:
    """Returns the index of a field's ending in the endings that the entry can read."""
    ending = split_ending(f"x.{field}")[1]
    ending = TEXTS.get(ending, ending)
    if ending not in entry.value.endings:
        raise MaskweaveError(
            f"data.fields.{entry.name}: a field that ends in {ending!r} cannot hold values of type {entry.value.type!r}; expected {', '.join(entry.value.endings)}"
        )
    return entry.value.endings.index(ending)


def bytes_at(path: Path, offset: int, size: int, where: str) -> bytes:
    """Returns a member of a plain tar; raises BadSample if it is not complete."""
    try:
        content = with_local(path, functools.partial(read_range, offset=offset, size=size))
    except OSError as error:
        raise BadSample(f"{where}: cannot be read: {error.strerror}") from error
    if len(content) != size:
        raise BadSample(f"{where}: truncated: {len(content):,} of {size:,} bytes; restore the tar")
    return content


@functools.cache
def _folder() -> Path:
    """A folder for unpacked tars, which the processes that this one starts share. It is removed at exit by the process that made it; those of processes
    that were killed are removed here."""
    shared = os.environ.get(SHARED, "")
    if shared and Path(shared).is_dir():
        return Path(shared)
    for other in Path(tempfile.gettempdir()).glob(f"{UNPACKED}.*"):
        _, writer = split_signed(other.name) or ("", None)
        if writer is not None and writer.is_here() and not is_alive(writer.process, writer.start):
            shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.gettempdir(), signed(UNPACKED))
    folder.mkdir(mode=0o700)
    os.environ[SHARED] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def unpacked(path: Path, version: tuple[int, ...]) -> Path:
    """Unpack a compressed tar, once per version of the file for a process and those that it starts; returns the path of the plain tar.

    If it is damaged, what comes before the fault is kept; reading the tar then reports where it ends.
    """
    name = f"{path.resolve()}\0{version}"
    plain = _folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.tar"
    if plain.exists():
        return plain
    with write_aside(plain) as aside, open(aside, "wb") as out:
        try:
            with with_local(path, gzip.open) as stream:
                while chunk := stream.read1(2**16):  # unlike read, returns what comes before a fault
                    out.write(chunk)
                    disk = shutil.disk_usage(plain.parent) if out.tell() > UNCHECKED else None
                    if disk is not None and disk.free < KEPT_FREE * disk.total:
                        raise OSError(f"after {out.tell():,} bytes, less than {KEPT_FREE:.0%} of the disk is free")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            warnings.warn(
                f"{path}: damaged or truncated after {out.tell():,} unpacked bytes ({error}); restore this file",
                stacklevel=2,
            )
        except OSError as error:
            raise MaskweaveError(
                f"{path}: cannot be unpacked into {plain.parent} ({error.strerror or error}); free some space there, set TMPDIR to another folder, or unpack it yourself: gunzip"
            ) from error
    return plain
