"""Mask sampling: samples per second on one core, with eight modalities, 128 input and 128 target tokens, from columns in memory.

Four grids of 14×14 tokens, 14×14 patches of 16×16 pixels as uint8, and three sequences of up to 256 tokens. Raw pixels are converted to floats
only after mask sampling. Two rates are printed to show the cost of the patches: without and with gathering and converting their rows.

OMP_NUM_THREADS=1 python benchmarks/masking.py [BATCHES]
"""

import sys
import time

import numpy as np

from maskweave.data.columns import Column
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.image import Image
from maskweave.values.text import Text

BATCH, GRIDS, SEQUENCES, LONGEST = 256, 4, 3, 256


def catalog() -> Catalog:
    picture = Image((224, 224), 3)
    modalities = [Modality("pixels", 1, "patches", picture, grid=(14, 14))]
    modalities += [Modality(f"grid_{n}", 2 + n, "grid", picture, source="pixels", grid=(14, 14)) for n in range(GRIDS)]
    modalities += [
        Modality(f"sequence_{n}", 10 + n, "sequence", Text(), max_tokens=LONGEST, vocabulary="text", chunk=1 + n)
        for n in range(SEQUENCES)
    ]
    return Catalog(modalities, [Vocabulary("text", 30_000)])


def columns(entries: Catalog, rng: np.random.Generator) -> dict[str, Column]:
    present, found = np.ones(BATCH, bool), {}
    for name, m in entries.items():
        if m.kind == "patches":
            found[name] = Column(present, rows=rng.integers(0, 256, (BATCH, m.tokens, m.row_width), dtype=np.uint8))
        else:
            ids = rng.integers(300, 1000, (BATCH, m.tokens)).astype(np.uint16)
            length = rng.integers(10, LONGEST + 1, BATCH) if m.kind == "sequence" else None
            found[name] = Column(present, ids, length)
    return found


def rate(sampler: MaskSampler, data: dict[str, Column], batches: int) -> float:
    """Samples per second of CPU time, which other jobs on the machine do not affect."""
    sampler(data, np.random.default_rng(0))
    start = time.process_time()
    for number in range(batches):
        sampler(data, np.random.default_rng(number))
    return batches * BATCH / (time.process_time() - start)


def main() -> None:
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    entries = catalog()
    data = columns(entries, np.random.default_rng(0))
    sampler = MaskSampler(entries, MaskingConfig(128, 128))
    with_rows = rate(sampler, data, batches)
    only_tokens = {name: c if c.rows is None else Column(c.present, ids=c.rows[..., 0]) for name, c in data.items()}
    without_rows = rate(sampler, only_tokens, batches)
    batch = sampler(data, np.random.default_rng(0))
    print(f"{len(entries)} modalities, batches of {BATCH}, 128 + 128 tokens, one core:")
    print(f"  {without_rows:,.0f} samples/s, only the positions of patches are sampled")
    print(
        f"  {with_rows:,.0f} samples/s, with {len(batch.rows['pixels']) / BATCH:.1f} patches per sample gathered and converted to floats"
    )
    print(
        f"  inputs {len(batch.inputs.ids[0])} wide, {(batch.inputs.modality > 0).float().mean():.0%} filled", end=", "
    )
    print(f"targets {len(batch.targets.ids[0])} wide, {(batch.targets.modality > 0).float().mean():.0%} filled")


if __name__ == "__main__":
    main()
