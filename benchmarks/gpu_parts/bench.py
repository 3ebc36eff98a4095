"""What the sections of `benchmarks/gpu.py` share: rows of results, time, models and batches."""

import gc
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskweave.data.columns import Column
from maskweave.masking.batch import TokenBatch
from maskweave.masking.fourm import MaskingConfig, MaskSampler, Mixture
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.objectives.fourm import FourMObjective

KINDS = {
    "attention": ["fmha", "flash", "attention", "sdpa", "cudnn::fusion"],
    "matrix products": ["gemm", "nvjet", "cutlass", "matmul", "triton_mm", "triton_tem_fused_mm"],
    "optimizer": ["multi_tensor_apply", "adam", "lpnorm"],
    "compiled": ["triton"],
    "copies": ["memcpy", "memset"],
    "softmax": ["softmax"],
}
"""Kinds of kernels: the first of which a word is in the kernel's name."""
LARGEST = 40
"""Kernels that a profile names."""


class NotHere(Exception):
    """This version of maskweave or torch does not have what a case needs."""


class Bench:
    """A section's process.

    Args:
        rows: file to which results are appended, one JSON object a line.
        seconds: the process is ended after so many.
    """

    def __init__(self, device: str, quick: bool, rows: Path, seconds: float, section: str):
        self.device, self.quick, self.section = torch.device(device), quick, section
        self._rows, self._end = rows, time.monotonic() + seconds
        torch.manual_seed(0)
        torch.set_num_threads(1)  # more are slower where other jobs run beside

    def row(self, case: str, **numbers: Any) -> None:
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"case": case, **numbers}) + "\n")

    def check(self, case: str, value: float, bound: float) -> None:
        """Records a difference that must be at most `bound`."""
        self.row(case, value=float(value), bound=bound, ok=bool(value <= bound))

    def case(self, name: str, work: Callable[[], dict[str, Any] | None], seconds: float = 0.0) -> None:
        """Records the numbers that `work` returns. If it fails, the row says why, and the section goes on.

        Args:
            seconds: how long it may take; if less time is left, it is not run.
        """
        try:
            if not self.quick and self.left < seconds:
                raise NotHere(f"{self.left:.0f} s were left")
            if (numbers := work()) is not None:
                self.row(name, **numbers)
        except NotHere as reason:
            self.row(name, skipped=str(reason))
        except torch.OutOfMemoryError:
            self.row(name, skipped="out of memory")
        except Exception as error:
            traceback.print_exc()
            text = str(error).strip().splitlines()
            self.row(name, error=f"{type(error).__name__}: {text[0] if text else ''}"[:300])
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], most: float = 4.0, fewest: int = 3) -> float:
        """Returns the mean seconds of a call after one to warm up, repeated for about `most` seconds."""
        work()
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        once = time.perf_counter() - began
        repeats = max(1 if self.quick else fewest, min(200, int((0.0 if self.quick else most) / max(once, 1e-6))))
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - began) / repeats

    def profile(self, work: Callable[[], object], calls: int = 3) -> None:
        """Records the GPU's milliseconds in a call by kind of kernel, the largest kernels of each kind, and how long no kernel ran."""
        if self.device.type != "cuda":
            return
        self.wait()
        began = time.perf_counter()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(calls):
                work()
            self.wait()
        whole = 1e3 * (time.perf_counter() - began) / calls
        found_by_key = [
            (e.key, e.self_device_time_total / 1e3 / calls, e.count // calls) for e in profiler.key_averages()
        ]
        kernels = [one for one in found_by_key if one[1] > 0]  # not the host's calls
        by_kind: dict[str, list[tuple[str, float, int]]] = {}
        for key, ms, times in kernels:
            kind = next((kind for kind, words in KINDS.items() if any(word in key.lower() for word in words)), "other")
            by_kind.setdefault(kind, []).append((key, ms, times))
        for kind, found in sorted(by_kind.items()):
            self.row(f"  {kind}", ms=sum(ms for _, ms, _ in found), kernels=sum(times for *_, times in found))
        for key, ms, times in sorted(kernels, key=lambda k: -k[1])[:LARGEST]:
            self.row(f"    {key[:100]}", ms=ms, kernels=times)
        self.row("  profiled step", ms=whole, without_kernel_ms=whole - sum(ms for _, ms, _ in kernels))

    def peak_gib(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0


def columns(catalog: Catalog, samples: int, rng: np.random.Generator) -> dict[str, Column]:
    """Random tokens of all modalities."""
    found, present = {}, np.ones(samples, bool)
    for name, m in catalog.items():
        if m.has_tokens:
            ids = rng.integers(0, catalog.vocabulary_size(name), (samples, m.tokens))
            length = rng.integers(10, m.tokens + 1, samples) if m.kind == "sequence" else None
            found[name] = Column(present, ids, length)
        else:
            rows = rng.integers(0, 256, (samples, m.tokens, m.row_width)).astype(np.uint8 if m.grid else np.float32)
            found[name] = Column(present, length=None if m.grid else np.full(samples, m.tokens), rows=rows)
    return found


def batches(catalog: Catalog, samples: int, tokens: int, count: int, static: bool = True) -> list[TokenBatch]:
    """Batches with different masks of the same random tokens."""
    rng = np.random.default_rng(0)
    masking = MaskingConfig(tokens, tokens, [Mixture({"default": 1.0}, {"default": 1.0})])
    sampler, data = MaskSampler(catalog, masking, samples if static else 0), columns(catalog, samples, rng)
    return [sampler(data, rng) for _ in range(count)]


def objective(catalog: Catalog, device: torch.device, size: str, **config: Any) -> FourMObjective:
    """An untrained model in training mode, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        return FourMObjective(FourM(catalog, FourMConfig(size=size, separate=True, **config))).train()
