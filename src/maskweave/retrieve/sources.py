"""Opens the data set of an index."""

from maskweave.data.named import is_endless
from maskweave.data.opening import open_data
from maskweave.data.source import Source
from maskweave.modality.catalogs import Catalog

SAMPLES = 1000
SEED = 1
"""Default seed of an endless source. Recipes train on seed 0, so the indexed samples are held out."""


def open_indexed(data: str, catalog: Catalog, samples: int = 0, seed: int | None = None) -> Source:
    """Opens the data given to `maskweave retrieve index`, for indexing and again for queries.

    Args:
        data: a path or name, as for `open_data`.
        samples: number of samples, from the first; by default all, or `SAMPLES` of an endless source.
        seed: seed of an endless source, `SEED` by default.
    """
    if is_endless(data):
        samples, seed = samples or SAMPLES, SEED if seed is None else seed
    return open_data(data, catalog, samples=samples, seed=seed)
