"""The texts of a data set: what its vocabularies will lose of them, told before anything is trained on them."""

from collections.abc import Mapping

import numpy as np

from maskweave.data.reading import read
from maskweave.data.source import Source
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.tokenizers.text_losses import text_losses

READ = 1000
"""Samples that are read, evenly spread over the data set."""


def text_modalities(catalog: Catalog) -> list[Modality]:
    return [m for m in catalog.values() if m.kind == "sequence" and m.value.is_text]


def describe_texts(source: Source, catalog: Catalog, trained: Mapping[str, TextTokenizer] | None = None) -> list[str]:
    """Describes the texts that are not restored exactly or are cut; see `text_losses`.

    Args:
        source: best opened with text modalities only, since all that it has is read.
        trained: by vocabulary. The others are trained on the texts that are read.
    """
    members = [m for m in text_modalities(catalog) if m.reads in source.names]
    texts: dict[str, list[str]] = {m.name: [] for m in members}
    indices = np.unique(np.linspace(0, len(source) - 1, READ).round().astype(int)).tolist()
    for item in read(source, indices) if members else ():  # unusable samples are counted where all of them are read
        for m in members:
            if m.reads in item.sample:
                texts[m.name].append(item.sample[m.reads])
    lines: list[str] = []
    known = dict(trained or {})
    for m in members:
        if texts[m.name]:
            name = m.vocabulary
            if name not in known:
                of_vocabulary = [text for other in members if other.vocabulary == name for text in texts[other.name]]
                known[name] = TextTokenizer.train(catalog.vocabularies[name], of_vocabulary)
            lines += text_losses(SequenceTokenizer(m, known[name]), texts[m.name])
    return lines
