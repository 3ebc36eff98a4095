"""The tokenizers of a run or bundle on disk: a folder for each grid and each text vocabulary."""

from collections.abc import Mapping
from pathlib import Path

from maskweave.modality.catalogs import Catalog
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer


def save_tokenizers(tokenizers: Mapping[str, Tokenizer], folder: Path) -> None:
    """Write tokenizers by modality; those of text once for each vocabulary."""
    for name, tokenizer in tokenizers.items():
        if isinstance(tokenizer, SequenceTokenizer):
            vocabulary = folder / tokenizer.text.vocabulary.name
            if not vocabulary.exists():
                tokenizer.text.save(vocabulary)
        elif isinstance(tokenizer, GridTokenizer):
            tokenizer.save(folder / name)


def load_tokenizers(folder: Path, catalog: Catalog) -> dict[str, Tokenizer]:
    """The tokenizers under `folder` for the sequences and grids of the catalog. A bundle may lack those of some grids.

    Raises:
        MaskweaveError: a text tokenizer is missing, or one is damaged or of another entry.
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
            tokenizers[name] = GridTokenizer.load(folder / name, modality)
    return tokenizers
