"""Statistics of raw patches with `scaling: fit`, learned from training samples before anything else and kept in the run's modality entries.

Grids have theirs in their tokenizers (`maskweave.training.tokenizers`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.data.reading import read
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import SAVED, Catalog, load_saved_catalog, save_catalog
from maskweave.modality.entry import Modality
from maskweave.progress import progress
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.grid import GridTokenizer, read_entry
from maskweave.training.recipe import Recipe
from maskweave.training.sources import open_source

SAMPLES = 512
"""Most samples that statistics are learned from."""


def with_learned(catalog: Catalog, folder: Path) -> Catalog:
    """Returns a catalog with the statistics that the run or bundle in a folder has for the same entries; a folder without any is empty."""
    if not (folder / SAVED).is_file():
        return catalog
    saved = load_saved_catalog(folder)
    same = [name for name, m in catalog.items() if name in saved and m.value == without_learned(saved[name].value)]
    return _fitted_like(catalog, {name: saved[name].value for name in same})


def with_learned_by_tokenizers(catalog: Catalog, folder: Path) -> Catalog:
    """Returns a catalog with the statistics of its grids that saved tokenizers have, `folder/NAME`."""
    known = [name for name, m in catalog.items() if learns(m) and (folder / name / "config.json").is_file()]
    return _fitted_like(catalog, {name: read_entry(folder / name).value for name in known})


def with_learned_of(catalog: Catalog, tokenizers: Mapping[str, Tokenizer]) -> Catalog:
    """Returns a catalog with the statistics of its grids that loaded tokenizers have."""
    grids = {n: t.modality.value for n, t in tokenizers.items() if isinstance(t, GridTokenizer) and n in catalog}
    return _fitted_like(catalog, {name: value for name, value in grids.items() if learns(catalog[name])})


def learn_scaling(recipe: Recipe, catalog: Catalog, folder: Path) -> Catalog:
    """Returns the catalog with the statistics of its patches, after learning those that are not known and writing them to the run's entries.

    Raises:
        MaskweaveError: no sample has one of the modalities.
    """
    wanted = [m for m in catalog.values() if m.kind == "patches" and learns(m)]
    if not wanted:
        return catalog
    source = open_source(recipe, catalog.subset(m.name for m in wanted), "train", samples=SAMPLES, spread=True)
    values: dict[str, list[Any]] = {m.name: [] for m in wanted}
    with progress("learn scaling", len(source)) as bar:
        for item in read(source, range(len(source)), recipe.data.workers, recipe.data.bad):
            for m in wanted:
                if not item.error and (value := item.sample.get(m.reads)) is not None:
                    values[m.name].append(value)
            bar.advance()
    for m in wanted:
        if not values[m.name]:
            raise MaskweaveError(
                f"no sample has {m.reads!r}, so its value.scaling cannot be learned; remove {m.name!r} from the recipe"
            )
    fitted = {m.name: m.value.fit_to(np.stack(m.value.check_batch(values[m.name], m.name))) for m in wanted}
    catalog = with_values(catalog, fitted)
    save_catalog(catalog, folder)
    return catalog


def learns(m: Modality) -> bool:
    """Whether an entry's statistics are still to be learned."""
    return bool(getattr(m.value, "learned", None)) and getattr(m.value, "fitted", None) is None


def without_learned(value: Any) -> Any:
    """Returns a value type without what it has learned."""
    return replace(value, fitted=None) if getattr(value, "fitted", None) is not None else value


def unlearned(m: Modality) -> Modality:
    """Returns an entry without what it has learned."""
    return replace(m, value=without_learned(m.value))


def _fitted_like(catalog: Catalog, values: Mapping[str, Any]) -> Catalog:
    """Returns the catalog with what these values of some entries have learned."""
    return with_values(catalog, {name: catalog[name].value.fitted_like(value) for name, value in values.items()})


def with_values(catalog: Catalog, values: dict[str, Any]) -> Catalog:
    """Returns the catalog with other value types for some entries."""
    entries = [replace(m, value=values.get(name, m.value)) for name, m in catalog.items()]
    return Catalog(entries, catalog.vocabularies.values(), catalog.where)
