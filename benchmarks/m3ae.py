"""Training steps of M3AE with half of the samples unpaired, against paired samples with the same number of tokens. One thread.

Prints the median CPU time per token, forward and backward, and the ratio, which is 1 if the cost depends only on the number of tokens. Sizes are those of
scenes: 8×8 patches, texts of 15 to 40 tokens. A new tensor shape has a cost of its own in bf16, so all batches differ, as in training.

OMP_NUM_THREADS=1 python benchmarks/m3ae.py [--size nano] [--batch-size 32] [--batches 40] [--precision bf16]
"""

import argparse
import statistics
import time

import numpy as np
import torch

from maskweave.data.columns import Column
from maskweave.masking.m3ae import MaskedBatch, MaskRatio, mask_columns, separate
from maskweave.modality.catalogs import load_catalog
from maskweave.models.m3ae import M3AE, M3AE_SIZES, M3AEConfig
from maskweave.nn.cpu import keep_freed_memory
from maskweave.objectives.m3ae import M3AEObjective

CATALOG = load_catalog("scenes").subset(["rgb", "caption"])
SHORTEST, LONGEST = 15, 40


def random_batch(samples: int, unpaired: float, rng: np.random.Generator) -> MaskedBatch:
    picture, text = CATALOG["rgb"], CATALOG["caption"]
    columns = {
        "rgb": Column(
            np.ones(samples, bool),
            rows=rng.integers(0, 256, (samples, picture.tokens, picture.row_width), dtype=np.uint8),
        ),
        "caption": Column(
            np.ones(samples, bool),
            ids=rng.integers(5, 500, (samples, text.tokens)).astype(np.uint16),
            length=rng.integers(SHORTEST, LONGEST, samples),
        ),
    }
    return mask_columns(separate(columns, rng.random(samples) < unpaired, CATALOG, rng), CATALOG, MaskRatio(), rng)


def tokens(batch: MaskedBatch) -> int:
    parts = [tokens for group in batch.groups for tokens in group.parts.values()]
    return sum(t.masked.numel() if t.present is None else int(t.present.sum()) for t in parts)


def seconds(objective: M3AEObjective, batch: MaskedBatch, bf16: bool) -> float:
    """CPU seconds of a step per token."""
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss, _ = objective(batch)
    loss.backward()
    found = (time.process_time() - start) / tokens(batch)
    objective.zero_grad(set_to_none=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(M3AE_SIZES), default="nano")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rng = np.random.default_rng(0)
    objective = M3AEObjective(M3AE(CATALOG, M3AEConfig(options.size)))
    mixed = [random_batch(options.batch_size, 0.5, rng) for _ in range(options.batches)]
    pairs = sum(map(tokens, mixed)) / tokens(random_batch(1000, 0.0, rng)) * 1000 / options.batches
    paired = [random_batch(round(pairs), 0.0, rng) for _ in mixed]
    bf16 = options.precision == "bf16"
    took = [[seconds(objective, batch, bf16) for batch in each] for each in zip(paired, mixed, strict=True)]
    paired_time, unpaired_time = (
        statistics.median(times) * 1e6 for times in zip(*took[options.batches // 4 :], strict=True)
    )
    print(
        f"{options.size}, {options.precision}: {options.batch_size} samples, half of them unpaired, {unpaired_time:.1f} µs per token; "
        f"{round(pairs)} paired samples {paired_time:.1f}; ratio {unpaired_time / paired_time:.2f}"
    )


if __name__ == "__main__":
    main()
