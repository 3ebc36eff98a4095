"""Makes an index: one vector of each sample and view of a data set, shard by shard.

    INDEX/index.json                   model, views and data
    INDEX/centers.safetensors          mean vector of each view and modality, over evenly spaced samples
    INDEX/alignment.*                  how modalities are brought together (`maskweave.retrieve.pairs`)
    INDEX/shard-00000.safetensors      VIEW (n, D) float16 and VIEW.rows (n,): the shard's samples that have it
    INDEX/shard-00000.json             keys and indices of the shard's samples; written last, so a shard that has it is complete
    INDEX/shard-00000.skipped.jsonl    skipped samples, with reasons

A view is a modality of the samples; each view goes through the model separately.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.arguments import check_arguments
from maskweave.data.error_budget import (
    SKIPPED,
    ErrorBudget,
    Fault,
    counts,
    faults_of,
    read_faults,
    write_faults,
)
from maskweave.data.reading import Joined, Read, read, shard_ranges
from maskweave.data.source import Source
from maskweave.data.token_store import shard_name
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import claim_record, read_json, remove, sweep, write_aside, write_json
from maskweave.generate.bundle import Bundle
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.nn.weights import save_tensors
from maskweave.progress import Progress, progress
from maskweave.ranks import WHOLE, JobPart
from maskweave.retrieve.features import BATCH, SampleFeatures, features_of, given, readable, vectors_of
from maskweave.retrieve.pairs import RECORD, Alignment, PairSource, read_alignment, write_alignment

FORMAT = 3
CENTER_SAMPLES = 512


class Indexed(NamedTuple):
    """Result of `make_index`."""

    folder: Path
    vectors: dict[str, int]
    """Number of vectors by view; a sample without the view's modality has none."""
    skips: ErrorBudget
    unfinished: str = ""
    """What other parts of the job have still to do; then the numbers are those of the shards that are finished."""
    alignment: Alignment | None = None
    """With what, and how well, the modalities are aligned; None: they are not."""


def keys_of(source: Source) -> str:
    """Returns the fingerprint of the keys of all samples, in order."""
    return hashlib.sha256("\n".join(source.key(i) for i in range(len(source))).encode()).hexdigest()[:16]


@check_arguments
def make_index(
    bundle: Bundle,
    source: Source,
    folder: str | os.PathLike[str],
    *,
    views: Sequence[str] = (),
    feature_modality: str = "",
    align: Source | PairSource | None = None,
    quarters: bool = True,
    data: Mapping[str, Any] | None = None,
    shard_size: int = 1000,
    workers: int = 0,
    limit: float = 0.01,
    part: JobPart = WHOLE,
) -> Indexed:
    """Write the vectors of all samples of `source` to `folder`. A second run keeps the finished shards.

    Args:
        views: modalities to index; by default the first modality of the data set that the model reads.
        feature_modality: modality whose predicted vector represents a sample; by default the encoder's pooled features.
        align: samples that the pooled features of different modalities are brought together with (`maskweave.retrieve.alignment`), best those that the
            model was trained on. Scores of the samples themselves are too good then. By default, features are only centered.
        quarters: pooled features of each quarter of a picture, which are better where places count; otherwise of the whole, with a quarter of the memory.
        data: how `source` was opened; recorded in the index, so that queries can show their results.
        shard_size: samples per shard.
        workers: processes that read samples.
        limit: largest fraction of unusable samples, 0 to 1.
        part: the part of the shards to write.

    Raises:
        MaskweaveError: an unknown view, `align` with a `feature_modality`, a folder that holds other files or another index or that another process writes to, or too many unusable samples.
        FullDisk: no space is left; finished shards are kept.
    """
    folder, features = Path(folder), features_of(bundle, feature_modality, quarters)
    named = readable(bundle, source)
    if not named:
        raise MaskweaveError(
            f"the data set has {', '.join(source.names)}, but {bundle!r} reads none of them; use data with modalities of the model"
        )
    if align is not None and feature_modality:
        raise MaskweaveError(
            "predicted vectors need no alignment; give either align (--align) or feature_modality (--feature-modality)"
        )
    pairs = (
        align
        if align is None or isinstance(align, PairSource)
        else PairSource(f"data of keys {keys_of(align)}", lambda: align)
    )
    views = list(views) or named[:1]
    for view in views:
        if bundle.catalog[view].name not in named:
            raise MaskweaveError(
                f"{view!r} cannot be indexed; the model reads these modalities of the data set: {', '.join(named)}"
            )
    with lock(folder, part):
        facts = {
            "format": FORMAT,
            "model": features.fingerprint,
            "feature_modality": feature_modality,
            "quarters": quarters,
            "aligned": "" if pairs is None else pairs.name,
            "views": views,
            "width": features.width,
            "keys": keys_of(source),
            "samples": len(source),
            "shard_size": shard_size,
        }
        _claim_index(folder, bundle, facts, dict(data or {}))
        if not (folder / "centers.safetensors").exists():
            _write_centers(folder, bundle, features, source, views, [] if feature_modality else named, workers)
        if pairs is not None and not (folder / RECORD).exists():
            write_alignment(folder, bundle, features, pairs, views, workers)
        skips = ErrorBudget(limit)
        shards = range(-(-len(source) // shard_size))
        mine = part.mine(shards)
        todo = [s for s in mine if not _record(folder, s).exists()]
        for path in folder.glob("*.faiss") if todo else ():  # they are of the old vectors
            remove(path)
        ranges = shard_ranges(len(source), shard_size, mine)
        indices = Joined([ranges[s] for s in todo])
        stream = zip(indices, read(source, indices, workers), strict=True)
        total = len(Joined([*ranges.values()]))
        counted: dict[int, _Counted] = {}
        with progress("index", total, done=total - len(indices), quiet=not part.count) as bar:
            for shard in mine:
                if shard in todo:
                    _write_shard(
                        folder, shard, islice(stream, len(ranges[shard])), bundle.catalog, features, views, bar
                    )
                counted[shard] = _count(folder, shard)
                counted[shard].add_to(skips)
                skips.check_shards(_record(folder, shard) for shard in mine)
        finished = [s for s in shards if _record(folder, s).exists()]
        left = part.left(len(shards) - len(finished), len(shards), str(folder))
        skips, vectors = ErrorBudget(limit), dict.fromkeys(views, 0)
        for shard in finished:
            one = counted.get(shard) or _count(folder, shard)  # other parts wrote the others
            one.add_to(skips)
            for view, count in one.vectors.items():
                vectors[view] += count
        if len(finished) == len(shards):
            skips.check_shards((_record(folder, shard) for shard in shards), finished=True)
        return Indexed(folder, vectors, skips, left, read_alignment(folder))


def _record(folder: Path, shard: int) -> Path:
    return folder / f"{shard_name(shard)}.json"


class _Counted(NamedTuple):
    """What the record of a finished shard says."""

    samples: int
    faults: list[Fault]
    vectors: dict[str, int]
    """Number of vectors by view."""

    def add_to(self, skips: ErrorBudget) -> None:
        skips.good(self.samples)
        skips.extend(self.faults)


def _count(folder: Path, shard: int) -> _Counted:
    facts: dict[str, Any] = read_json(_record(folder, shard), limit=None)
    faults = read_faults(folder / f"{shard_name(shard)}{SKIPPED}", facts)
    return _Counted(len(facts["keys"]), faults, facts["vectors"])


def _claim_index(folder: Path, bundle: Bundle, facts: dict[str, Any], data: dict[str, Any]) -> None:
    """Write the facts of a new index, or check that an existing index has the same facts."""
    path = folder / "index.json"
    # Listed first, and without temporary files: other parts may be writing the index.
    others = folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir()))
    if others and not path.exists():
        raise MaskweaveError(f"{folder}: contains other files but no index; choose an empty or new folder")
    more = {"bundle": str(bundle.folder.resolve()) if bundle.folder else "", "data": data}
    claim_record(path, facts, "an index", more)
    sweep(folder)


