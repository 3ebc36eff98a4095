"""Writes a network's feature vectors as values of a modality, for every sample of a recipe, as tar shards in the sidecar folder.

    SIDECAR/MODALITY/features.json          the network, its inputs, and the finished shards
    SIDECAR/MODALITY/train-00000.tar        members KEY.npy
    SIDECAR/MODALITY/train-00000.skipped.jsonl   skipped samples, with reasons

The global features of a sample become a modality, which any-to-any models predict like any other; 4M-21
(https://arxiv.org/abs/2406.09406) does this with DINOv2 and ImageBind.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskweave.data.error_budget import SKIPPED, ErrorBudget, Fault, counts, faults_of, read_faults, write_faults
from maskweave.data.reading import Read, read
from maskweave.data.shards import Tars
from maskweave.data.sidecar import RECORD
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import claim_record, sweep, write_json
from maskweave.generate.bundle import load
from maskweave.label.teacher import Teacher
from maskweave.locks import lock
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.progress import progress
from maskweave.retrieve.features import Pooled, SampleFeatures, vectors_of
from maskweave.retrieve.indexing import given
from maskweave.training.recipe import Recipe
from maskweave.training.sources import open_source

FORMAT = 2


def extract_features(
    recipe: Recipe, encoder: str, name: str, inputs: Sequence[str] = (), device: str = "cpu"
) -> tuple[Path, ErrorBudget]:
    """Write the vectors of all training and held-out samples to the recipe's `data.sidecar`. A second run resumes where it stopped.

    Args:
        encoder: folder of a run (M3AE or 4M), for its pooled features; or folder or Hub id of a vision model for the transformers library.
        name: modality of the vectors; its values are of type `vector`, with as many channels as the encoder's width.
        inputs: input modalities of the encoder; by default its first modality of pictures.

    Returns:
        The folder, and the skipped samples.

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
    with lock(folder / name):
        record = _claimed(folder / name, facts)
        without_sidecar = replace(recipe, data=replace(recipe.data, sidecar=""))
        skips = ErrorBudget(recipe.data.limit)
        for part in ("train", "validation"):
            source = open_source(without_sidecar, input_entries, part)
            size = recipe.data.shard_size
            with progress(f"features {part}", len(source)) as bar:
                for start in range(0, len(source), size):
                    indices, shard = range(start, min(start + size, len(source))), f"{part}-{start // size:05d}"
                    done, skipped = record["shards"].get(shard), folder / name / f"{shard}{SKIPPED}"
                    if (
                        done is None
                        or done["samples"] != len(indices)
                        or not (folder / name / f"{shard}.tar").is_file()
                    ):
                        reads = list(read(source, indices, recipe.data.workers))
                        bad = _write(folder, shard, modality, reads, catalog, features, inputs)
                        write_faults(skipped, bad)
                        done = record["shards"][shard] = {"samples": len(indices), **counts(bad)}
                        write_json(folder / name / RECORD, record)
                    skips.good(len(indices) - done["skipped"])
                    skips.extend(read_faults(skipped, done))
                    skips.check()
                    bar.advance(len(indices))
        skips.check(finished=True)
        write_json(folder / name / RECORD, {**record, "finished": True})
        return folder, skips


def open_encoder(encoder: str, catalog: Catalog, device: str = "cpu") -> tuple[SampleFeatures, Catalog]:
    """Returns an encoder, and the entries of its possible inputs."""
    if (Path(encoder) / "modalities.yaml").is_file():
        bundle = load(encoder, device)
        return Pooled(bundle), bundle.catalog
    pictures = [n for n, m in catalog.items() if m.value.is_picture and not m.source]
    return Teacher(encoder, catalog, device), catalog.subset(pictures)


def _claimed(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of a modality's folder: the existing one of the same encoder, or a new one."""
    sweep(folder)
    record = {**claim_record(folder / RECORD, facts, "features", {"shards": {}}), "finished": False}
    write_json(folder / RECORD, record)
    return record


def _write(
    folder: Path,
    shard: str,
    modality: Modality,
    reads: Sequence[Read],
    catalog: Catalog,
    features: SampleFeatures,
    inputs: Sequence[str],
) -> list[Fault]:
    """Write one shard. Returns the faults; samples that lack an input have no vector and do not count as skipped."""
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
    return bad
