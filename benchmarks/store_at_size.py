"""The token store of a data set of 100,000 shards and 10^9 samples with the 19 modalities of 4M-21, as one of 64 processes sees it.

The index is complete. The shards of the first windows are links to one sparse file per modality, which takes no space on disk and is read as zeros.
Printed are the time until the first batch and the memory of the process, then its memory while it draws batches. Times of batches are CPU time,
which other jobs on the machine hardly affect. At the end: what a sample takes on
disk, and how much of it is read when 256 input and 256 target tokens of it are drawn, from a shard of 500 random samples that is not in memory.

OMP_NUM_THREADS=1 python benchmarks/store_at_size.py [BATCHES]     # 10,000 batches by default: about 15 minutes, 0.4 GB on disk
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

START = time.perf_counter()

from maskweave.data.columns import Column  # noqa: E402
from maskweave.data.token_store import TokenData, entry_fingerprint, shard_name, write_column, write_starts  # noqa: E402
from maskweave.data.windows import WindowPermutation  # noqa: E402
from maskweave.families.fourm import FourMSettings  # noqa: E402
from maskweave.files import write_json  # noqa: E402
from maskweave.masking.fourm import MaskSampler, TokenBatches  # noqa: E402
from maskweave.modality.catalogs import Catalog, load_catalog  # noqa: E402
from maskweave.modality.entry import Modality  # noqa: E402
from maskweave.training.recipe import load_recipe  # noqa: E402

SHARDS, SHARD_SIZE = 100_000, 10_000
BATCH, RANKS = 64, 64
REAL = 500
"""Samples of the shard whose reading is measured."""
RECIPE = Path(__file__).parent.parent / "recipes" / "4m-21-b.yaml"


def columns(m: Modality, samples: int) -> dict[str, tuple[str, tuple[int, ...], np.dtype]]:
    """Type, shape and NumPy type of each tensor of a shard."""
    found = {"present": ("BOOL", (samples,), np.dtype(bool))}
    if m.kind in ("sequence", "vectors"):
        found["length"] = ("I32", (samples,), np.dtype(np.int32))
    if m.kind in ("sequence", "grid"):
        found["ids"] = ("U16", (samples, m.tokens), np.dtype(np.uint16))
    else:
        dtype = np.dtype(m.value.row_dtype)
        found["rows"] = ({"float16": "F16", "uint8": "U8"}[dtype.name], (samples, m.tokens, m.row_width), dtype)
    return found


def write_sparse(path: Path, m: Modality, samples: int) -> None:
    """Write a shard whose ids and rows are holes."""
    header, end = {}, 0
    for name, (kind, shape, dtype) in columns(m, samples).items():
        size = int(np.prod(shape)) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(np.ones(samples, bool).tobytes())
        if "length" in header:
            file.write(np.full(samples, m.tokens, np.int32).tobytes())
        file.truncate(8 + len(text) + end)


def write_index(root: Path, catalog: Catalog, shards: int, shard_size: int) -> None:
    fingerprints = {name: entry_fingerprint(m) for name, m in catalog.items()}
    write_json(
        root / "index.json", {"modalities": fingerprints, "samples": shards * shard_size, "shard_size": shard_size}
    )
    write_starts(root, [shard_size] * shards)


def memory() -> dict[str, float]:
    """Megabytes of this process: all that is resident, its own, and that of mapped files, which the system can take back."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {
        name: int(lines[key].split()[0]) / 1024
        for name, key in (("resident", "VmRSS"), ("own", "RssAnon"), ("files", "RssFile"))
    }


def told(what: str, seconds: float) -> None:
    print(
        f"{what:32} {seconds:8.1f} s   " + "  ".join(f"{name} {mb:6.0f} MB" for name, mb in memory().items()),
        flush=True,
    )


def bytes_read() -> int:
    return int(
        next(
            line
            for line in Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
            if line.startswith("read_bytes")
        ).split()[1]
    )


def batches_of(root: Path, catalog: Catalog, settings: FourMSettings) -> TokenBatches:
    return TokenBatches(TokenData(root, catalog), MaskSampler(catalog, settings.masking), BATCH)


def at_size(root: Path, catalog: Catalog, settings: FourMSettings, count: int) -> None:
    write_index(root, catalog, SHARDS, SHARD_SIZE)
    for name, m in catalog.items():
        write_sparse(root / "sparse" / name, m, SHARD_SIZE)
        (root / name).mkdir()
    told("imports, and the index written", time.perf_counter() - START)
    start = time.perf_counter()
    batches = batches_of(root, catalog, settings)
    order = batches.order._permutation(0, 0)
    assert isinstance(order, WindowPermutation)
    told("opened", time.perf_counter() - start)
    window, linked = order.windows.size, 0
    seconds = 0.0
    for step in range(count):
        number = step * RANKS + step % RANKS
        position = (number + 1) * BATCH
        while linked * SHARD_SIZE < position + 2 * window * SHARD_SIZE:  # the links are not part of what is measured
            for name in catalog:
                shard = root / name / f"{shard_name(order.shards[linked])}.safetensors"
                shard.symlink_to(root / "sparse" / name)
            linked += 1
        start = time.process_time()
        batches[number]
        seconds += time.process_time() - start
        if step == 0 or (step + 1) % max(1, count // 10) == 0:
            told(f"batch {step + 1:,} (window of {window} shards)", seconds)
    print(f"{1000 * seconds / count:.1f} ms per batch of {BATCH}; {len(batches.data._open)} files open", flush=True)  # type: ignore[union-attr]


def reading(root: Path, catalog: Catalog, settings: FourMSettings) -> None:
    rng = np.random.default_rng(0)
    write_index(root, catalog, 1, REAL)
    total = 0
    for name, m in catalog.items():
        present, parts = np.ones(REAL, bool), {}
        for field, (_, shape, dtype) in columns(m, REAL).items():
            if field == "length":
                parts[field] = np.full(REAL, m.tokens, np.int64)
            elif field != "present":
                parts[field] = rng.integers(0, 200, shape).astype(dtype)
        write_column(root, name, 0, Column(present, **parts))
        path = root / name / f"{shard_name(0)}.safetensors"
        total += path.stat().st_size
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    batches, before, rows, drawn = batches_of(root, catalog, settings), bytes_read(), 0, 0
    for number in range(-(-REAL // BATCH)):
        batch = batches[number]
        rows += sum(
            len(part) * catalog[name].row_width * np.dtype(catalog[name].value.row_dtype).itemsize
            for name, part in batch.rows.items()
        )
        drawn += len(batch)
    read = bytes_read() - before
    kb = [size / 1000 for size in (total / REAL, read / drawn, rows / drawn)]
    print(f"a sample has {kb[0]:.0f} KB on disk; {kb[1]:.0f} KB are read, {kb[2]:.0f} KB of rows are drawn")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe.model, FourMSettings)
    catalog = load_catalog("4m-21")
    with tempfile.TemporaryDirectory() as folder:
        at_size(Path(folder) / "size", catalog, recipe.model, count)
        reading(Path(folder) / "real", catalog, recipe.model)


if __name__ == "__main__":
    main()
