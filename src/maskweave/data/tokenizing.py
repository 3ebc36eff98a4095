"""Running every tokenizer once over a data set: samples in, token shards out (see `maskweave.data.token_store`).

An interrupted run resumes at the first unfinished shard: a shard that has its sample list is complete and is kept. When all are complete, the
counts are written to one index, so that later runs read no lists.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.columns import Column
from maskweave.data.error_budget import (
    SKIPPED,
    ErrorBudget,
    Fault,
    counts,
    faults_of,
    faulty,
    read_faults,
    write_faults,
)
from maskweave.data.parts import OnBad, Remarks
from maskweave.data.reading import Joined, Read, read, shard_ranges
from maskweave.data.source import Source
from maskweave.data.token_store import STARTS, entry_fingerprint, read_starts, shard_name, write_column, write_starts
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import claim_record, read_json, read_json_lines, remove, write_json
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.nn.patches import patchify
from maskweave.progress import progress
from maskweave.ranks import WHOLE, JobPart
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.external import ExternalGridTokenizer

FORMAT = 2
TOTALS = "totals.json"
"""File with the counts of the faults and remarks of all shards, beside the index."""


def tokenize(
    source: Source,
    catalog: Catalog,
    tokenizers: Mapping[str, Tokenizer],
    out: str | os.PathLike[str],
    *,
    shard_size: int = 1000,
    workers: int = 0,
    limit: float = 0.01,
    bad: OnBad = "part",
    part: JobPart = WHOLE,
) -> ErrorBudget:
    """Write the tokens of all samples of `source` under `out`.

    Args:
        tokenizers: for every grid and sequence of the catalog.
        shard_size: samples per shard.
        workers: processes that read samples.
        limit: largest share of samples with unusable values, 0 to 1.
        bad: what an unusable value drops.
        part: the part of the shards to write.

    Returns:
        the faults, and what reading changed, including those of earlier calls; of all shards that are finished.

    Raises:
        MaskweaveError: a tokenizer is missing, `out` has tokens of other tokenizers, or too many samples are unusable.
    """
    out = Path(out)
    lacking = [m.name for m in catalog.values() if m.has_tokens and m.name not in tokenizers]
    if lacking:
        raise MaskweaveError(
            f"no tokenizer for {', '.join(lacking)}; train one, or leave the modality out of the recipe"
        )
    _claim_tokens(out, catalog, tokenizers, len(source), shard_size)
    shards = range(-(-len(source) // shard_size))
    mine = part.mine(shards)
    missing = {s for s in shards if not _sample_list(out, s).exists()}
    todo = [s for s in mine if s in missing]
    skips = ErrorBudget(limit)
    if not missing and _count_all(out, len(shards), skips):
        _check(out, skips, shards, finished=True)
        return skips
    if todo:
        remove(out / "samples" / STARTS)
    counted = {shard: _count(out, shard, skips) for shard in sorted(set(mine) - set(todo))}
    ranges = shard_ranges(len(source), shard_size, mine)
    sizes = {s: len(some) for s, some in ranges.items()}
    with progress("tokenize", sum(sizes.values()), quiet=not part.count) as bar:
        bar.advance(sum(sizes[s] for s in sizes if s not in todo))
        stream = read(source, Joined([ranges[s] for s in todo]), workers, bad)
        for shard in todo:
            reads = [next(stream) for _ in range(sizes[shard])]
            _write_shard(out, shard, reads, catalog, tokenizers, bad)
            counted[shard] = _count(out, shard, skips)
            _check(out, skips, mine)
            bar.advance(sizes[shard])
        left = sum(not _sample_list(out, s).exists() for s in shards)
        if line := part.left(left, len(shards), str(out)):
            bar.say(line)
    if left:
        return skips
    if len(counted) < len(shards):  # other parts wrote the rest
        skips = ErrorBudget(limit)
        counted = {shard: _count(out, shard, skips) for shard in shards}
    _check(out, skips, shards, finished=True)
    write_json(out / "samples" / TOTALS, {**counts(skips.faults), "remarks": _listed(skips.remarks)})
    write_starts(out, [counted[shard] for shard in shards])
    return skips


def _count_all(out: Path, shards: int, skips: ErrorBudget) -> bool:
    """Count the samples and faults of finished shards by their index. Returns whether there is one."""
    starts, totals = out / "samples" / STARTS, out / "samples" / TOTALS
    if not starts.exists() or not totals.exists():
        return False
    content = read_json(totals, limit=None)
    lists = sorted(path for path in starts.parent.iterdir() if path.name.endswith(SKIPPED)) if faulty(content) else ()
    faults = [Fault(*map(str, line)) for path in lists for line in read_json_lines(path)]
    if len(faults) != faulty(content):
        return False
    skips.good(int(read_starts(starts, shards)[-1]))
    skips.extend(faults)
    skips.remarks.update({(name, text): count for name, text, count in content["remarks"]})
    return True


def _listed(remarks: Remarks) -> list[list[Any]]:
    return [[name, text, count] for (name, text), count in sorted(remarks.items())]


def _count(out: Path, shard: int, skips: ErrorBudget) -> int:
    """Count the samples and faults of a finished shard. Returns the number of samples."""
    content = read_json(_sample_list(out, shard), limit=None)
    skips.good(len(content["keys"]))
    skips.extend(read_faults(_skipped(out, shard), content))
    skips.remarks.update({(name, text): count for name, text, count in content.get("remarks", [])})
    return len(content["keys"])


def _check(out: Path, skips: ErrorBudget, shards: range, finished: bool = False) -> None:
    skips.check_shards((_sample_list(out, shard) for shard in shards), finished, out / "samples" / STARTS)


def _sample_list(out: Path, shard: int) -> Path:
    return out / "samples" / f"{shard_name(shard)}.json"


def _skipped(out: Path, shard: int) -> Path:
    return out / "samples" / f"{shard_name(shard)}{SKIPPED}"


def _claim_tokens(
    out: Path, catalog: Catalog, tokenizers: Mapping[str, Tokenizer], samples: int, shard_size: int
) -> None:
    """Write the index, or check that the existing one has the same tokenizers and data."""
    index = {
        "format": FORMAT,
        "modalities": {name: entry_fingerprint(m) for name, m in catalog.items()},
        "tokenizers": {name: tokenizers[name].fingerprint for name in catalog if name in tokenizers},
        "samples": samples,
        "shard_size": shard_size,
    }
    claim_record(out / "index.json", index, "tokens")


def _write_shard(
    out: Path, shard: int, reads: Sequence[Read], catalog: Catalog, tokenizers: Mapping[str, Tokenizer], bad: OnBad
) -> None:
    valid = [item for item in reads if not item.error]
    faults = faults_of(reads)
    columns: dict[str, Column] = {}
    for name, modality in catalog.items():
        values = [item.sample.get(modality.reads) for item in valid]
        while True:  # encode all samples at once; if that fails, drop the bad ones and encode again
            try:
                columns[name] = column_of(modality, values, tokenizers.get(name))
                break
            except BadSample:
                errors = [_fault(modality, value, tokenizers.get(name)) for value in values]
                if not any(errors):
                    raise
                found = [(item.key, error) for item, error in zip(valid, errors, strict=True) if error]
                if bad == "part":
                    faults += [Fault(key, error, name) for key, error in found]
                    values = [None if error else value for value, error in zip(values, errors, strict=True)]
                else:
                    faults += [Fault(key, error) for key, error in found]
                    keep = np.array([not error for error in errors])
                    valid, values = list(compress(valid, keep)), list(compress(values, keep))
                    columns = {n: c.keep(keep) for n, c in columns.items()}
    for name, column in columns.items():
        write_column(out, name, shard, column)
    write_faults(_skipped(out, shard), faults)
    remarks: Remarks = sum((item.remarks for item in reads), Counter())
    content: dict[str, Any] = {"keys": [item.key for item in valid], **counts(faults)}
    if remarks:
        content["remarks"] = _listed(remarks)
    write_json(_sample_list(out, shard), content)


def _fault(modality: Modality, value: Any, tokenizer: Tokenizer | None) -> str:
    try:
        column_of(modality, [value], tokenizer)
    except BadSample as error:
        return str(error)
    return ""


def _valid(
    modality: Modality, given: Sequence[Any], present: np.ndarray, tokenizer: Tokenizer | None
) -> np.ndarray | None:
    """(S, tokens) which tokens have a known point; None if all points of the entry's values are known, or unknown ones have a code."""
    value = modality.value
    if not value.has_unknown or (modality.kind == "grid" and value.predicts_unknown):
        return None
    valid = np.zeros((len(present), modality.tokens), bool)
    if given and isinstance(tokenizer, ExternalGridTokenizer):
        checked = value.check_batch(given, modality.name)
        valid[present] = tokenizer.known_tokens(checked).reshape(len(given), -1)
    elif given:
        known = np.stack([value.known(item) for item in value.check_batch(given, modality.name)])
        valid[present] = patchify(known.reshape(len(given), *value.size, -1), modality.grid).any(axis=-1)
    return valid


