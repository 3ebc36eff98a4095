"""The samples that a recipe names."""

from dataclasses import replace
from pathlib import Path

from maskweave.catalogues import Catalogue
from maskweave.data.beside import Beside
from maskweave.data.source import Source, Subset
from maskweave.errors import MaskweaveError
from maskweave.train.recipe import Recipe


def open_source(recipe: Recipe, catalogue: Catalogue, part: str, seed: int | None = None, samples: int = 0) -> Source:
    """The samples to train on (`part` "train"), or the held-out ones ("validation").

    Args:
        seed: of the scenes, in place of the recipe's.
        samples: how many held-out samples, in place of the recipe's.

    Raises:
        MaskweaveError: the data set is not there, or too small.
    """
    data = recipe.data
    if data.beside:
        if not Path(data.beside).is_dir():
            raise MaskweaveError(
                f"data.beside: {data.beside}: no such folder; make it with 'maskweave data features', or leave the key out"
            )
        there = [name for name in catalogue if (Path(data.beside) / name).is_dir()]
        rest = [name for name, m in catalogue.items() if m.reads not in there]
        without = replace(recipe, data=replace(data, beside=""))
        source = open_source(without, catalogue.subset(rest), part, seed, samples)
        return Beside(source, data.beside, catalogue.subset(there)) if there else source
    held_out = samples or data.validation
    if data.source == "scenes":
        from maskweave.data.scenes import Scenes

        if part == "train":
            return Scenes(catalogue, data.samples, data.seed if seed is None else seed)
        return Scenes(catalogue, held_out, data.seed + 1 if seed is None else seed)
    from maskweave.data.shards import Shards

    if seed is not None:
        raise MaskweaveError(f"a seed chooses among scenes; {data.source} is a fixed data set, so leave the seed out")
    imported = Shards(data.source, catalogue)
    first = len(imported) - data.validation
    if first < 1:
        raise MaskweaveError(
            f"{data.source}: has {len(imported)} samples, too few to hold out {data.validation}; lower data.validation"
        )
    if part == "train":
        return Subset(imported, range(min(first, data.samples or first)))
    return Subset(imported, range(first, min(first + held_out, len(imported))))
