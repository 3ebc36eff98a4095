"""Published 4M models: time and peak memory of loading, of a training step, and of tokenizing pictures.

- Loading: 4M-21 of size --size is written in the published format and loaded in new processes, alternately as a model and as plain tensors
  with safetensors, the minimum for any loader. Then every weight is read once. Memory is the resident memory at that point, anonymous and
  file-mapped, relative to the file size.
- Training: size Ti, 16 samples, 128 + 128 tokens, 7 and 21 modalities with separate embedding tables: mask sampling, forward, backward,
  clipping, AdamW; in float32 and bf16, with full updates of the tables, with updates of the rows in use (`lazy_embeddings`), and with compiled
  blocks. Medians of alternating measurements. Also printed, for the current speed of the machine: 2048³ matrix products in GFLOP/s (162 and
  1078 on two idle cores with bf16 matrix units).
- Tokenizing: 64 pictures of 224×224 pixels, a ViT-B encoder with 16384 codes, in float32 and bf16.

python benchmarks/fourm.py [loading] [training] [tokenizing] [--size B] [--rounds 7] [--threads 2]
"""

import argparse
import gc
import itertools
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gpu_parts.bench import columns
from safetensors.torch import load_file

from maskweave.interop.fourm import load_model
from maskweave.interop.fourm.model import export_model
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn.cpu import keep_freed_memory
from maskweave.objectives.fourm import FourMObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.training.hardware import compile_blocks
from maskweave.training.optimizer import build_optimizer, clip_gradients, gradient_parts
from maskweave.training.settings import TrainSettings
from maskweave.values.image import Image

SAMPLES, TOKENS, PICTURES = 16, 128, 64


def memory(kind: str) -> float:
    """Memory of this process in MiB: RssAnon (anonymous), RssFile (file-mapped) or VmHWM (peak)."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else float("nan")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def opened(folder: Path, how: str, answer: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Runs in a separate process. Sends the seconds to load and the MiB after every weight was read."""
    torch.set_num_threads(1)
    before = memory("RssAnon") + memory("RssFile")
    start = time.perf_counter()
    if how == "as a model":
        tensors = list(load_model(folder).model.parameters())
    else:
        tensors = list(load_file(folder / "model.safetensors").values())
    took = time.perf_counter() - start
    sum(float(t.detach().flatten()[::512].sum()) for t in tensors)  # touches every page
    answer.put((took, memory("RssAnon") + memory("RssFile") - before))


def loading(size: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        entries = load_catalog("4m-21")
        torch.manual_seed(0)
        export_model(FourM(entries, FourMConfig(size=size, separate=True, qk_norm=True)), entries, folder)
        file = (folder / "model.safetensors").stat().st_size / 2**20
        print(f"loading 4M-21 {size}, file size {file:.0f} MiB")
        context = multiprocessing.get_context("spawn")
        found: dict[str, list[tuple[float, float]]] = {"as a model": [], "as plain tensors": []}
        for _, how in itertools.product(range(rounds), found):
            answer = context.Queue()
            process = context.Process(target=opened, args=(folder, how, answer))
            process.start()
            found[how].append(answer.get())
            process.join()
        for how, results in found.items():
            took, held = (statistics.median(values) for values in zip(*results, strict=True))
            print(f"  {how:<16}{took:6.2f} s, memory {held / file:.2f} × file size")


def training_step(catalog: Catalog, precision: str, how: str) -> Callable[[], None]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = TrainSettings(lazy_embeddings=how != "full tables")
    objective = FourMObjective(FourM(catalog, FourMConfig(size="Ti", separate=True))).train()
    if how == "used rows, compiled":
        compile_blocks(objective)
    optimizer, _ = build_optimizer(objective, settings)
    parameters, sampler, data = (
        list(objective.parameters()),
        MaskSampler(catalog, MaskingConfig(TOKENS, TOKENS)),
        columns(catalog, SAMPLES, rng),
    )

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = objective(sampler(data, rng))
        loss.backward()
        parts = gradient_parts(parameters)
        clip_gradients(parts, torch.nn.utils.get_total_norm(parts), settings.clip, may_wait=True)
        optimizer.step()
        optimizer.zero_grad()

    step()  # creates the optimizer state
    return step


def product(precision: str) -> float:
    """GFLOP/s of a 2048³ matrix product."""
    a = torch.randn(2048, 2048, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2 * 2048**3 / min(seconds(lambda: a @ a) for _ in range(5)) / 1e9


def training(rounds: int) -> None:
    keep_freed_memory()  # like `fit`
    for name in ("4m-7", "4m-21"):
        catalog = load_catalog(name)
        print(f"training step, {name}, Ti, {SAMPLES} samples, {TOKENS} + {TOKENS} tokens")
        found: dict[tuple[str, str], list[float]] = {}
        speeds: dict[str, list[float]] = {}
        for precision, ways in {
            "float32": ("full tables", "used rows"),
            "bf16": ("full tables", "used rows", "used rows, compiled"),
        }.items():
            steps = {how: training_step(catalog, precision, how) for how in ways}
            for _, how in itertools.product(range(rounds), steps):
                speeds.setdefault(precision, []).append(product(precision))
                found.setdefault((precision, how), []).append(seconds(steps[how]))
            steps.clear()
            gc.collect()  # frees memory for the next models
        slowest = statistics.median(found["float32", "full tables"])
        for (precision, how), times in found.items():
            took = statistics.median(times)
            print(
                f"  {precision:<8}{how:<18}{took:7.2f} s, {slowest / took:5.1f}×, "
                f"minimum {min(times):.2f} s; machine speed {statistics.median(speeds[precision]):.0f} GFLOP/s"
            )
    print(f"  peak memory {memory('VmHWM'):.0f} MiB, with up to three models in memory")


def tokenizing(rounds: int) -> None:
    spec = TokenizerSpec(width=768, heads=12, depth=12, decoder_depth=1, quantizer=Quantizer("vq", codes=16384, dim=32))
    picture = Image((224, 224), 3)
    torch.manual_seed(0)
    tokenizer = GridTokenizer(Modality("picture", 1, "grid", picture, grid=(14, 14), tokenizer=spec)).eval()
    values = np.random.default_rng(0).integers(0, 256, (PICTURES, 224, 224, 3), dtype=np.uint8)
    print(f"tokenizing {PICTURES} pictures of 224×224 pixels, ViT-B")
    found: dict[str, list[float]] = {"float32": [], "bf16": []}
    for _, precision in itertools.product(range(rounds), found):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found[precision].append(seconds(lambda: tokenizer.encode(values)))
    slow = statistics.median(found["float32"])
    for precision, times in found.items():
        print(f"  {precision:<8}{statistics.median(times):7.2f} s, {slow / statistics.median(times):.1f}×")
    print(f"  peak memory {memory('VmHWM'):.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["loading", "training", "tokenizing"])
    parser.add_argument("--size", default="B")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for part in given.parts:
        {"loading": lambda n: loading(given.size, n), "training": training, "tokenizing": tokenizing}[part](
            given.rounds
        )


if __name__ == "__main__":
    main()