def column_of(modality: Modality, values: Sequence[Any], tokenizer: Tokenizer | None) -> Column:
    """Convert the values of one modality (None: missing) to tokens or raw rows.

    Raises:
        BadSample: a value does not fit the entry.
    """
    present = np.array([value is not None for value in values], bool)
    given = [value for value in values if value is not None]
    S = len(values)
    match modality.kind:
        case "grid":
            ids = np.zeros((S, modality.tokens), np.int64)
            if given:
                ids[present] = np.asarray(tokenizer.encode(given)).reshape(len(given), -1)  # type: ignore[union-attr]
            return Column(present, ids=ids, valid=_valid(modality, given, present, tokenizer))
        case "sequence":
            ids, length = np.zeros((S, modality.max_tokens), np.int64), np.zeros(S, np.int64)
            for row, tokens in zip(np.flatnonzero(present), tokenizer.encode(given) if given else (), strict=True):  # type: ignore[union-attr]
                ids[row, : len(tokens)], length[row] = tokens, len(tokens)
            return Column(present, ids=ids, length=length)
        case "patches":
            rows = np.zeros((S, modality.tokens, modality.row_width), modality.value.row_dtype)
            if given:
                batch = np.stack(modality.value.check_batch(given, modality.name))
                rows[present] = patchify(batch.reshape(len(given), *modality.value.size, -1), modality.grid)
            return Column(present, rows=rows, valid=_valid(modality, given, present, None))
        case _:
            rows = np.zeros((S, modality.max_tokens, modality.row_width), modality.value.row_dtype)
            length = np.zeros(S, np.int64)
            for row, vectors in zip(
                np.flatnonzero(present), modality.value.check_batch(given, modality.name), strict=True
            ):
                if len(vectors) > modality.max_tokens:
                    raise BadSample(
                        f"{modality.name}: found {len(vectors)} vectors, expected at most max_tokens {modality.max_tokens}"
                    )
                rows[row, : len(vectors)], length[row] = vectors, len(vectors)
            return Column(present, length=length, rows=rows)
