"""Tokenizers that entries name instead of having them trained: networks of other bundles (`pretrained`), and external ones."""

import dataclasses

from maskweave.errors import MaskweaveError
from maskweave.modality.differences import entry_differences
from maskweave.modality.entry import Modality
from maskweave.modality.pretrained import WEIGHTS, find_pretrained
from maskweave.nn.weights import take_tensors
from maskweave.provenance import Origin, place_name, read_provenance
from maskweave.tokenizers.external import ExternalGridTokenizer
from maskweave.tokenizers.external.opening import origin_of_external
from maskweave.tokenizers.grid import GridTokenizer, read_entry

READING = ("size", "array", "fit", "bands", "background")
"""Fields of value types that say how values are read and how large they are; a network does not depend on them."""


def taken_tokenizer(modality: Modality) -> GridTokenizer | ExternalGridTokenizer | None:
    """Returns the tokenizer that a checked entry names; None: its tokenizer is trained.

    Raises:
        MaskweaveError: it cannot be opened, or was made for other values.
    """
    if modality.external is not None:
        return ExternalGridTokenizer.open(modality)
    return load_pretrained(modality) if modality.network is not None and modality.network.pretrained else None


def load_pretrained(modality: Modality) -> GridTokenizer:
    """Loads the network of another bundle for an entry, which may have another size: patches stay, and positions are resized.

    Raises:
        MaskweaveError: the network was made for other values or patches; the message lists the differences.
    """
    spec = modality.network
    assert spec is not None
    folder = find_pretrained(spec.pretrained)
    saved = read_entry(folder)
    value, theirs = modality.value, saved.value
    fields = {f.name for f in dataclasses.fields(value)} & {f.name for f in dataclasses.fields(theirs)}
    alike = dataclasses.replace(value, **{name: getattr(theirs, name) for name in READING if name in fields})
    settings = dataclasses.replace(spec, pretrained="", trained_grid=None)
    made = saved.network and dataclasses.replace(saved.network, pretrained="", trained_grid=None)
    faults = entry_differences(
        dataclasses.replace(modality, value=alike.fitted_like(theirs), tokenizer=settings),
        dataclasses.replace(saved, tokenizer=made),
        ("value", "tokenizer"),
    )
    if modality.patch != saved.patch:
        faults.append(f"its patches have {list(saved.patch)} points, those of the entry {list(modality.patch)}")
    if modality.grid != saved.grid and (len(modality.grid) != 2 or spec.trained_grid is None):
        faults.append(f"its grid is {list(saved.grid)}, that of the entry {list(modality.grid)}")
    if faults:
        raise MaskweaveError(
            f"{modality.name!r}: tokenizer.pretrained: {spec.pretrained} was made for other values: {'; '.join(faults)}. Change the entry, or take another tokenizer"
        )
    tokenizer = GridTokenizer.without_weights(dataclasses.replace(modality, value=value.fitted_like(theirs)))
    take_tensors(tokenizer, folder / WEIGHTS)
    return tokenizer.eval()


def origins_of_taken(modality: Modality, part: str) -> list[Origin]:
    """Returns where the tokenizer that an entry names comes from; empty if it is trained.

    Args:
        part: of the bundle, for the record.
    """
    if modality.external is not None:
        return [origin_of_external(modality.external, part)]
    if modality.network is None or not modality.network.pretrained:
        return []
    place, _, _ = modality.network.pretrained.partition("#")
    folder = find_pretrained(modality.network.pretrained)
    record = read_provenance(folder.parent.parent if folder.parent.name == "tokenizers" else folder)
    before = [origin for origin in record.origins if origin.part in (f"tokenizers/{folder.name}", "tokenizers")]
    licenses = dict.fromkeys(origin.license for origin in before if origin.license)
    return [Origin(part, place_name(place), license=record.license or ", ".join(licenses))]
