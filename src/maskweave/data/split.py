"""Which samples of a data set are held out: by default those whose names have the smallest hashes.

The hash of a name depends only on the name and a seed, so the choice is the same on every machine and in any order of reading, and similar names
(of one class or one day) end up in both parts. Samples that belong together are kept in one part by hashing what their names share, `group`.

Nothing but arrays of 8 bytes per sample is kept in memory.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from maskweave import limits
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError, shown

PARTS = ("train", "validation")
"""Parts in a split's file."""
EXAMPLES = 3
CHUNK = 2**16
"""Names that are hashed before their hashes are joined to an array."""


@dataclass(frozen=True)
class Split:
    """How samples are divided into training and held-out samples."""

    by: Literal["hash", "order"] = "hash"
    """`hash`: the smallest hashes of the samples' names are held out. `order`: the last samples in order, for names that sort by time."""
    group: str = ""
    """Regular expression, `episode_\\\\d+` for instance: samples whose names match it with the same text (of its first group, if it has groups) are in one part."""
    file: str = ""
    """CSV file with the columns `name` and `part` (`train` or `validation`), instead of hashes."""
    fraction: float = 0.0
    """Held-out share of the samples, in place of the number `validation`: of each name it is decided by its hash alone, so samples that are added later move no others. 0: the number."""
    seed: int = 0
    """Another seed holds out other samples."""

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise MaskweaveError(f"fraction must be a share from 0 to below 1, found {self.fraction}")
        if self.seed < 0:
            raise MaskweaveError(f"seed must be 0 or more, found {self.seed}")
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)
        if self.file and (self.by, self.group, self.fraction, self.seed) != ("hash", "", 0, 0):
            raise MaskweaveError("file lists all names, so by, group, fraction and seed mean nothing; remove them")
        if self.by == "order" and (self.group or self.seed):
            raise MaskweaveError("group and seed are for by: hash; remove them, or by: order")
        try:
            re.compile(self.group)
        except re.error as error:
            raise MaskweaveError(f"group is {shown(self.group)}, not a regular expression: {error}") from error


class Divided(NamedTuple):
    """Indices of both parts, in order."""

    train: np.ndarray
    held_out: np.ndarray


def divide(source: Source, split: Split, count: int, place: str) -> Divided:
    """Returns the indices of the training and held-out samples.

    Args:
        count: number of held-out samples, unless the split has a file or a fraction. With groups, the whole groups that come closest to it are held out.
        place: name of the data set, for messages.

    Raises:
        MaskweaveError: a part would be empty, a name has no group, or the split's file does not fit the data; the message gives examples.
    """
    n = len(source)
    if not (split.file or split.by == "order"):
        split = replace(split, group=grouping(source, split))
    if split.file:
        held_out = _listed(source, split.file, place)
    elif split.by == "order":
        held_out = np.arange(n) >= n - (round(split.fraction * n) if split.fraction else count)
    else:
        hashes = hash_names(_grouped(source, split.group, place), split.seed)
        held_out = _smallest(hashes, split, count)
    found = Divided(np.flatnonzero(~held_out), np.flatnonzero(held_out))
    if not len(found.train):
        wanted = f"the {len(found.held_out)} that are asked for" if split.group or split.file else f"{count}"
        raise MaskweaveError(f"{place}: has {n} samples, too few to hold out {wanted}; lower data.validation")
    if not len(found.held_out):
        raise MaskweaveError(
            f"{place}: none of its {n} samples is held out; raise data.split.fraction, or list some as 'validation' in data.split.file"
        )
    return found


def hash_names(names: Iterable[str], seed: int = 0) -> np.ndarray:
    """Returns the hash of each name, uint64: the 8 bytes of BLAKE2b, with the seed as salt."""
    start = hashlib.blake2b(digest_size=8, salt=seed.to_bytes(16, "little"))

    def digest(name: str) -> bytes:
        hasher = start.copy()  # twice as fast as a new one
        hasher.update(name.encode("utf-8", "surrogatepass"))
        return hasher.digest()

    remaining = iter(names)
    found = [np.empty(0, "<u8")]
    while some := b"".join(map(digest, islice(remaining, CHUNK))):
        found.append(np.frombuffer(some, "<u8"))
    return np.concatenate(found).astype(np.uint64)


