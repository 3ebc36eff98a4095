"""Writes a network's feature vectors as values of a modality, for every sample of a recipe, as tar shards in the sidecar folder.

    SIDECAR/MODALITY/features.json               the network, its inputs, and whether all shards are finished
    SIDECAR/MODALITY/train-00000.tar             members KEY.npy
    SIDECAR/MODALITY/train-00000.json            record of a finished shard
    SIDECAR/MODALITY/train-00000.skipped.jsonl   skipped samples, with reasons

The global features of a sample become a modality, which any-to-any models predict like any other; 4M-21
(https://arxiv.org/abs/2406.09406) does this with DINOv2 and ImageBind.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from maskweave.data.error_budget import SKIPPED, ErrorBudget, Fault, counts, faults_of, read_faults, write_faults
from maskweave.data.reading import Read, read
from maskweave.data.shards import Tars
from maskweave.data.sidecar import RECORD
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import claim_record, read_json, remove, sweep, write_json
from maskweave.generate.bundle import load
from maskweave.label.encoder import VisionEncoder
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import progress
from maskweave.ranks import WHOLE, JobPart
from maskweave.retrieve.features import Pooled, SampleFeatures, given, vectors_of
from maskweave.training.distributed import local_device
from maskweave.training.recipe import Recipe
from maskweave.training.sources import open_source

FORMAT = 2


class Extracted(NamedTuple):
    """Result of `extract_features`."""

    folder: Path
    skips: ErrorBudget
    """The skipped samples of the shards that are finished."""
    unfinished: str = ""
    """What other parts of the job have still to do."""


def extract_features(
    recipe: Recipe, encoder: str, name: str, inputs: Sequence[str] = (), device: str = "auto", part: JobPart = WHOLE
) -> Extracted:
    """Write the vectors of all training and held-out samples to the recipe's `data.sidecar`. A second run resumes where it stopped.

    Args:
        encoder: folder of a run (M3AE or 4M), for its pooled features; or folder or Hub id of a vision model for the transformers library.
        name: modality of the vectors; its values are of type `vector`, with as many channels as the encoder's width.
        inputs: input modalities of the encoder; by default its first modality of pictures.
        device: of the encoder; auto: a GPU if there is one.
        part: the part of the shards to write.

    Raises:
        MaskweaveError: the recipe has several data sets, no `data.sidecar` or no such modality, the encoder does not fit it or the data, or the folder holds
            the features of another encoder.
        FullDisk: no space is left; finished shards are kept.
    """
    if recipe.data.mix:
        raise MaskweaveError(
            "found data.mix, but features are made of one data set at a time: give a recipe with its data.source and data.sidecar; in a mix the folder is data.mix.NAME.sidecar"
        )
    if not recipe.data.sidecar:
        raise MaskweaveError("the recipe has no data.sidecar; set it to the folder for the features")
    folder, modality = Path(recipe.data.sidecar), recipe.load_catalog()[name]
    features, catalog = open_encoder(encoder, recipe.load_catalog(), device)
    inputs = list(inputs) or [n for n, m in catalog.items() if m.value.is_picture][:1]
    if not inputs:
        raise MaskweaveError(f"{encoder}: has no input of pictures; choose its inputs with --from")
    if not modality.value.is_embedding or modality.value.channels != features.width:
        raise MaskweaveError(
            f"{name!r} has values of type {modality.value.type!r} with {modality.value.channels} channels, but the vectors of {encoder} have "
            f"{features.width}; declare value: {{type: vector, channels: {features.width}}}"
        )
    facts = {"format": FORMAT, "encoder": features.fingerprint, "inputs": inputs, "width": features.width}
    input_entries = catalog.subset(inputs)
    with lock(folder / name, part):
        _claim(folder / name, facts)
        without_sidecar = replace(recipe, data=replace(recipe.data, sidecar=""))
        sources = {split: open_source(without_sidecar, input_entries, split) for split in ("train", "validation")}
        work = [shard for split, source in sources.items() for shard in _shards(split, source, recipe.data.shard_size)]
        mine = [work[number] for number in part.mine(range(len(work)))]
        skips = ErrorBudget(recipe.data.limit)
        with progress("features", sum(len(shard.indices) for shard in mine), quiet=not part.count) as bar:
            for shard in mine:
                if not shard.is_counted(folder / name, skips):
                    reads = list(read(sources[shard.split], shard.indices, recipe.data.workers))
                    vectors, bad = _write(folder, shard.name, modality, reads, catalog, features, inputs)
                    write_faults(folder / name / f"{shard.name}{SKIPPED}", bad)
                    record = {"samples": len(shard.indices), "vectors": vectors, **counts(bad)}
                    write_json(folder / name / f"{shard.name}.json", record)
                    shard.is_counted(folder / name, skips)
                skips.check()
                bar.advance(len(shard.indices))
        if not part.is_whole:
            skips = ErrorBudget(recipe.data.limit)
            left = part.left(
                sum(not shard.is_counted(folder / name, skips) for shard in work), len(work), str(folder / name)
            )
            if skips.seen < sum(len(shard.indices) for shard in work):
                return Extracted(folder, skips, left)
        skips.check(finished=True)
        write_json(folder / name / RECORD, {**facts, "finished": True})
        return Extracted(folder, skips)


class _Shard(NamedTuple):
    name: str
    split: str
    indices: range

    def is_counted(self, folder: Path, skips: ErrorBudget) -> bool:
        """Returns whether the shard is finished; then counts its samples."""
        record = folder / f"{self.name}.json"
        done = read_json(record, limit=None) if record.exists() else None
        if done is None or done["samples"] != len(self.indices):
            return False
        # No vectors, no tar. Records of earlier versions lack their number.
        if done.get("vectors") != 0 and not (folder / f"{self.name}.tar").is_file():
            return False
        skips.good(len(self.indices) - done["skipped"])
        skips.extend(read_faults(folder / f"{self.name}{SKIPPED}", done))
        return True


def _shards(split: str, source: Source, size: int) -> list[_Shard]:
    starts = range(0, len(source), size)
    return [_Shard(f"{split}-{n:05d}", split, range(s, min(s + size, len(source)))) for n, s in enumerate(starts)]


def open_encoder(encoder: str, catalog: Catalog, device: str = "auto") -> tuple[SampleFeatures, Catalog]:
    """Returns an encoder, and the entries of its possible inputs."""
    if (Path(encoder) / "modalities.yaml").is_file():
        bundle = load(encoder, local_device(device))
        return Pooled(bundle), bundle.catalog
    pictures = [n for n, m in catalog.items() if m.value.is_picture and not m.source]
    return VisionEncoder(encoder, catalog, local_device(device)), catalog.subset(pictures)


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """Writes the record of a modality's folder, or checks that the existing one is of the same encoder. It is unfinished until the end."""
    sweep(folder)
    claim_record(folder / RECORD, facts, "features")
    write_json(folder / RECORD, {**facts, "finished": False})


def _write(
    folder: Path,
    shard: str,
    modality: Modality,
    reads: Sequence[Read],
    catalog: Catalog,
    features: SampleFeatures,
    inputs: Sequence[str],
) -> tuple[int, list[Fault]]:
    """Write one shard. Returns the number of vectors and the faults; samples that lack an input have no vector and do not count as skipped."""
    bad = faults_of(reads)
    held = [(item.key, values) for item in reads if (values := given(item.sample, catalog, *inputs)) is not None]
    with Tars(folder, shard) as tars:
        for (key, _), vector in zip(held, vectors_of(features, [values for _, values in held]), strict=True):
            if isinstance(vector, BadSample):
                bad.append(Fault(key, str(vector)))
            else:
                content, ending = modality.value.to_file(vector, modality.name)
                tars.add(modality.name, key, ending, content)
        tars.finish()
        if modality.name not in tars.counts:
            remove(tars.path(modality.name))  # from an earlier run with other samples
    return tars.counts.get(modality.name, 0), bad
