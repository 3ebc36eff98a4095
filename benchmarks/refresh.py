"""Speed and quality of approximate encoding between steps. python benchmarks/refresh.py RUN [--samples 100] [--target depth]

Predicts a map from pictures of scenes that the run has not seen, by ROAR, with `refresh` 1 (exact) and more, and with fewer steps for comparison.
Prints CPU seconds of one thread and the mean absolute error relative to the map's own spread. RUN is a run of scenes with rgb and the target.
"""

import argparse
import time

import numpy as np
import torch

from maskweave import load
from maskweave.modality.decoding import Decoding
from maskweave.synthetic.scenes import Scenes

SETTINGS = [(16, 1), (16, 2), (16, 4), (16, 8), (16, 16), (8, 1), (4, 1), (2, 1), (1, 1)]
"""Steps and refresh."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--target", default="depth")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=1.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load(asked.run)
    scenes = Scenes(bundle.catalog, asked.samples, seed=12345)
    samples = [scenes[i] for i in range(asked.samples)]
    truth = np.stack([sample[asked.target] for sample in samples]).astype(float)
    spread = np.abs(truth - np.median(truth)).mean()
    inputs = [{"rgb": sample["rgb"]} for sample in samples]
    took: dict[tuple[int, int], list[float]] = {key: [] for key in SETTINGS}
    errors: dict[tuple[int, int], list[float]] = {key: [] for key in SETTINGS}
    bundle.generate_batch(inputs[:2], [asked.target])  # to warm up
    for number in range(asked.rounds):
        seeds = range(number * asked.samples, (number + 1) * asked.samples)
        for steps, refresh in SETTINGS:
            how = Decoding("roar", steps=steps, refresh=refresh, temperature=asked.temperature)
            start = time.process_time()
            found = bundle.generate_batch(inputs, [asked.target], seeds=list(seeds), decoding={asked.target: how})
            took[steps, refresh].append(time.process_time() - start)
            errors[steps, refresh].append(np.abs(np.stack([f[asked.target] for f in found]) - truth).mean() / spread)
    print("steps  refresh  seconds  error")
    for steps, refresh in SETTINGS:
        seconds, error = np.median(took[steps, refresh]), np.mean(errors[steps, refresh])
        print(f"{steps:5}  {refresh:7}  {seconds:7.2f}  {error:.4f}")


if __name__ == "__main__":
    main()
