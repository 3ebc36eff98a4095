"""The data set that an index is of."""

from maskweave.data.named import is_endless
from maskweave.data.opening import open_data
from maskweave.data.source import Source
from maskweave.modality.catalogs import Catalog

SAMPLES = 1000
SEED = 1
"""Of a source without an end, unless said otherwise. Recipes train on seed 0, so what is indexed was held out."""


def open_indexed(data: str, catalog: Catalog, samples: int = 0, seed: int | None = None) -> Source:
    """What `maskweave retrieve index` was given, opened by the same words each time.

    Args:
        data: a place or name, as `open_data` takes it.
        samples: the first so many; all by default, and `SAMPLES` of a source without an end.
        seed: of a source without an end, `SEED` by default.
    """
    if is_endless(data):
        samples, seed = samples or SAMPLES, SEED if seed is None else seed
    return open_data(data, catalog, samples=samples, seed=seed)
