"""AdamW or Muon, for equal training time? python benchmarks/studies/optimizers.py

Trains a small model of four modalities of the scenes with both optimizers, each with two learning rates. A step of Muon takes longer, so the CPU time of
a step is measured first, alternating between the optimizers, and each gets as many steps as fit into the time of --steps steps with AdamW. Measures the
loss on held-out scenes.
Cost: about 8 minutes of one thread, 2 of them for tokenizers and tokens.
Result: with the higher rate, Muon has the lower loss in all three seeds (docs/results.md).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from pretraining import demo_for, prepare, pretrain, seconds_per_step
from study import Metrics, Panel, Study, draw, parser

from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.training.metrics import read_metrics
from maskweave.training.recipe import Recipe

OPTIMIZERS = ("adamw", "muon")
RATES = (1.5e-3, 3.0e-3)
"""Peak learning rates: half the demo's and the demo's."""
MODALITIES = ["rgb", "depth", "semseg", "caption"]
MASKING = MaskingConfig(64, 64, [Mixture({"rgb": 1.0}, {"default": 0.5}), Mixture({"default": 0.5}, {"default": 0.5})])
SHORT, LONG = 10, 40
"""Steps of two runs. The difference of their times gives the time per step without the start and end of a run."""


def recipe_of(optimizer: str, rate: float, seed: int, steps: int) -> Recipe:
    recipe = demo_for(seed, steps, MASKING, modalities=MODALITIES)
    data = replace(recipe.data, samples=3000)
    train = replace(recipe.train, optimizer=optimizer, learning_rate=rate, checkpoint_every=0)
    return replace(recipe, data=data, train=train)


def step_time(base: Path, optimizer: str, seed: int) -> Metrics:
    return {"step": seconds_per_step(lambda steps: recipe_of(optimizer, RATES[0], seed, steps), base, SHORT, LONG)}


def trial(out: Path, base: Path, steps: Mapping[str, int], setting: tuple[str, float], seed: int) -> Metrics:
    optimizer, rate = setting
    folder = out / "trials" / f"{optimizer}-{rate:g}-{seed}"
    start = process_time()
    pretrain(recipe_of(optimizer, rate, seed, steps[optimizer]), folder, base)
    taken = process_time() - start
    lines: list[dict[str, Any]] = [line for line in read_metrics(folder) if line["split"] == "validation"]
    return {"loss": lines[-1]["loss"], "steps": steps[optimizer], "training": taken}


if __name__ == "__main__":
    made = parser("optimizers", __doc__, steps=400)
    made.add_argument("--base", type=Path, default=Path("runs/studies/optimizers/base"), help="tokenizers and tokens")
    options = made.parse_args()
    prepare(options.base, recipe_of("adamw", RATES[0], 0, 1))
    speeds = Study(options.out / "speeds")
    speeds.run(partial(step_time, options.base), {name: name for name in OPTIMIZERS}, seeds=3, jobs=1)
    step = {name: median(speeds.values(name, "step")) for name in OPTIMIZERS}
    steps = {name: round(options.steps * step["adamw"] / step[name]) for name in OPTIMIZERS}
    settings = {f"{name}, learning rate {rate:g}": (name, rate) for name in OPTIMIZERS for rate in RATES}
    study = Study(options.out, steps=steps)
    study.run(partial(trial, options.out, options.base, steps), settings, options.seeds, options.jobs)
    print(f"seconds of a step: {step}\n")
    columns = {"loss": "held-out loss ↓", "steps": "steps|.0f", "training": "seconds of training|.0f"}
    print(study.table(settings, columns, "optimizer"))
    lines = {
        name: {rate: study.values(f"{name}, learning rate {rate:g}", "loss") for rate in RATES} for name in OPTIMIZERS
    }
    draw(options.out / "optimizers.png", [Panel("for equal training time", "learning rate", "held-out loss", lines)])
