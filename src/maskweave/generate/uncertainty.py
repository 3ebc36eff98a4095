"""Uncertainty of results: entropies of the predicted token distributions, and how much the members of an ensemble differ; as maps and as figures."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from maskweave.modality.catalogs import Catalog
from maskweave.values.map import Map


def entropies(probabilities_LV: np.ndarray) -> np.ndarray:
    """Returns (L,) the entropy of each token's distribution in nats, float32; NaN where it is unknown."""
    shares = probabilities_LV.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares == 0, 0.0, -shares * np.log(shares))
    return terms.sum(axis=-1).astype(np.float32)


def with_map_entries(catalog: Catalog, maps: Mapping[str, Sequence[np.ndarray]]) -> Catalog:
    """Returns a catalog that also has an entry for each figure of uncertainty, whose colors span 0 to the largest value.

    Args:
        maps: by the name of the entry, NAME-entropy or NAME-spread.
    """
    entries = []
    free = max(m.id for m in catalog.values()) + 1
    for number, (name, arrays) in enumerate(maps.items()):
        most = max([1e-6, *(float(np.nanmax(a)) for a in arrays if not np.isnan(a).all())])
        of, _, what = name.rpartition("-")
        value = catalog[of].value
        is_numbers = what == "spread" and isinstance(value, Map)
        unit = "nats" if what == "entropy" else value.unit if is_numbers else ""
        size = arrays[0].shape
        entries.append(
            dataclasses.replace(
                catalog[catalog[of].reads],
                name=name, id=free + number, kind="patches", grid=(1,) * len(size), source="", folder="", metrics=(), derive=None, valid=None, weight="",
                tokenizer=None, value=Map(size, range=(0.0, most), unit=unit, missing=("nan",)),
            )
        )  # fmt: skip
    return Catalog([*catalog.values(), *entries], catalog.vocabularies.values(), catalog.where)
