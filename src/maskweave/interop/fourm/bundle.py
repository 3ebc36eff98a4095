"""Makes a bundle of a published model, published tokenizers and the published text tokenizer."""

import os
from collections.abc import Mapping

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.interop.fourm.model import CATALOG, load_model
from maskweave.interop.fourm.tokenizers import load_tokenizer
from maskweave.interop.published import locate
from maskweave.modality.catalogs import Catalog
from maskweave.provenance import Origin, made_now, origin_of, place_name
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer

Place = str | os.PathLike[str]


@check_arguments
def load_bundle(
    model: Place,
    tokenizers: Mapping[str, Place] | None = None,
    text_tokenizer: Place | None = None,
    catalog: str | os.PathLike[str] | Catalog = CATALOG,
) -> Bundle:
    """Load a published model with its tokenizers as a bundle. Its provenance has the places, the commits on the Hub and the licenses stated there.

    Args:
        model: folder or Hub id.
        tokenizers: folder or Hub id by modality, for the grids that you use: `{"tok_depth@224": ...}`. For the other grids, inputs and outputs
            are tokens.
        text_tokenizer: the published WordPiece file; required for models with sequences.
        catalog: must have an entry for each of the model's modalities.

    Raises:
        MaskweaveError: as in `load_model` and `load_tokenizer`; a tokenizer for a modality that the model lacks or that is not a grid, or with
            another codebook; a missing text tokenizer, or one with another vocabulary.
    """
    fourm, entries = load_model(model, catalog)
    loaded: dict[str, Tokenizer] = {}
    changed = dict(entries)
    for name, place in (tokenizers or {}).items():
        if name not in entries or entries[name].kind != "grid":
            grids = ", ".join(m.name for m in entries.values() if m.kind == "grid")
            raise MaskweaveError(f"tokenizer for {name!r}: {model} has no such grid; its grids are {grids}")
        tokenizer = load_tokenizer(place, entries[name])
        loaded[name], changed[name] = tokenizer, tokenizer.modality
    entries = Catalog(changed.values(), entries.vocabularies.values(), entries.where)
    sequences = {m.name: m for m in entries.values() if m.kind == "sequence"}
    if sequences and text_tokenizer is None:
        raise MaskweaveError(
            f"{model}: predicts text ({', '.join(sequences)}), so it needs a text tokenizer; set text_tokenizer to the published WordPiece file (text_tokenizer_4m_wordpiece_30k.json)"
        )
    for vocabulary in {m.vocabulary for m in sequences.values()}:
        assert text_tokenizer is not None
        text = TextTokenizer.load(text_tokenizer, vocabulary)
        text.require(entries.vocabularies[vocabulary], str(text_tokenizer))
        text = TextTokenizer(
            entries.vocabularies[vocabulary], text.tokenizer
        )  # the file may define fewer ids than the vocabulary
        loaded |= {m.name: SequenceTokenizer(m, text) for m in sequences.values() if m.vocabulary == vocabulary}
    places = {"model": model, **{f"tokenizers/{name}": place for name, place in (tokenizers or {}).items()}}
    origins = [origin_of(part, place, locate(place)) for part, place in places.items()]
    if text_tokenizer is not None:
        origins.append(Origin("text", place_name(text_tokenizer)))
    return Bundle(entries, loaded, fourm, unconditional=True, provenance=made_now(origins=origins))
