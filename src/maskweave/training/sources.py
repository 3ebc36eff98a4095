"""The samples that a recipe names."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from maskweave.data.mixing import Mixed, apportion
from maskweave.data.named import is_endless
from maskweave.data.opening import open_data
from maskweave.data.sidecar import SidecarSource
from maskweave.data.source import Source, Subset
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.training.data_settings import DataSettings
from maskweave.training.recipe import Recipe


def open_source(
    recipe: Recipe, catalog: Catalog, part: str, seed: int | None = None, samples: int = 0, spread: bool = False
) -> Source:
    """The samples to train on (`part` "train"), or the held-out ones ("validation"); those of several data sets evenly among each other.

    Args:
        seed: of sources without an end, in place of the recipe's.
        samples: at most so many, of several data sets by weight; 0: as many as the recipe says.
        spread: these from all over the data, rather than the first ones.

    Raises:
        MaskweaveError: a data set is not there, or too small, or several together lack a modality of the catalog.
    """
    sources = open_sources(recipe, catalog, part, seed, samples, spread)
    return Mixed(sources) if recipe.data.mix else sources[""]


def open_sources(
    recipe: Recipe, catalog: Catalog, part: str, seed: int | None = None, samples: int = 0, spread: bool = False
) -> dict[str, Source]:
    """The same, each data set alone, by its name in the mix; a source alone has no name."""
    sources = {}
    counts = apportion(list(recipe.data.weights.values()), samples).tolist()
    for (name, data), count in zip(recipe.data.sets().items(), counts, strict=True):
        try:
            sources[name] = _open(data, catalog, part, seed, max(count, 1) if samples else 0, spread)
        except MaskweaveError as error:
            if not name:
                raise
            raise MaskweaveError(f"data.mix.{name}: {error}") from error
    there = {name for source in sources.values() for name in source.names}
    lacking = [name for name, m in catalog.items() if m.reads not in there]
    if recipe.data.mix and lacking:
        raise MaskweaveError(
            f"data.mix: none of {', '.join(sources)} has {', '.join(lacking)}; add a data set that has, or list under 'modalities' all others"
        )
    return sources


def _open(data: DataSettings, catalog: Catalog, part: str, seed: int | None, samples: int, spread: bool) -> Source:
    """One data set."""
    if data.sidecar:
        if not Path(data.sidecar).is_dir():
            raise MaskweaveError(
                f"data.sidecar: {data.sidecar}: no such folder; make it with 'maskweave data features', or leave the key out"
            )
        there = [name for name in catalog if (Path(data.sidecar) / name).is_dir()]
        rest = [name for name, m in catalog.items() if m.reads not in there]
        source = _open(replace(data, sidecar=""), catalog.subset(rest), part, seed, samples, spread)
        return SidecarSource(source, data.sidecar, catalog.subset(there)) if there else source
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
        whole = open_data(data.source, catalog, names=names, seed=seed)
        first = len(whole) - data.validation
        if first < 1:
            raise MaskweaveError(
                f"{data.source}: has {len(whole)} samples, too few to hold out {data.validation}; lower data.validation"
            )
        if part != "train":
            return Subset(whole, range(first, min(first + (samples or data.validation), len(whole))))
        train = Subset(whole, range(min(first, data.samples or first)))
    if not 0 < samples < len(train):
        return train
    return Subset(train, np.linspace(0, len(train) - 1, samples).astype(int).tolist() if spread else range(samples))


def held_out_seed(recipe: Recipe) -> int | None:
    """The seed that the held-out samples are made with; None where any of them are of a fixed data set."""
    made = all(is_endless(data.source) for data in recipe.data.sets().values())
    return recipe.data.seed + 1 if made else None


def describe_samples(recipe: Recipe, catalog: Catalog) -> str:
    """How many samples there are to train on and held out; of a mix those of each data set, and their share."""
    train, held_out = (open_sources(recipe, catalog, part) for part in ("train", "validation"))
    return "; ".join(
        f"{heading}{len(train[name]):,} samples and {len(held_out[name]):,} held out"
        for name, heading in recipe.data.headings.items()
    )
