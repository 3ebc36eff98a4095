"""Opens the samples of a recipe."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from maskweave.data.mirror import local_place
from maskweave.data.mixing import Mixed, apportion
from maskweave.data.named import check_source_allowed, is_endless, is_named
from maskweave.data.opening import open_data, reading_options
from maskweave.data.sidecar import SidecarSource
from maskweave.data.source import LimitedSource, Source, Subset
from maskweave.data.split import Divided, divide, some_by_hash, take_evenly
from maskweave.data.table_source import NAME
from maskweave.data.texts import describe_texts, text_modalities
from maskweave.errors import MaskweaveError
from maskweave.limits import limited_to
from maskweave.modality.catalogs import Catalog
from maskweave.tokenizers.text import TextTokenizer
from maskweave.training.data_settings import DataSettings
from maskweave.training.recipe import Recipe


def open_source(
    recipe: Recipe, catalog: Catalog, part: str, seed: int | None = None, samples: int = 0, spread: bool = False
) -> Source:
    """Opens the samples to train on (`part` "train") or the held-out ones ("validation"). Data sets of a mix are interleaved.

    Args:
        seed: of endless sources, instead of the recipe's seed.
        samples: largest number of samples, divided over a mix by weight; 0: as in the recipe.
        spread: of endless sources, take samples evenly from all that are trained on instead of the first ones. Those of data sets are always
            taken evenly.

    Raises:
        MaskweaveError: a data set is missing or too small, or no data set of a mix has a modality of the catalog.
    """
    sources = open_sources(recipe, catalog, part, seed, samples, spread)
    return Mixed(sources) if recipe.data.mix else sources[""]


def open_sources(
    recipe: Recipe, catalog: Catalog, part: str, seed: int | None = None, samples: int = 0, spread: bool = False
) -> dict[str, Source]:
    """Like `open_source`, but returns each data set separately, by its name in the mix; a single source has an empty name."""
    sources = {}
    counts = apportion(list(recipe.data.weights.values()), samples).tolist()
    for (name, data), count in zip(recipe.data.sets().items(), counts, strict=True):
        try:
            with limited_to(recipe.limits):
                source = _open(data, catalog, part, seed, max(count, 1) if samples else 0, spread)
            sources[name] = LimitedSource(source, recipe.limits) if recipe.limits.are_set else source
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


def check_recipe_allowed(recipe: Recipe) -> None:
    """Refuses the recipe of a finished run or bundle if its data is code, unless the user allowed that.

    Raises:
        MaskweaveError: it is not allowed.
    """
    for name, data in recipe.data.sets().items():
        key = f"data.mix.{name}.source" if name else "data.source"
        check_source_allowed(data.source, f"{key} of the run's recipe.yaml")


def _open(data: DataSettings, catalog: Catalog, part: str, seed: int | None, samples: int, spread: bool) -> Source:
    """Opens one data set."""
    if data.sidecar:
        sidecar = Path(local_place(data.sidecar))
        if not sidecar.is_dir():
            raise MaskweaveError(
                f"data.sidecar: {data.sidecar}: no such folder; create it with 'maskweave data features', or remove the key"
            )
        in_sidecar = [name for name in catalog if (sidecar / name).is_dir()]
        rest = [name for name, m in catalog.items() if m.reads not in in_sidecar]
        source = _open(replace(data, sidecar=""), catalog.subset(rest), part, seed, samples, spread)
        return SidecarSource(source, sidecar, catalog.subset(in_sidecar)) if in_sidecar else source
    names = list(catalog)
    if not is_endless(data.source):
        fields = {name: field for name, field in data.fields.items() if name in (*catalog, NAME)}
        options = reading_options(replace(data, fields=fields))
        complete = open_data(data.source, catalog, names=names, seed=seed, **options)
        parts = divide(complete, data.split, data.validation, data.source)
        return Subset(complete, _chosen(complete, parts, part, data, samples, spread))
    held_out = part != "train"
    count = (samples or data.validation) if held_out else data.samples
    made = open_data(
        data.source, catalog, names=names, samples=count, seed=data.seed + held_out if seed is None else seed
    )
    if held_out or not 0 < samples < len(made):
        return made
    return Subset(made, np.linspace(0, len(made) - 1, samples).astype(int).tolist() if spread else range(samples))


def _chosen(complete: Source, parts: Divided, part: str, data: DataSettings, samples: int, spread: bool) -> np.ndarray:
    """Returns the indices of a part. Fewer than all are chosen by their hashes or evenly, because those of similar names would be much alike."""
    indices = parts.train if part == "train" else parts.held_out
    if data.split.by == "order":
        indices = indices[: data.samples or None] if part == "train" else indices
        return take_evenly(indices, samples) if spread and part == "train" else indices[: samples or None]
    return take_evenly(some_by_hash(complete, indices, data.samples) if part == "train" else indices, samples)


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


def describe_recipe_texts(recipe: Recipe, catalog: Catalog) -> list[str]:
    """Describes which texts of imported data sets are not restored exactly by their vocabularies, or are cut; see `describe_texts`.

    Only texts are read. Tokenizers under `tokenizers.reuse` are used, and the other vocabularies are trained on the texts.
    """
    lines = []
    reuse = Path(recipe.tokenizers.reuse) if recipe.tokenizers.reuse else None
    for name, source in open_sources(recipe, catalog, "train").items():
        data = recipe.data.sets()[name]
        texts = [m for m in text_modalities(catalog) if m.reads in source.names]
        if is_named(data.source) or not texts:
            continue  # code may make complete samples
        ready = {m.vocabulary: reuse / m.vocabulary for m in texts if reuse is not None}
        trained = {v: TextTokenizer.load(path) for v, path in ready.items() if (path / "config.json").exists()}
        only = catalog.subset(m.name for m in texts)
        heading = recipe.data.headings[name]
        with limited_to(recipe.limits):
            described = describe_texts(_open(data, only, "train", None, 0, False), only, trained)
        lines += [heading + line for line in described]
    return lines
