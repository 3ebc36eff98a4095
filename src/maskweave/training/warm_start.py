"""Going on from a trained model: opening it, and what to tell about tokenizers that are not its own."""

import filecmp
from pathlib import Path

from torch import nn

from maskweave.errors import MaskweaveError
from maskweave.families.base import family_of
from maskweave.families.weights import load_model
from maskweave.modality.catalogs import Catalog, load_saved_catalog


def warm_start(model: nn.Module, catalog: Catalog, folder: Path) -> list[str]:
    """Take over the weights of the bundle (or finished run) at `folder`, whose model must be of the same family.

    Returns:
        Sentences about the modalities that only one of the two has.

    Raises:
        MaskweaveError: no bundle, another architecture, or a modality whose entry has changed; names what differs.
    """
    if (folder / "config.json").is_file():
        raise MaskweaveError(
            f"start: {folder} is a published checkpoint; make a bundle of it first: maskweave import 4m {folder} --out BUNDLE"
        )
    theirs = load_saved_catalog(folder)
    donor = load_model(folder, theirs)
    family, other = family_of(model), family_of(donor)
    if family is not other:
        raise MaskweaveError(
            f"start: {folder} holds a model of family {other.name!r}, not {family.name!r}; give the bundle of a run with model.family {family.name!r}"
        )
    return family.warm_start(model, catalog, donor, theirs, folder)


def other_tokenizers(catalog: Catalog, ours: Path, theirs: Path) -> list[str]:
    """Sentences about tokenizers that are not the bundle's, so that tokens mean other things than the weights taken over.

    Args:
        ours, theirs: folders with a tokenizer for each name of a grid or vocabulary.
    """
    names = dict.fromkeys(m.vocabulary or m.name for m in catalog.values() if m.has_tokens)
    files = [Path(name) / file for name in names for file in ("model.safetensors", "tokenizer.json")]
    both = [file for file in files if (ours / file).is_file() and (theirs / file).is_file()]
    differing = [str(file.parent) for file in both if not filecmp.cmp(ours / file, theirs / file, shallow=False)]
    if not differing:
        return []
    return [
        f"{', '.join(differing)}: other tokenizers than {theirs} has, so tokens mean other things to the weights taken over; "
        f"set tokenizers.reuse: {theirs} and begin in another folder"
    ]
