"""Vectors of a network as values of a modality: of every sample that a recipe names, written beside the data as tar shards.

    SIDECAR/MODALITY/features.json          from which network and what it looked at, and which shards are whole
    SIDECAR/MODALITY/train-00000.tar        members KEY.npy
    SIDECAR/MODALITY/train-00000.skipped.jsonl   samples that could not be used, and why

So a network's view of a sample as a whole becomes one more modality, which any-to-any models predict as they do all others; 4M-21
(https://arxiv.org/abs/2406.09406) does this with DINOv2 and ImageBind.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskweave.data.error_budget import SKIPPED, ErrorBudget, read_skipped, write_skipped
from maskweave.data.reading import Read, read
from maskweave.data.shards import Tars
from maskweave.data.sidecar import RECORD
from maskweave.errors import BadSample, MaskweaveError
from maskweave.files import claim_record, sweep, write_json
from maskweave.generate.bundle import load
from maskweave.label.teacher import Teacher
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
    """Write the vectors of all training and held-out samples to the recipe's `data.sidecar`. Started again, it goes on where it stopped.

    Args:
        encoder: folder of a run (M3AE or 4M), whose pooled features are taken; or a vision model of transformers, its folder or Hub id.
        name: modality that gets them, of values of type `vector` and as many channels as the encoder is wide.
        inputs: modalities that the encoder looks at; its first of pictures by default.

    Returns:
        the folder, and the samples that were skipped.

    Raises:
        MaskweaveError: the recipe has several data sets, no `data.sidecar` or no such modality, the encoder does not fit it or the data, or the folder holds
            the features of another encoder.
        FullDisk: no space is left; finished shards stay.
    """
    if recipe.data.mix:
        raise MaskweaveError(
            "features are made of one data set at a time: give a recipe with its data.source and data.sidecar; in a mix the folder is data.mix.NAME.sidecar"
        )
    if not recipe.data.sidecar:
        raise MaskweaveError("the recipe has no data.sidecar; give there the folder that the features are to go to")
    folder, modality = Path(recipe.data.sidecar), recipe.load_catalog()[name]
    features, catalog = open_encoder(encoder, recipe.load_catalog(), device)
    inputs = list(inputs) or [n for n, m in catalog.items() if m.value.is_picture][:1]
    if not inputs:
        raise MaskweaveError(f"{encoder}: reads no pictures; name what it is to look at with --from")
    if not modality.value.is_embedding or modality.value.channels != features.width:
        raise MaskweaveError(
            f"{name!r} has values of type {modality.value.type!r} with {modality.value.channels} channels; {encoder} gives vectors of "
            f"{features.width}: declare value: {{type: vector, channels: {features.width}}}"
        )
    facts = {"format": FORMAT, "encoder": features.fingerprint, "inputs": inputs, "width": features.width}
    looked_at = catalog.subset(inputs)
    record = _claimed(folder / name, facts)
    alone = replace(recipe, data=replace(recipe.data, sidecar=""))
    skips = ErrorBudget(recipe.data.limit)
    for part in ("train", "validation"):
        source = open_source(alone, looked_at, part)
        size = recipe.data.shard_size
        with progress(f"features {part}", len(source)) as bar:
            for start in range(0, len(source), size):
                indices, shard = range(start, min(start + size, len(source))), f"{part}-{start // size:05d}"
                done, skipped = record["shards"].get(shard), folder / name / f"{shard}{SKIPPED}"
                if done is None or done["samples"] != len(indices) or not (folder / name / f"{shard}.tar").is_file():
                    reads = list(read(source, indices, recipe.data.workers))
                    bad = _write(folder, shard, modality, reads, catalog, features, inputs)
                    write_skipped(skipped, bad)
                    done = record["shards"][shard] = {"samples": len(indices), "skipped": len(bad)}
                    write_json(folder / name / RECORD, record)
                skips.good(len(indices) - done["skipped"])
                for key, reason in read_skipped(skipped, done["skipped"]):
                    skips.bad(key, reason)
                skips.check()
                bar.advance(len(indices))
    skips.check(finished=True)
    write_json(folder / name / RECORD, {**record, "finished": True})
    return folder, skips


def open_encoder(encoder: str, catalog: Catalog, device: str = "cpu") -> tuple[SampleFeatures, Catalog]:
    """An encoder, and the entries of what it looks at."""
    if (Path(encoder) / "modalities.yaml").is_file():
        bundle = load(encoder, device)
        return Pooled(bundle), bundle.catalog
    pictures = [n for n, m in catalog.items() if m.value.is_picture and not m.source]
    return Teacher(encoder, catalog, device), catalog.subset(pictures)


def _claimed(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The record of a modality's folder: an earlier one's of the same encoder, or a new one."""
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
) -> list[tuple[str, str]]:
    """Write one shard; returns the samples that were skipped. One that lacks an input has no vector, and is none of them."""
    bad = [(item.key, item.error) for item in reads if item.error]
    held = [(item.key, values) for item in reads if (values := given(item.sample, catalog, *inputs)) is not None]
    with Tars(folder, shard) as tars:
        for (key, _), vector in zip(held, vectors_of(features, [values for _, values in held]), strict=True):
            if isinstance(vector, BadSample):
                bad.append((key, str(vector)))
            else:
                content, ending = modality.value.to_file(vector, modality.name)
                tars.add(modality.name, key, ending, content)
        tars.finish()
    return bad
