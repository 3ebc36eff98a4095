"""Attention on a CPU with two choices of kernels (maskweave/nn/cpu.py), one thread: python benchmarks/attention.py

- Torch's fused kernel (plain) against two matrix products (amd), forward and backward, for typical lengths of token batches.
- Attention of one token to a cache, as in generating a sequence: a bf16 cache against a float32 cache, with each choice.

Prints the CPU vendor, its instruction sets, and time ratios: medians over pairs of alternating measurements.
"""

import statistics
import time

import torch
from linear import choose, print_processor

from maskweave.nn.cpu import attend

PAIRS = 7


def seconds(choice: str, *tensors: torch.Tensor) -> float:
    choose(choice)
    start = time.perf_counter()
    out = attend(*tensors)
    out.backward(torch.ones_like(out))
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    print_processor()
    print(f"B samples, H heads, N tokens, D/H width; median of {PAIRS} pairs")
    for dtype in (torch.float32, torch.bfloat16):
        for B, H, N, D in ((64, 4, 64, 32), (16, 6, 128, 64), (16, 6, 256, 64)):
            q, k, v = (torch.randn(B, H, N, D, dtype=dtype, requires_grad=True) for _ in range(3))
            mask = torch.rand(B, 1, N, N) > 0.3
            mask[..., 0] = True
            pairs = [(seconds("plain", q, k, v, mask), seconds("amd", q, k, v, mask)) for _ in range(PAIRS)]
            ratio = statistics.median(a / b for a, b in pairs)
            name = str(dtype).removeprefix("torch.")
            print(f"{name:9} B {B:3} H {H} N {N:4} D/H {D}: plain / amd = {ratio:.2f}")
    for choice in ("plain", "amd"):
        choose(choice)
        for B, H, M, D in ((1, 6, 196, 64), (8, 6, 64, 64), (8, 6, 196, 64)):
            ratio = cached_attention(B, H, M, D)
            print(f"{choice}: one token of B {B} H {H} to {M}, D/H {D}: bf16 cache / float32 cache = {ratio:.2f}")


@torch.inference_mode()
def cached_attention(B: int, H: int, M: int, D: int) -> float:
    q = torch.randn(B, H, 1, D).bfloat16()
    kept = {dtype: torch.randn(2, B, H, M, D).to(dtype) for dtype in (torch.bfloat16, torch.float32)}
    took: dict[torch.dtype, list[float]] = {dtype: [] for dtype in kept}
    for _ in range(PAIRS):
        for dtype, (k, v) in kept.items():
            start = time.perf_counter()
            for _ in range(50):
                attend(q, k, v, None)
            took[dtype].append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*took.values(), strict=True))


if __name__ == "__main__":
    main()
