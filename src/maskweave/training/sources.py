"""Opens the samples of a recipe."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from maskweave.data.mixing import Mixed, apportion
from maskweave.data.named import is_endless
from maskweave.data.opening import open_data
from maskweave.data.sidecar import SidecarSource
from maskweave.data.source import Source, Subset
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.training.data_settings import DataSettings
from maskweave.training.recipe import Recipe


def open_source(
    recipe: Recipe, catalog: Catalog, part: str, seed: int | None = None, samples: int = 0, spread: bool = False
) -> Source:
    """Opens the samples to train on (`part` "train") or the held-out ones ("validation"). Data sets of a mix are interleaved.

    Args:
        seed: of endless sources, instead of the recipe's seed.
        samples: largest number of samples, divided over a mix by weight; 0: as in the recipe.
        spread: take samples evenly from the complete data set instead of the first ones.

    Raises:
        MaskweaveError: a data set is missing or too small, or no data set of a mix has a modality of the catalog.
    """
    sources = open_sources(recipe, catalog, part, seed, samples, spread)
    return Mixed(sources) if recipe.data.mix else sources[""]


def open_sources(
    recipe: Recipe, catalog: Catalog, part: str, seed: int | None = None, samples: int = 0, spread: bool = False
) -> dict[str, Source]:
    """Like `open_source`, but returns each data set separately, by its name in the mix; a single source has an empty name."""
    _check_fields(recipe)
    sources = {}
    counts = apportion(list(recipe.data.weights.values()), samples).tolist()
    for (name, data), count in zip(recipe.data.sets().items(), counts, strict=True):
        try:
            sources[name] = _open(data, catalog, part, seed, max(count, 1) if samples else 0, spread)
        except MaskweaveError as error:
            if not name:
                raise
            raise MaskweaveError(f"data.mix.{name}: {error}") from error
    available = {name for source in sources.values() for name in source.names}
    lacking = [name for name, m in catalog.items() if m.reads not in available]
    if recipe.data.mix and lacking:
        raise MaskweaveError(
            f"data.mix: none of {', '.join(sources)} has {', '.join(lacking)}; add a data set that does, or list only the other modalities under 'modalities'"
        )
    return sources


def _check_fields(recipe: Recipe) -> None:
    """Check that `data.fields` names modalities of the catalog; those that the recipe does not use are ignored."""
    for name, data in recipe.data.sets().items():
        known = list(load_catalog(recipe.catalog)) if data.fields else []
        if unknown := [field for field in data.fields if field not in known]:
            key = f"data.mix.{name}.fields" if name else "data.fields"
            raise MaskweaveError(
                f"{key} has {shown(unknown[0])}, which is no modality of {recipe.catalog}; expected some of {', '.join(known[:20])}"
            )


def _open(data: DataSettings, catalog: Catalog, part: str, seed: int | None, samples: int, spread: bool) -> Source:
    """Opens one data set."""
    if data.sidecar:
        if not Path(data.sidecar).is_dir():
            raise MaskweaveError(
                f"data.sidecar: {data.sidecar}: no such folder; create it with 'maskweave data features', or remove the key"
            )
        in_sidecar = [name for name in catalog if (Path(data.sidecar) / name).is_dir()]
        rest = [name for name, m in catalog.items() if m.reads not in in_sidecar]
        source = _open(replace(data, sidecar=""), catalog.subset(rest), part, seed, samples, spread)
        return SidecarSource(source, data.sidecar, catalog.subset(in_sidecar)) if in_sidecar else source
    names = list(catalog)
    train: Source
    if is_endless(data.source):
        held_out = part != "train"
        count = (samples or data.validation) if held_out else data.samples
        chosen = data.seed + held_out if seed is None else seed
        train = open_data(data.source, catalog, names=names, samples=count, seed=chosen)
        if held_out:
            return train
    else:
        fields = {name: field for name, field in data.fields.items() if name in catalog}
        complete = open_data(data.source, catalog, names=names, seed=seed, fields=fields)
        first = len(complete) - data.validation
        if first < 1:
            raise MaskweaveError(
                f"{data.source}: has {len(complete)} samples, too few to hold out {data.validation}; lower data.validation"
            )
        if part != "train":
            return Subset(complete, range(first, min(first + (samples or data.validation), len(complete))))
        train = Subset(complete, range(min(first, data.samples or first)))
    if not 0 < samples < len(train):
        return train
    return Subset(train, np.linspace(0, len(train) - 1, samples).astype(int).tolist() if spread else range(samples))


def held_out_seed(recipe: Recipe) -> int | None:
    """Returns the seed of the held-out samples; None if any of them come from a fixed data set."""
    generated = all(is_endless(data.source) for data in recipe.data.sets().values())
    return recipe.data.seed + 1 if generated else None


def describe_samples(recipe: Recipe, catalog: Catalog) -> str:
    """Describes the number of training and held-out samples, for a mix per data set with its share."""
    train, held_out = (open_sources(recipe, catalog, part) for part in ("train", "validation"))
    return "; ".join(
        f"{heading}{len(train[name]):,} samples and {len(held_out[name]):,} held out"
        for name, heading in recipe.data.headings.items()
    )
