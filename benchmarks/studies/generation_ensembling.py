"""Does averaging several predictions reduce their error? python benchmarks/studies/generation_ensembling.py BUNDLE

On held-out scenes, depth and normals are generated from the picture many times at one temperature, and the first n predictions are averaged
like in `Bundle.ensemble`. Prints AbsRel of depth and mean angle of normals for each n.
Cost: about 4 minutes of one thread. Result, measured on the demo's bundle, 200 scenes, 3 seeds, from n = 1 to 16: depth 0.097 to 0.090 at temperature
0.1 and 0.124 to 0.090 at 1; normals 11.0° to 10.3° and 12.9° to 10.2°. Details: docs/results.md.
"""

import argparse
from dataclasses import replace
from statistics import mean, stdev

import torch

import maskweave
from maskweave.synthetic.scenes import Scenes

COUNTS = (1, 2, 4, 8, 16)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("bundle")
parser.add_argument("--temperatures", nargs="+", type=float, default=[0.1, 1.0])
parser.add_argument("--scenes", type=int, default=200)
parser.add_argument("--seeds", type=int, default=3)
options = parser.parse_args()

torch.set_num_threads(1)
bundle = maskweave.load(options.bundle)
scenes = list(Scenes(bundle.catalog, options.scenes, seed=1))
pictures = [{"rgb": scene["rgb"]} for scene in scenes]

print("   target temperature " + "".join(f"{f'n = {n}':>19}" for n in COUNTS))
for target in ("depth", "normal"):
    entry = bundle.catalog[target]
    metric = entry.scores()[0]
    truth = [scene[target] for scene in scenes]
    for temperature in options.temperatures:
        errors: dict[int, list[float]] = {n: [] for n in COUNTS}
        how = {target: replace(entry.decoding, temperature=temperature)}
        for run in range(options.seeds):
            members = []
            for member in range(max(COUNTS)):
                first = (run * max(COUNTS) + member) * options.scenes
                seeds = list(range(first, first + options.scenes))
                members.append(bundle.generate_batch(pictures, [target], seeds=seeds, decoding=how))
                if (n := len(members)) in COUNTS:
                    merged = [entry.value.merge([m[i][target] for m in members], 0.5) for i in range(options.scenes)]
                    errors[n].append(metric.score(merged, truth))
        cells = [f"{mean(e):.4f} ± {stdev(e) if len(e) > 1 else 0:.4f}" for e in errors.values()]
        print(f"{target:>9} {temperature:>11g} " + "".join(f"{cell:>19}" for cell in cells), flush=True)
