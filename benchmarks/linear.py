"""Linear layers on a CPU with every choice of kernels (maskweave/nn/cpu.py). python benchmarks/linear.py [--threads 2] [--rounds 9] [--rows 1 256]

Prints the CPU vendor and its instruction sets. Then, for several numbers of rows, prints the GFLOP/s of plain torch and the speedup of each choice, as
medians of rounds that alternate between the choices: inference in float32 and bf16, as in generation (with packed weights if the choice packs them),
and training in float32, forward and backward. Each call uses other weights, as in a model; together they exceed the CPU caches. A choice that uses
torch's kernels shows the noise of the measurement. Last: training with a different number of rows in each step, against the same rows padded to a multiple.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.nn import cpu

SHAPES = ((384, 384), (384, 1024), (768, 2048), (384, 30_000))
ROWS = (1, 8, 64, 256, 1576)
WEIGHTS = 60e6
"""Total size in bytes of the layers of one shape in float32."""
KINDS = ("float32", "trained", "bf16")

Ratios = dict[tuple[str, str], list[float]]


def print_processor() -> None:
    found = cpu.this_processor()
    sets = sorted(flag for flag in found.flags if flag.startswith(("avx", "amx", "fma")))
    used = [name for name, on in dataclasses.asdict(cpu.KERNELS).items() if on]
    print(f"processor: {found.vendor or 'unknown'}, {' '.join(sets) or 'no known instruction sets'}")
    print(
        f"chosen kernels: {', '.join(used) or 'plain torch'}; torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


def choose(name: str) -> None:
    cpu.KERNELS = cpu.CHOICES[name]


def layers(width: int, out: int) -> dict[tuple[str, str], nn.ModuleList]:
    """Returns copies of the same layers for each choice and kind."""
    made = {}
    plain = [cpu.Linear(width, out, bias=False) for _ in range(max(4, int(WEIGHTS / (4 * width * out))))]
    for name, kind in itertools.product(cpu.CHOICES, KINDS):
        choose(name)
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        ours = nn.ModuleList(cpu.Linear(width, out, bias=False, dtype=dtype) for _ in plain)
        for layer, source in zip(ours, plain, strict=True):
            layer.load_state_dict(source.state_dict())
        if kind != "trained" and cpu.can_pack(ours, dtype):
            cpu.pack_linear_layers(ours, dtype)
        made[name, kind] = ours
    return made


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def predict(layers: nn.ModuleList, x: Tensor) -> None:
    with torch.inference_mode():
        for layer in layers:
            layer(x)


def train(layers: Sequence[nn.Module], x: Tensor) -> None:
    for layer in layers:
        y = layer(x.requires_grad_())
        y.backward(torch.ones_like(y))


def measure(made: dict[tuple[str, str], nn.ModuleList], rows: int, rounds: int) -> tuple[dict[str, float], Ratios]:
    """Returns the seconds per layer of plain torch by kind, and ratios (plain / choice) by choice and kind."""
    width = next(made["plain", "float32"][0].parameters()).shape[1]
    took: Ratios = {key: [] for key in made}
    for number, (key, them) in itertools.product(range(-1, rounds), made.items()):
        choose(key[0])
        x = torch.randn(rows, width, dtype=torch.bfloat16 if key[1] == "bf16" else torch.float32)
        if key[1] == "trained":
            found = seconds(lambda them=them, x=x: train(them[:4], x)) / 4
        else:
            found = seconds(lambda them=them, x=x: predict(them, x)) / len(them)
        if number >= 0:  # the first round warms up
            took[key].append(found)
    plain = {kind: statistics.median(took["plain", kind]) for kind in KINDS}
    pairs = {(n, k): [a / b for a, b in zip(took["plain", k], of, strict=True)] for (n, k), of in took.items()}
    return plain, pairs


def changing_rows(multiple: int, rounds: int) -> Iterator[str]:
    """Compares training with a different number of rows in every step with padding the rows to a multiple of `multiple`."""
    for name, halved in itertools.product(("amd", "plain"), (False, True)):
        choose(name)
        them, lengths = [cpu.Linear(384, 1024)], torch.randperm(500)[: 10 * rounds] + 100
        took: list[list[float]] = [[], []]
        for step, length in enumerate(lengths.tolist()):
            x = torch.randn(length, 384)
            padded = F.pad(x, (0, 0, 0, -length % multiple)) if step % 2 else x
            with torch.autocast("cpu", torch.bfloat16, enabled=halved):
                took[step % 2].append(seconds(lambda padded=padded, them=them: train(them, padded)) / length)
        ratio = statistics.median(took[0][rounds:]) / statistics.median(took[1][rounds:])
        yield f"{name}, {'bf16' if halved else 'float32'}: varying number of rows / padded to a multiple of {multiple} = {ratio:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print_processor()
    others = [name for name in cpu.CHOICES if name != "plain"]
    columns = [(kind, name) for kind in KINDS for name in ("plain", *others)]
    print("   in × out, rows " + "".join(f"{kind if name == 'plain' else name:>9}" for kind, name in columns))
    every: Ratios = {}
    for width, out in SHAPES:
        made = layers(width, out)
        for rows in asked.rows:
            plain, pairs = measure(made, rows, asked.rounds)
            work = 2 * rows * width * out / 1e9
            cells = []
            for kind, name in columns:
                if name == "plain":
                    cells.append(f"{work * (3 if kind == 'trained' else 1) / plain[kind]:9.0f}")
                    continue
                ratio = statistics.median(pairs[name, kind])
                every.setdefault((name, kind), []).append(ratio)
                cells.append(f"{ratio:8.2f}×")
            print(f"{width:5} × {out:<6}{rows:5}" + "".join(cells), flush=True)
    for (name, kind), ratios in every.items():
        least, middle, most = min(ratios), statistics.median(ratios), max(ratios)
        print(f"{name}, {kind}: {middle:.2f} times as fast as plain torch ({least:.2f} to {most:.2f})")
    for multiple in (cpu.LOGITS_ROWS, cpu.GROUPED_ROWS):
        for line in changing_rows(multiple, asked.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
