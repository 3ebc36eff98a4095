"""Warm start: loads the weights of a trained model, and compares tokenizers with those of its bundle."""

import filecmp
from pathlib import Path

from torch import nn

from maskweave.errors import MaskweaveError
from maskweave.families.base import family_of
from maskweave.families.weights import load_model
from maskweave.files import read_json_object
from maskweave.modality.catalogs import Catalog, load_saved_catalog
from maskweave.modality.pretrained import WEIGHTS
from maskweave.tokenizers.external.grid import COPY
from maskweave.tokenizers.external.opening import CONFIG


def warm_start(model: nn.Module, catalog: Catalog, folder: Path) -> list[str]:
    """Copies the weights of the bundle (or finished run) at `folder`. Its model must have the same family.

    Returns:
        Sentences about the modalities that only one of the two models has.

    Raises:
        MaskweaveError: no bundle, another architecture, or a modality with a different entry; the message lists the differences.
    """
    if (folder / "config.json").is_file():
        raise MaskweaveError(f"start: {folder} is a published checkpoint; {family_of(model).how_to_import(folder)}")
    theirs = load_saved_catalog(folder)
    donor = load_model(folder, theirs)
    family, other = family_of(model), family_of(donor)
    if family is not other:
        raise MaskweaveError(
            f"start: {folder} contains a model of family {other.name!r}, expected {family.name!r}; use the bundle of a run with model.family {family.name!r}"
        )
    return family.warm_start(model, catalog, donor, theirs, folder)


def other_tokenizers(catalog: Catalog, ours: Path, theirs: Path) -> list[str]:
    """Returns a sentence about tokenizers that differ from the bundle's: the copied weights do not match their tokens.

    Args:
        ours, theirs: folders with one tokenizer per grid or vocabulary.
    """
    names = dict.fromkeys(m.vocabulary or m.name for m in catalog.values() if m.has_tokens)
    files = [Path(name) / file for name in names for file in ("model.safetensors", "tokenizer.json", "rules.json")]
    both = [file for file in files if (ours / file).is_file() and (theirs / file).is_file()]
    differing = [str(file.parent) for file in both if not filecmp.cmp(ours / file, theirs / file, shallow=False)]
    differing += [m.name for m in catalog.values() if m.external and _other_external(ours / m.name, theirs / m.name)]
    if not differing:
        return []
    return [
        f"{', '.join(differing)}: other tokenizers than in {theirs}, so the copied weights do not match the tokens; "
        f"set tokenizers.reuse: {theirs} and start in another folder"
    ]


def _other_external(ours: Path, theirs: Path) -> bool:
    """Whether two saved tokenizers exist, and one of them is external and has other weights, or, if it is code, another fingerprint."""
    if not ((ours / CONFIG).is_file() and (theirs / CONFIG).is_file()):
        return False
    files, others = ({path.name: path for path in (folder / COPY).glob("*.safetensors")} for folder in (ours, theirs))
    if files.keys() != others.keys() or (theirs / WEIGHTS).is_file():
        return True
    if not files:
        prints = [read_json_object(folder / CONFIG).get("fingerprint") for folder in (ours, theirs)]
        return None not in prints and prints[0] != prints[1]
    return not all(filecmp.cmp(path, others[name], shallow=False) for name, path in files.items())
