"""Attention on CPU, one thread: python benchmarks/attention.py

- The fused kernel against two matrix products, in turn, forward and backward, for the lengths at which token batches are drawn.
- Of one token to what was kept, as in reading a sequence: kept in bf16 against kept in float32.

Prints the ratio of times as a median of several.
"""

import statistics
import time

import torch
import torch.nn.functional as F

from maskweave.nn.layers import attend


def seconds(run, *tensors: torch.Tensor) -> float:
    start = time.perf_counter()
    out = run(*tensors)
    out.backward(torch.ones_like(out))
    return time.perf_counter() - start


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def main() -> None:
    torch.set_num_threads(1)
    print("one thread; B samples, H heads, N tokens, D/H width; median of 7 pairs")
    for dtype in (torch.float32, torch.bfloat16):
        for B, H, N, D in ((64, 4, 64, 32), (16, 6, 128, 64), (16, 6, 256, 64)):
            q, k, v = (torch.randn(B, H, N, D, dtype=dtype, requires_grad=True) for _ in range(3))
            mask = torch.rand(B, 1, N, N) > 0.3
            mask[..., 0] = True
            pairs = [(seconds(fused, q, k, v, mask), seconds(attend, q, k, v, mask)) for _ in range(7)]
            ratio = statistics.median(a / b for a, b in pairs)
            name = str(dtype).removeprefix("torch.")
            print(f"{name:9} B {B:3} H {H} N {N:4} D/H {D}: fused kernel / ours = {ratio:.2f}")
    for B, H, M, D in ((1, 6, 196, 64), (8, 6, 64, 64), (8, 6, 196, 64)):
        ratio = reading(B, H, M, D)
        print(f"one token of B {B} H {H} to {M}, D/H {D}: kept in bf16 / kept in float32 = {ratio:.2f}")


@torch.inference_mode()
def reading(B: int, H: int, M: int, D: int) -> float:
    q = torch.randn(B, H, 1, D).bfloat16()
    kept = {dtype: torch.randn(2, B, H, M, D).to(dtype) for dtype in (torch.bfloat16, torch.float32)}
    took: dict[torch.dtype, list[float]] = {dtype: [] for dtype in kept}
    for _ in range(7):
        for dtype, (k, v) in kept.items():
            start = time.perf_counter()
            for _ in range(50):
                attend(q, k, v, None)
            took[dtype].append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*took.values(), strict=True))


if __name__ == "__main__":
    main()
