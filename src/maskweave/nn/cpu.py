"""Code that exists only because of CPU kernels, chosen by the processor.

Torch multiplies float32 matrices on a CPU with MKL, which uses half the vector width of AMD's AVX-512 processors and the full width of Intel's.
What speeds up one of them slows down the other, so each choice below gives the processor it was measured on. The choice depends only on the vendor
and the instruction set, never on timing, so a run resumed on the same kind of machine computes the same numbers. Every other processor
uses plain torch.

`MASKWEAVE_CPU_KERNELS=amd|intel|plain` overrides the choice, to compare kernels (`benchmarks/linear.py`) or to test them on another machine. One more
CPU setting must be set before torch is imported: OMP_WAIT_POLICY, in `cli/main.py`.
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maskweave.errors import MaskweaveError

SWITCH = "MASKWEAVE_CPU_KERNELS"
HALVES = (torch.bfloat16, torch.float16)

# The processor and the choice.


@dataclass(frozen=True)
class Processor:
    """Vendor and instruction sets, as in /proc/cpuinfo; empty if the file or the entry is missing."""

    vendor: str = ""
    flags: frozenset[str] = frozenset()


def read_processor(cpuinfo: str) -> Processor:
    """Returns the first processor in the text of /proc/cpuinfo."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return Processor(found.get("vendor_id", ""), frozenset(found.get("flags", "").split()))


