"""The training step on a CPU against its floor, and where its time goes.

A step is what `fit` repeats: draw a batch and its masks, forward, backward, clip, AdamW; size Ti, 16 samples, 128 + 128 tokens, separate embedding
tables. Its floor is the time of its matrix products alone: every product of the step is recorded, forward and backward, attention included, and
each shape is multiplied in several layouts (plain, transposed, packed by oneDNN), of which the fastest counts. A ratio of 1 would be a step that does
nothing else, with weights that are already packed.

In each round, for each configuration: one step on a batch of its own, then the products of that step. Printed are medians over the rounds, and the time
in torch's operators by group. Ratios hold on a busy machine too: with one thread, times are CPU seconds of that thread.

python benchmarks/step_floor.py [--catalogs 4m-7 4m-21] [--precisions float32 bf16] [--rounds 5] [--threads 1] [--compile] [--lazy-embeddings]
"""

import argparse
import itertools
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from fourm import SAMPLES, TOKENS
from gpu_parts.bench import columns
from linear import print_processor
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.masking.random import SampleRandom
from maskweave.modality.catalogs import load_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn.cpu import keep_freed_memory
from maskweave.objectives.fourm import FourMObjective
from maskweave.training.checkpoints import State
from maskweave.training.distributed import connect
from maskweave.training.hardware import compile_blocks
from maskweave.training.optimizer import build_optimizer
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import Stepper
from maskweave.training.updates import Update, count

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
SIZE = "Ti"
REPEATS = 3
"""Measurements of a layout of a product, of which the fastest counts."""
SPLIT_STEPS = 3
"""Steps whose time is split."""


class Product(NamedTuple):
    """`matrices` products of (rows, inner) and (inner, columns) matrices."""

    matrices: int
    rows: int
    inner: int
    columns: int
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        return 2 * self.matrices * self.rows * self.inner * self.columns


class Products(TorchDispatchMode):
    """Records the matrix products that run in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        match name:
            case "mm" | "bmm":
                self._add(args[0], args[1].shape[-1])
            case "addmm" | "baddbmm":
                self._add(args[1], args[2].shape[-1])
            case "_linear_pointwise":
                self._add(args[0].flatten(0, -2), out.shape[-1])
            case "_scaled_dot_product_flash_attention_for_cpu":
                self._attention(*args[:3], times=1)
            case "_scaled_dot_product_flash_attention_for_cpu_backward":
                self._attention(*args[1:4], times=2)  # as two products of a plain attention have four
        return out

    def _add(self, left: Tensor, columns: int) -> None:
        *matrices, rows, inner = left.shape
        self.found[Product(int(np.prod(matrices)), rows, inner, columns, left.dtype)] += 1

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, times: int) -> None:
        B, H, N, d = q.shape
        self.found[Product(B * H, N, d, k.shape[2], q.dtype)] += times
        self.found[Product(B * H, N, k.shape[2], d, v.dtype)] += times


class Clock:
    """CPU seconds of this thread if torch uses no other, else seconds."""

    def __init__(self, threads: int):
        self.now: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter

    def __call__(self, work: Callable[[], object]) -> float:
        start = self.now()
        work()
        return self.now() - start


class Floor:
    """The best time of each product."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def __call__(self, products: Counter[Product]) -> float:
        return sum(times * self.best(product) for product, times in products.items())

    def best(self, product: Product) -> float:
        fastest = float("inf")
        for work in layouts(product):
            work()  # compiles the product
            fastest = min([fastest, *(self.clock(work) for _ in range(REPEATS))])
        return fastest


def layouts(product: Product) -> Iterator[Callable[[], object]]:
    """Yields the product in each of its layouts."""
    n, rows, inner, columns, dtype = product
    if n > 1:
        a, b = torch.randn(n, rows, inner).to(dtype), torch.randn(n, inner, columns).to(dtype)
        for right in (b, b.mT.contiguous().mT):
            yield lambda right=right: torch.bmm(a, right)
        return
    a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    weight = b.t().contiguous()
    for left, right in itertools.product((a, a.t().contiguous().t()), (b, weight.t())):
        yield lambda left=left, right=right: torch.mm(left, right)
    onednn = torch.ops.mkldnn._linear_pointwise
    for w in (weight, torch.ops.mkldnn._reorder_linear_weight(weight)):
        yield lambda w=w: onednn(a, w, None, "none", [], "")


