"""Small modalities of every kind, and what a batch of samples may hold of them."""

import numpy as np
import torch

from maskweave.data.columns import Column
from maskweave.masking.batch import TokenBatch
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.codec import EOS
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.metadata import Key, Metadata
from maskweave.values.text import Text
from maskweave.values.vectors import Vectors

SMALL = TokenizerSpec(width=16, heads=2, depth=1, decoder_depth=1, quantizer=Quantizer("fsq", levels=(5, 4)))
PICTURE = Image((8, 8), 3)
TEXT = Vocabulary("text", 320, sentinels=8, values={"v0": 64, "v1": 64}, type="wordpiece")


def tiny(text: Vocabulary = TEXT) -> Catalog:
    keys = {name: Key(id, (0, 10)) for id, name in enumerate(("height", "light", "count"))}
    return Catalog(
        [
            Modality("photo", 1, "patches", PICTURE, grid=(4, 4)),
            Modality("codes", 2, "grid", PICTURE, source="photo", grid=(4, 4), tokenizer=SMALL),
            Modality(
                "spectrum",
                4,
                "grid",
                Map((20,), range=(0, 1)),
                grid=(5,),
                tokenizer=SMALL,
                positions="learned",
            ),
            Modality("caption", 5, "sequence", Text(), max_tokens=20, vocabulary="text"),
            Modality("facts", 7, "sequence", Metadata(keys=keys), max_tokens=9, vocabulary="text", chunk=2),
            Modality("feature", 9, "vectors", Vectors(channels=6), max_tokens=4),
        ],
        [text],
    )


def random_columns(
    catalog: Catalog, samples: int, rng: np.random.Generator, missing: float = 0.0, fewest: int = 1
) -> dict[str, Column]:
    """Columns of random content, where each part of a sample is missing with the given probability."""
    columns = {}
    for name, m in catalog.items():
        present = rng.random(samples) >= missing
        L = m.tokens
        length = rng.integers(min(fewest, L), L + 1, samples) * present
        if m.kind == "grid":
            columns[name] = Column(present, ids=rng.integers(0, 20, (samples, L)).astype(np.uint16))
        elif m.kind == "sequence":
            ids = rng.integers(140, 320, (samples, L)).astype(np.uint16)
            ids[np.arange(samples), np.maximum(length - 1, 0)] = EOS
            ids[np.arange(L) >= length[:, None]] = 0
            columns[name] = Column(present, ids=ids, length=length)
        elif m.kind == "patches":
            columns[name] = Column(present, rows=rng.integers(0, 256, (samples, L, m.row_width), dtype=np.uint8))
        else:
            rows = rng.normal(size=(samples, L, m.row_width)).astype(np.float16)
            columns[name] = Column(present, length=length, rows=rows)
    return columns


def tiny_batch(
    catalog: Catalog, samples: int = 6, seed: int = 0, tokens: int = 12, drawing: MaskingConfig | None = None
) -> TokenBatch:
    rng = np.random.default_rng(seed)
    return MaskSampler(catalog, drawing or MaskingConfig(tokens, tokens))(random_columns(catalog, samples, rng), rng)


def same(a: TokenBatch, b: TokenBatch) -> bool:
    """Whether two batches are equal in every tensor."""
    pairs = [(a.labels, b.labels)]
    for x, y in ((a.inputs, b.inputs), (a.targets, b.targets)):
        pairs += [(x.ids, y.ids), (x.modality, y.modality), (x.position, y.position)]
        if x.index.keys() != y.index.keys():
            return False
        pairs += [(x.index[name], y.index[name]) for name in x.index]
    pairs += [(a.rows[name], b.rows[name]) for name in a.rows]
    return a.rows.keys() == b.rows.keys() and all(torch.equal(x, y) for x, y in pairs)
