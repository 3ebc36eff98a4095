"""Linear layers on a CPU: torch's own choice against ours, in turn. python benchmarks/linear.py [--threads 2]

Prediction: in float32 ours are oneDNN's, and oneDNN's with weights laid out once (packed); in bf16 the packed ones. Training in float32:
forward and backward. Prints GFLOP/s of torch's and the ratios as medians of rounds, for one row to many; the weights change from call to
call, as in a model, and are more than the caches hold.
"""

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from maskweave.nn.layers import Linear, PackedLinear

ROUNDS = 9
SHAPES = ((384, 384), (384, 1024), (768, 2048), (384, 30_000))
ROWS = (1, 8, 64, 256, 1576)
WEIGHTS = 60e6
"""Bytes that the layers of a shape take together in float32."""

Layer = Callable[[torch.Tensor], torch.Tensor]


def ways(width: int, out: int) -> dict[str, list[Layer]]:
    """The same layers as torch computes them and as we do, the precision's own first."""
    plain = [nn.Linear(width, out, bias=False) for _ in range(max(4, int(WEIGHTS / (4 * width * out))))]
    halved = [copy.deepcopy(layer).bfloat16() for layer in plain]
    ours = copy.deepcopy(plain)
    for layer in ours:
        layer.__class__ = Linear
    return {
        "float32": plain,
        "oneDNN": ours,
        "packed": [PackedLinear(layer, torch.float32) for layer in plain],
        "bf16": halved,
        "packed bf16": [PackedLinear(layer, torch.bfloat16) for layer in plain],
    }


def trained(layers: dict[str, list[Layer]], rows: int, width: int) -> float:
    """How much faster our layers go forward and backward."""
    took: dict[str, list[float]] = {"float32": [], "oneDNN": []}
    for _, name in itertools.product(range(ROUNDS), took):
        x = torch.randn(rows, width, requires_grad=True)
        start = time.perf_counter()
        for layer in layers[name][:4]:
            y = layer(x)
            y.backward(torch.ones_like(y))
        took[name].append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*took.values(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print("  in × out, rows    float32    oneDNN    packed   trained      bf16    packed")
    for width, out in SHAPES:
        layers = ways(width, out)
        for rows in ROWS:
            x, took = torch.randn(rows, width), {name: [] for name in layers}  # type: dict[str, list[float]]
            for _, (name, them) in itertools.product(range(ROUNDS), layers.items()):
                given = x.bfloat16() if "bf16" in name else x
                with torch.inference_mode():
                    start = time.perf_counter()
                    for layer in them:
                        layer(given)
                    took[name].append((time.perf_counter() - start) / len(them))
            work = 2 * rows * width * out / 1e9

            def ratio(plain: str, ours: str, took: dict[str, list[float]] = took) -> float:
                return statistics.median(a / b for a, b in zip(took[plain], took[ours], strict=True))

            print(
                f"{width:5} × {out:<6}{rows:5} {work / statistics.median(took['float32']):10.0f}"
                f"{ratio('float32', 'oneDNN'):9.1f}×{ratio('float32', 'packed'):9.1f}×"
                f"{trained(layers, rows, width):9.1f}×"
                f"{work / statistics.median(took['bf16']):10.0f}{ratio('bf16', 'packed bf16'):9.1f}×",
                flush=True,
            )


if __name__ == "__main__":
    main()