def this_processor() -> Processor:
    """Returns the processor of this machine."""
    try:
        return read_processor(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Processor()


def has_bf16_instructions(processor: Processor) -> bool:
    """Whether an x86 processor multiplies bfloat16 matrices in hardware. Without it, training in bfloat16 is several times slower than in float32."""
    return not processor.flags.isdisjoint({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class CpuKernels:
    """Which of this file's kernels are used. All False is plain torch."""

    onednn_float32: bool = False
    """Linear layers in float32 use oneDNN (`Linear`)."""
    packed_float32: bool = False
    """Models that predict in float32 pack their weights (`pack_linear_layers`)."""
    packed_bf16: bool = False
    """Models that predict in bfloat16 pack their weights."""
    two_products: bool = False
    """Attention in 16 bits is two matrix products (`attend`)."""
    float32_cache: bool = False
    """Cached keys and values are float32 (`to_cache`)."""
    padded_float32: bool = False
    """Rows whose number changes from batch to batch are padded in float32 (`row_multiple`)."""
    padded_halves: bool = False
    """The same in 16 bits."""


PLAIN = CpuKernels()
AMD = CpuKernels(*[True] * 7)
"""Measured on AMD with AVX-512 and bf16 instructions."""
AMD_WITHOUT_AVX512 = CpuKernels(float32_cache=True)
"""Measured on an AMD EPYC with AVX2 only: oneDNN is at 0.6 to 1.0 times torch's speed in training, two products at 0.4 times."""
INTEL = CpuKernels(packed_bf16=True, padded_halves=True)
"""Measured on an Intel Xeon with AMX: oneDNN in float32 is at 0.5 to 0.9 times torch's speed in training and at 0.6 to 1.2 times in prediction.
Attention by two products and float32 caches were not measured there."""
CHOICES: Mapping[str, CpuKernels] = {"amd": AMD, "intel": INTEL, "plain": PLAIN}


def choose_kernels(processor: Processor, asked: str = "auto") -> CpuKernels:
    """Returns the kernels for a processor.

    Args:
        asked: `auto`, or `amd`, `intel` or `plain` for any processor.

    Raises:
        MaskweaveError: `asked` has another value.
    """
    if asked in CHOICES:
        return CHOICES[asked]
    if asked != "auto":
        raise MaskweaveError(f"{SWITCH} is {asked!r}, expected auto, {', '.join(CHOICES)}; correct or unset it")
    if processor.vendor == "AuthenticAMD":
        return AMD if {"avx512f", "avx512_bf16"} <= processor.flags else AMD_WITHOUT_AVX512
    if processor.vendor == "GenuineIntel" and "amx_bf16" in processor.flags:
        return INTEL
    return PLAIN


KERNELS = choose_kernels(this_processor(), os.environ.get(SWITCH) or "auto")
"""The choice in this process; functions in this file read it on each call."""
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# Linear layers.


class Linear(nn.Linear):
    """A linear layer that uses oneDNN in float32 on CPUs where that is faster.

    AMD with AVX-512, two threads: 1.5 to 3 times as fast as torch's MKL, in training and prediction, and a row's result does not depend on the
    other rows (`benchmarks/linear.py`). Slower than MKL on Intel and on AMD without AVX-512. Torch exposes this product only as an operator of its
    compiler. It has first-order gradients only; `torch.func` and forward-mode differentiation need `nn.Linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        is_float32 = x.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        eager = not torch.compiler.is_compiling()  # the compiler chooses its own kernels
        fits = x.ndim > 1 and x.numel() and x.shape[-1] == self.in_features  # otherwise torch raises its own error
        chosen = KERNELS.onednn_float32 and _ONEDNN
        if not (chosen and is_float32 and eager and x.device.type == "cpu" and fits):
            return super().forward(x)
        if torch.is_grad_enabled():
            return _Linear.apply(x, self.weight, self.bias)
        return _onednn(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows, given = upstream[0].flatten(0, -2), x.flatten(0, -2)
        return (
            _onednn(upstream[0], weight.t()) if of_x else None,
            _onednn(rows.t(), given.t()) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer for prediction on a CPU, with a copy of `layer`'s weight in oneDNN's own layout.

    Without it oneDNN reorders the weight on every call. Few rows, as in reading a sequence token by token, then take 1.4 to 3 times as long in bf16
    and up to 4 times in float32 (AMD with AVX-512, `benchmarks/linear.py`).

    Args:
        dtype: float32 or bfloat16; dtype of the product and its result, for inputs of any dtype.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        with torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.to(dtype))
            self.bias = None if layer.bias is None else layer.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return _onednn(x.to(self.weight.dtype), self.weight, self.bias)


PACKED_MOST = 2**31
"""Bytes of the largest model that is packed in float32: the packed weights are a second copy."""


def can_pack(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether `module` should predict from packed weights: they are faster here, and its linear layers are plain ones (no LoRA)."""
    if dtype == torch.float32:
        chosen = KERNELS.packed_float32 and sum(p.nbytes for p in module.parameters()) <= PACKED_MOST
    else:
        chosen = KERNELS.packed_bf16 and _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return bool(_ONEDNN and chosen and all(type(layer) is nn.Linear or isinstance(layer, Linear) for layer in linear))


def pack_linear_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace the linear layers of `module` by packed ones. `can_pack` must be true for it."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                parent.register_module(name, PackedLinear(child, dtype))


# Attention.


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention of (B, H, N, D/H) queries, keys and values.

    In 16 bits two matrix products are several times as fast as torch's fused kernel, forward and backward, on AMD with bf16 instructions: the fused
    kernel multiplies by MKL, which has no such instructions for AMD. Without them (AMD with AVX2) two products are at 0.4 times its speed
    (`benchmarks/attention.py`). Not measured on Intel, which therefore uses torch's kernel.
    """
    halved = torch.promote_types(q.dtype, v.dtype) in HALVES
    if not (KERNELS.two_products and halved and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


def to_cache(t: Tensor) -> Tensor:
    """Returns keys or values, contiguous, in the precision that attention of one new token at a time reads fastest.

    Reading them in bf16 takes 2 to 5 times as long as in float32, by either kernel (AMD with AVX2, one thread, `benchmarks/attention.py`).
    Not measured on Intel, where the precision stays unchanged.
    """
    return (t.float() if KERNELS.float32_cache and t.device.type == "cpu" else t).contiguous()


# Numbers of rows.

LOGITS_ROWS = 32
"""Rows of logits in training are padded to a multiple of this."""
GROUPED_ROWS = 64
"""Rows of samples of different lengths, joined, are padded to a multiple of this."""
GPU_ROWS = 128
"""Rows of logits on a GPU, if all other shapes are static."""


def row_multiple(x: Tensor, multiple: int, is_static: bool = False) -> int:
    """Returns `multiple` if the number of rows of `x` should repeat between batches, else 1. On a GPU, with static shapes, it is `GPU_ROWS`.

    oneDNN compiles a product for every new number of rows. With AVX-512 or AMX it computes all 16-bit products; in float32 it computes only those
    of `Linear`. With a new number of rows in every step, training compiled in every step and the heap fragmented (AMD with AVX-512). Without AVX-512
    padding gains nothing: 0.93 to 1.03 times as fast (AMD with AVX2, `benchmarks/linear.py`).
    """
    if x.device.type != "cpu":
        return GPU_ROWS if is_static else 1
    halved = x.dtype in HALVES or torch.is_autocast_enabled("cpu")
    return multiple if (KERNELS.padded_halves if halved else KERNELS.padded_float32) else 1


# Memory.

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Make this process keep freed memory, in blocks of up to 1 GiB, for its next step.

    Otherwise glibc returns large blocks at once, and the system maps and zeroes them again in every step: 4 to 7% of the time of a training step on a
    CPU (AMD, `benchmarks/fourm.py`). Results do not change, and the gain does not depend on the processor. Does nothing with other C libraries.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