def some_by_hash(source: Source, indices: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` of the indices, in order: those with the largest hashes of their names, so that they do not depend on the order of the samples."""
    if not 0 < count < len(indices):
        return indices
    hashes = hash_names(map(source.key, indices.tolist()))
    return np.sort(indices[np.argpartition(hashes, -count)[-count:]])


def take_evenly(indices: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` of the indices, evenly spread; all if there are not more."""
    return indices[np.linspace(0, len(indices) - 1, count).astype(int)] if 0 < count < len(indices) else indices


def put_last(hashes: np.ndarray, share: float) -> np.ndarray:
    """Returns an order of the samples in which the share with the smallest hashes comes last."""
    last = round(share * len(hashes))
    if not last:
        return np.arange(len(hashes))
    return np.argsort(hashes <= np.partition(hashes, last - 1)[last - 1], kind="stable")


def grouping(source: Source, split: Split) -> str:
    """Returns the regular expression by which samples belong together: that of the split, or of the source; empty: each is alone."""
    return split.group or getattr(source, "split_group", "")  # windows of one episode, for instance


def group_of(expression: str) -> Callable[[str], str]:
    """Returns the function from a name to what is hashed in its place; "" if the name does not match."""
    if not expression:
        return lambda name: name
    pattern = re.compile(expression)

    def group(name: str) -> str:
        match = pattern.search(name)
        return "" if match is None else (match[1] if pattern.groups else match[0]) or ""

    return group


def _grouped(source: Source, expression: str, place: str) -> Iterator[str]:
    group, without = group_of(expression), list[str]()
    missing = 0
    for i in range(len(source)):
        name = source.key(i)
        found = group(name)
        if not found:
            missing += 1
            without += [name] * (len(without) < EXAMPLES)
        yield found
    if missing:
        raise MaskweaveError(
            f"{place}: {missing} of {len(source)} names do not match data.split.group {shown(expression)}: {', '.join(map(shown, without))}; give an expression that matches all names"
        )


def _smallest(hashes: np.ndarray, split: Split, count: int) -> np.ndarray:
    """Whether each sample is held out."""
    if split.fraction:
        return hashes < np.uint64(int(split.fraction * 2.0**64))
    if split.group:
        groups, sizes = np.unique(hashes, return_counts=True)
        closest = int(np.abs(np.cumsum(sizes) - count).argmin())
        return hashes <= groups[closest]
    held_out = np.zeros(len(hashes), bool)
    if count >= len(hashes):
        return ~held_out
    held_out[np.argpartition(hashes, count - 1)[:count]] = True
    return held_out


def _listed(source: Source, file: str, place: str) -> np.ndarray:
    """Whether each sample is held out, as its file says."""
    names = hash_names(name for name, _ in _rows(file))
    held_out = np.fromiter((part == "validation" for _, part in _rows(file)), bool, len(names))
    order = np.argsort(names, kind="stable")
    names, held_out = names[order], held_out[order]
    if twice := np.flatnonzero((names[1:] == names[:-1]) & (held_out[1:] != held_out[:-1])).tolist():
        raise MaskweaveError(f"{file}: {_named(file, names[twice])} listed in both parts; keep one row of each")
    own = hash_names(map(source.key, range(len(source))))
    at = np.minimum(np.searchsorted(names, own), max(len(names) - 1, 0))
    known = names[at] == own if len(names) else np.zeros(len(own), bool)
    if not known.all():
        examples = ", ".join(shown(source.key(i)) for i in np.flatnonzero(~known)[:EXAMPLES].tolist())
        raise MaskweaveError(
            f"{file}: {np.sum(~known)} of the {len(own)} samples of {place} are not listed: {examples}; add a row with the name and {' or '.join(PARTS)} for each"
        )
    unknown = ~np.isin(names, own)
    if unknown.any():
        import warnings

        warnings.warn(f"{file}: {_named(file, names[unknown])} listed, but not in {place}; ignored", stacklevel=2)
    return held_out[at]


def _named(file: str, hashes: np.ndarray) -> str:
    """The number of names with these hashes in a file, and the first of them."""
    wanted = set(hashes[: 10 * EXAMPLES].tolist())
    found = (name for name, _ in _rows(file) if hash_names([name])[0] in wanted)
    examples = dict.fromkeys(shown(name) for name, _ in zip(found, range(EXAMPLES), strict=False))
    count = len(np.unique(hashes))
    return f"{count} {'name' if count == 1 else 'names'} ({', '.join(examples)}) {'is' if count == 1 else 'are'}"


def _rows(file: str) -> Iterator[tuple[str, str]]:
    """Yields the names and parts of a CSV file."""
    path = Path(file)
    if not path.is_file():
        raise MaskweaveError(
            f"data.split.file: {file}: no such file; expected a CSV file with the columns name and part"
        )
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = csv.DictReader(lines)
        if not {"name", "part"} <= set(rows.fieldnames or ()):
            raise MaskweaveError(
                f"{file}: its first line is {shown(','.join(rows.fieldnames or ()))}; expected a line with the columns name and part"
            )
        try:
            for row in rows:
                yield _row(row, file, rows.line_num)
        except csv.Error as error:
            raise MaskweaveError(f"{file}: line {rows.line_num} cannot be read as CSV ({error}); correct it") from error


def _row(row: dict[str, Any], file: str, line: int) -> tuple[str, str]:
    name, part = row["name"] or "", (row["part"] or "").strip()
    if not name or part not in PARTS:
        raise MaskweaveError(
            f"{file}: line {line} has name {shown(name)} and part {shown(part)}; expected a name and {' or '.join(PARTS)}"
        )
    return name, part
