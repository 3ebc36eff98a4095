"""What can be indexed: scenes, imported data sets, folders of pictures."""

from pathlib import Path

from maskweave.data.pictures import Pictures
from maskweave.data.shards import Shards
from maskweave.data.source import Source, Subset
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog


def open_data(data: str, catalog: Catalog, samples: int = 0, seed: int | None = None) -> Source:
    """Open a data set by what a user calls it.

    Args:
        data: `scenes`, the folder of an imported data set, or a folder of pictures.
        samples: the first so many; all by default, and of scenes 1000.
        seed: of scenes, 1 by default; recipes train on those of seed 0 unless they say otherwise.

    Raises:
        MaskweaveError: there is nothing of the kind, or a seed is given for what is no scenes.
    """
    if samples < 0:
        raise MaskweaveError(f"samples must be 0 (all) or more, found {samples}")
    if data == "scenes":
        from maskweave.synthetic.scenes import VALUES, Scenes

        known = [name for name, m in catalog.items() if type(m.value) in VALUES]
        return Scenes(catalog.subset(known), samples or 1000, 1 if seed is None else seed)
    if seed is not None:
        raise MaskweaveError(f"a seed chooses among scenes; {data} is a fixed data set, so leave the seed out")
    folder = Path(data)
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "no such folder"
        raise MaskweaveError(f"{data}: {fault}; expected 'scenes', an imported data set, or a folder of pictures")
    source = Shards(folder, catalog) if any(folder.glob("*/*.tar")) else Pictures(folder, catalog)
    return Subset(source, range(min(samples, len(source)))) if samples else source
