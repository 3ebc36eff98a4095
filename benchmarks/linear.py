"""Linear layers that predict in float32 on a CPU: torch's own choice against oneDNN, in turn. python benchmarks/linear.py [--threads 2]

Prints GFLOP/s of both and the ratio as medians of rounds, for one row to many; the weights change from call to call, as in a model.
"""

import argparse
import itertools
import statistics
import time

import torch
from torch import nn

from maskweave.layers import Linear

ROUNDS = 9
SHAPES = ((384, 1024), (768, 2048), (384, 30_000))
ROWS = (1, 8, 64, 256, 1576)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print("  in × out, rows          torch    oneDNN    ratio")
    for (width, out), rows in itertools.product(SHAPES, ROWS):
        x, ratios = torch.randn(rows, width), []
        ways = {kind: [kind(width, out, bias=False) for _ in range(4)] for kind in (nn.Linear, Linear)}
        took: dict[type, list[float]] = {kind: [] for kind in ways}
        for _ in range(ROUNDS):
            for kind, layers in ways.items():
                start = time.perf_counter()
                for layer in layers:
                    layer(x)
                took[kind].append((time.perf_counter() - start) / len(layers))
            ratios.append(took[nn.Linear][-1] / took[Linear][-1])
        speeds = [2 * rows * width * out / statistics.median(times) / 1e9 for times in took.values()]
        print(
            f"{width:5} × {out:<6}{rows:5} {speeds[0]:10.0f}{speeds[1]:10.0f}{statistics.median(ratios):8.1f}×",
            flush=True,
        )


if __name__ == "__main__":
    main()