def _write_centers(
    folder: Path,
    bundle: Bundle,
    features: SampleFeatures,
    source: Source,
    views: Sequence[str],
    others: Sequence[str],
    workers: int,
) -> None:
    """Write the mean vectors of the views, and of the other modalities that can be query inputs."""
    indices = np.linspace(0, len(source) - 1, min(CENTER_SAMPLES, len(source))).astype(int).tolist()
    reads = [item for item in read(source, indices, workers) if not item.error]
    centers = {}
    # Predicted vectors from any inputs share one space; pooled features of each modality form their own cluster.
    with progress("centers", len({*views, *others})) as bar:
        for view in dict.fromkeys([*views, *others]):
            held = [sample for item in reads if (sample := given(item.sample, bundle.catalog, view)) is not None]
            vectors = [v for v in vectors_of(features, held) if not isinstance(v, BadSample)]
            if vectors or view in views:
                centers[view] = torch.from_numpy(np.mean(vectors or [np.zeros(features.width, np.float32)], axis=0))
            bar.advance()
    with write_aside(folder / "centers.safetensors") as aside:
        save_tensors(centers, aside)


def _write_shard(
    folder: Path,
    shard: int,
    reads: Iterator[tuple[int, Read]],
    catalog: Catalog,
    features: SampleFeatures,
    views: Sequence[str],
    bar: Progress,
) -> None:
    keys, bad, faults = dict[int, str](), set[int](), list[Fault]()
    vectors_by_view: dict[str, dict[int, np.ndarray]] = {view: {} for view in views}
    while batch := list(islice(reads, BATCH)):
        keys |= {number: item.key for number, item in batch}
        faults += faults_of(item for _, item in batch)
        bad |= {number for number, item in batch if item.error}
        for view in views:
            held = [(n, sample) for n, item in batch if (sample := given(item.sample, catalog, view)) is not None]
            for (number, _), vector in zip(held, vectors_of(features, [sample for _, sample in held]), strict=True):
                if isinstance(vector, BadSample):
                    if number not in bad:
                        faults.append(Fault(keys[number], str(vector)))
                    bad.add(number)
                else:
                    vectors_by_view[view][number] = vector
        bar.advance(len(batch))
    usable = [number for number in keys if number not in bad]
    tensors: dict[str, torch.Tensor] = {}
    for view, by_number in vectors_by_view.items():
        rows = [row for row, number in enumerate(usable) if number in by_number]
        vectors = np.array([by_number[usable[row]] for row in rows], np.float16).reshape(-1, features.width)
        tensors |= {view: torch.from_numpy(vectors), f"{view}.rows": torch.tensor(rows, dtype=torch.int32)}
    with write_aside(folder / f"{shard_name(shard)}.safetensors") as aside:
        save_tensors(tensors, aside)
    facts = {
        "keys": [keys[number] for number in usable],
        "numbers": usable,
        "vectors": {view: len(tensors[view]) for view in views},
        **counts(faults),
    }
    write_faults(folder / f"{shard_name(shard)}{SKIPPED}", faults)
    write_json(_record(folder, shard), facts)
