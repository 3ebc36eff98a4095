"""Opens the data set of an index, and the samples that it is aligned with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskweave.data.named import check_source_allowed, is_endless
from maskweave.data.opening import absolute, open_data
from maskweave.data.remote import is_remote
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import read_recipe
from maskweave.generate.bundle import Bundle
from maskweave.modality.catalogs import Catalog
from maskweave.retrieve.alignment import SAMPLES as PAIRS
from maskweave.retrieve.pairs import PairSource
from maskweave.training.sources import check_recipe_allowed, open_source

SAMPLES = 1000
SEED = 1
"""Default seed of an endless source. Recipes train on seed 0, so the indexed samples are held out."""


def open_indexed(data: str, catalog: Catalog, samples: int = 0, seed: int | None = None, run: str = "") -> Source:
    """Opens the data given to `maskweave retrieve index`.

    Args:
        data: a path or name, as for `open_data`.
        samples: number of samples, from the first; by default all, or `SAMPLES` of an endless source.
        seed: seed of an endless source, `SEED` by default; of a run's, its own.
        run: folder of a run, whose recipe's held-out samples are opened instead of `data`.

    Raises:
        MaskweaveError: also, the run has no recipe, or its data is code that is not allowed to run or has a relative path.
    """
    if run:
        recipe = read_recipe(Path(run))
        check_recipe_allowed(recipe)
        for name, settings in recipe.data.sets().items():
            found = absolute(settings.source)  # not a path if the source is named or at a URL
            if Path(found).is_absolute() and not Path(settings.source).is_absolute():
                raise MaskweaveError(
                    f"{run}/recipe.yaml: data{f'.mix.{name}' * bool(name)}.source is the relative path {settings.source!r}, but an index must find its data "
                    f"from any folder; write an absolute path, such as {found}"
                )
        return open_source(recipe, catalog, "validation", seed, samples)
    if is_endless(data):
        samples, seed = samples or SAMPLES, SEED if seed is None else seed
    return open_data(data, catalog, samples=samples, seed=seed)


def pairs_of(given: str, bundle: Bundle) -> PairSource | None:
    """Returns the samples that an index is aligned with.

    Args:
        given: a path or name, as for `open_data`; "auto": the training samples of the bundle's recipe, if they can be read; "none": no samples.
    """
    if given == "none":
        return None
    if given != "auto":
        samples = PAIRS if is_endless(given) else 0
        return PairSource(absolute(given), lambda: open_data(given, bundle.catalog, samples=samples))

    def training() -> Source:
        if bundle.folder is None:
            raise MaskweaveError("the bundle has no folder, so no recipe")
        recipe = read_recipe(Path(bundle.folder))
        check_recipe_allowed(recipe)
        for data in recipe.data.sets().values():
            if is_remote(data.source):
                raise MaskweaveError(f"{data.source} is not on this machine")
        return open_source(recipe, bundle.catalog, "train", samples=PAIRS, spread=True)

    return PairSource("the run's training data", training, required=False)


def reopen_indexed(facts: Mapping[str, Any], catalog: Catalog) -> Source:
    """Opens the data of a finished index, from any folder.

    Args:
        facts: of the index.

    Raises:
        MaskweaveError: the index names code that is not allowed to run, or its data cannot be opened.
    """
    check_source_allowed(facts["data"]["data"], "the data of the index")
    try:
        return open_indexed(**facts["data"], catalog=catalog)
    except MaskweaveError as error:
        raise MaskweaveError(
            f"the data of the index cannot be opened; if it has moved, move it back or index it again: {error}"
        ) from error