class Configuration:
    """A model in training."""

    def __init__(self, catalog: str, precision: str, compiled: bool, lazy: bool, clock: "Clock"):
        torch.manual_seed(0)
        self.name, self.precision = catalog, precision
        entries = load_catalog(catalog)
        objective = FourMObjective(FourM(entries, FourMConfig(size=SIZE, separate=True))).train()
        settings = TrainSettings(precision=precision, lazy_embeddings=lazy)  # type: ignore[arg-type]
        optimizer, names = build_optimizer(objective, settings)
        if compiled:
            compile_blocks(objective)
        self.clock, self.drawing = clock, 0.0  # seconds that the last batch took
        self.data = columns(entries, SAMPLES, np.random.default_rng(0))
        self.sampler = MaskSampler(entries, MaskingConfig(TOKENS, TOKENS))
        self.objective = objective
        state = State(objective, optimizer, names, None, settings, connect("cpu"))
        self.stepper = Stepper(state, [])  # only a divided model looks for further batches

    def step(self, number: int) -> None:
        began = self.clock.now()
        batch = self.sampler(self.data, SampleRandom.at(0, number * SAMPLES + np.arange(SAMPLES)))
        counts = count(batch, self.objective)
        self.drawing = self.clock.now() - began
        self.stepper(Update([batch], [counts], {name: float(n) for name, n in counts.items()}))


LOSS, DRAWING, PYTHON = "cross-entropy", "drawing the batch", "autograd, Python and dispatch"
GROUPS = {
    "products of layers": ("mm", "addmm", "_linear_pointwise"),
    "attention": (
        "bmm", "_softmax", "_softmax_backward_data", "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward", "masked_fill", "masked_fill_",
    ),
    "casts and copies": ("_to_copy", "copy_", "clone", "cat"),
    "embeddings and indices": (
        "embedding", "embedding_dense_backward", "index", "index_put", "_index_put_impl_", "index_select", "index_copy",
        "index_put_", "index_add", "index_add_", "index_copy_", "index_fill_", "index_select_backward", "_coalesce",
    ),
    "clipping": ("linalg_vector_norm", "_foreach_norm", "_foreach_mul_"),
    "AdamW": ("_fused_adamw_", "_foreach_add_"),
    LOSS: (LOSS, "amax", "gather", "scatter_add_", "log"),
    "elementwise and norms": (),
}  # fmt: skip
"""Groups of operators; the last one has all others."""


class Timed(TorchDispatchMode):
    """Sums the time in torch's operators by group. Unlike torch.profiler, it can use a clock of CPU time."""

    def __init__(self, clock: Clock):
        super().__init__()
        self.clock, self.names = clock, defaultdict[str, float](float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = self.clock.now()
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.names[LOSS if name == "_softmax" and args[0].ndim == 2 else name] += self.clock.now() - start
        return out

    def groups(self) -> dict[str, float]:
        group_of = {name: group for group, names in GROUPS.items() for name in names}
        sums: dict[str, float] = defaultdict(float)
        for name, took in self.names.items():
            sums[group_of.get(name, list(GROUPS)[-1])] += took
        return sums


def split(configuration: Configuration, number: int, clock: Clock) -> dict[str, float]:
    """Returns the seconds of each group in a step."""
    with Timed(clock) as timed, torch.compiler.set_stance("force_eager"):
        whole = clock(lambda: configuration.step(number))
    found = timed.groups()
    found[DRAWING] = configuration.drawing
    found[PYTHON] = whole - sum(found.values())
    return found


def recorded(configuration: Configuration, number: int) -> Counter[Product]:
    """Returns the products of a step. It is taken without compilation."""
    with Products() as products, torch.compiler.set_stance("force_eager"):
        configuration.step(number)
    return products.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", nargs="*", default=["4m-7", "4m-21"])
    parser.add_argument("--precisions", nargs="*", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--lazy-embeddings", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as `fit` does
    print_processor()
    clock = Clock(given.threads)
    floor = Floor(clock)
    print(f"{'':16}{'step':>8}{'floor':>9}{'ratio':>8}{'GFLOP':>9}{'GFLOP/s of the floor':>22}")
    groups: dict[str, list[dict[str, float]]] = {}
    for catalog, precision in itertools.product(given.catalogs, given.precisions):
        one = Configuration(catalog, precision, given.compile, given.lazy_embeddings, clock)
        one.step(0)  # creates the optimizer's state
        steps, floors, flops = [], [], []
        for number in range(1, given.rounds + 1):
            steps.append(clock(lambda one=one, number=number: one.step(number)))
            products = recorded(one, number)
            floors.append(floor(products))
            flops.append(sum(p.flops * times for p, times in products.items()))
        step, least, work = (statistics.median(values) for values in (steps, floors, flops))
        ratio = statistics.median(a / b for a, b in zip(steps, floors, strict=True))
        label = f"{catalog} {precision}"
        print(
            f"{label:16}{step:7.2f}s{least:8.2f}s{ratio:7.2f}×{work / 1e9:9.0f}{work / least / 1e9:22.0f}", flush=True
        )
        groups[label] = [split(one, given.rounds + 1 + number, clock) for number in range(SPLIT_STEPS)]
    print(f"\n{'milliseconds of a step':32}" + "".join(f"{label:>16}" for label in groups))
    for group in (*GROUPS, DRAWING, PYTHON):
        found = (statistics.median(step.get(group, 0.0) for step in steps) for steps in groups.values())
        print(f"  {group:30}" + "".join(f"{1e3 * seconds:16.0f}" for seconds in found))


if __name__ == "__main__":
    main()
