"""The tokenizers of a run or bundle on disk: one folder per grid and per text vocabulary."""

from collections.abc import Mapping
from pathlib import Path

from torch import device, nn

from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.external import ExternalGridTokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.rules import RuleTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer


def save_tokenizers(tokenizers: Mapping[str, Tokenizer], folder: Path) -> None:
    """Write tokenizers by modality. Text tokenizers are written once per vocabulary."""
    for name, tokenizer in tokenizers.items():
        if isinstance(tokenizer, SequenceTokenizer):
            vocabulary = folder / tokenizer.text.vocabulary.name
            if not vocabulary.exists():
                tokenizer.text.save(vocabulary)
        elif isinstance(tokenizer, (GridTokenizer, RuleTokenizer, ExternalGridTokenizer)):
            tokenizer.save(folder / name)


def load_tokenizers(folder: Path, catalog: Catalog) -> dict[str, Tokenizer]:
    """Load the tokenizers under `folder` for the sequences and grids of the catalog. Tokenizers of grids may be missing.

    Raises:
        MaskweaveError: a text tokenizer is missing, or a tokenizer is damaged or belongs to another entry.
    """
    texts: Mapping[str, TextTokenizer] = {
        name: TextTokenizer.load(folder / name)
        for name in {m.vocabulary for m in catalog.values() if m.kind == "sequence"}
    }
    for name, text in texts.items():
        text.require(catalog.vocabularies[name], str(folder / name))
    tokenizers: dict[str, Tokenizer] = {}
    for name, modality in catalog.items():
        if modality.kind == "sequence":
            tokenizers[name] = SequenceTokenizer(modality, texts[modality.vocabulary])
        elif modality.kind == "grid" and (folder / name).exists():
            tokenizers[name] = load_grid_tokenizer(folder / name, modality)
    return tokenizers


def to_device(tokenizers: Mapping[str, Tokenizer], where: device) -> None:
    """Move the networks among tokenizers to a device."""
    for tokenizer in tokenizers.values():
        if isinstance(tokenizer, nn.Module):
            tokenizer.to(where)


def load_grid_tokenizer(folder: Path, modality: Modality) -> GridTokenizer | RuleTokenizer | ExternalGridTokenizer:
    """Load the tokenizer of a grid: a network, an external one, or the rules of value types that are tokenized by rules.

    Raises:
        MaskweaveError: files are missing or damaged, or the tokenizer belongs to another entry.
    """
    if modality.value.tokenized_by == "rules":
        return RuleTokenizer.load(folder, modality)
    if modality.external is not None:
        return ExternalGridTokenizer.load(folder, modality)
    return GridTokenizer.load(folder, modality)
