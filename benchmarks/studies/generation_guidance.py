"""Does guidance make pictures match their captions better? python benchmarks/studies/generation_guidance.py BUNDLE

On held-out scenes, boxes are generated from the caption once, then the picture from both with each guidance weight. The model predicts a caption
from the picture, and the F1 of its color-shape pairs against the input caption is computed as in `maskweave evaluate`.
Cost: about 3 minutes of one thread. Result, measured on 300 scenes, 3 seeds, from no guidance to the best weight: F1 0.239 to 0.253 (weight 3) for the demo's
bundle, 0.479 to 0.499 (1.5) for one trained longer. The best of five weights was chosen on the same scenes. Details: docs/results.md.
"""

import argparse
from statistics import mean, stdev

import torch

import maskweave
from maskweave.synthetic.grammar import objects_in
from maskweave.synthetic.scenes import Scenes

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("bundle")
parser.add_argument(
    "--guided", nargs="+", default=["caption+boxes"], help="conditions to guide by; the other inputs are in every pass"
)
parser.add_argument("--weights", nargs="+", type=float, default=[1, 1.5, 2, 3, 4])
parser.add_argument("--scenes", type=int, default=300)
parser.add_argument("--seeds", type=int, default=3)
options = parser.parse_args()

torch.set_num_threads(1)
bundle = maskweave.load(options.bundle)
captions = [scene["caption"] for scene in Scenes(bundle.catalog, options.scenes, seed=1)]
(f1,) = bundle.catalog["caption"].scores(lambda text: objects_in(text).elements())

print(f"{'guided':>14} {'weight':>6}   F1 ± standard deviation over {options.seeds} seeds")
scores: dict[tuple[str, float], list[float]] = {}
for run in range(options.seeds):
    seeds = [1000 * run + i for i in range(options.scenes)]
    laid_out = bundle.generate_batch([{"caption": caption} for caption in captions], ["boxes"], seeds=seeds)
    given = [result.as_inputs() for result in laid_out]
    for guided in options.guided:
        for weight in options.weights:
            painted = bundle.generate_batch(given, ["tok_rgb"], seeds=seeds, conditions={guided: weight})
            pictures = [{"rgb": result["tok_rgb"]} for result in painted]
            read = [result["caption"] for result in bundle.generate_batch(pictures, ["caption"], seeds=seeds)]
            scores.setdefault((guided, weight), []).append(f1.score(read, captions))
            print(f"{guided:>14} {weight:>6g}   seed {run}: {scores[guided, weight][-1]:.3f}", flush=True)
for (guided, weight), found in scores.items():
    print(f"{guided:>14} {weight:>6g}   {mean(found):.3f} ± {stdev(found) if len(found) > 1 else 0:.3f}")
