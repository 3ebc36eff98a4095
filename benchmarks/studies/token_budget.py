"""Which token budget is best for equal training time? python benchmarks/studies/token_budget.py --seeds 2

Trains the demo's model with 16, 32, 64 or 128 input tokens, and as many target tokens, per sample. A step with fewer tokens is cheaper, so the
number of steps differs: the CPU time of a step is measured first, alternating between the settings, and each setting gets as many steps as fit into the
time of --steps steps with 64 tokens. Measures depth, normals, classes and captions predicted from the picture on held-out scenes, and the
held-out loss with the token budget of each setting.
Cost: 16 minutes of one thread for 2 seeds, and 2 minutes for tokenizers and tokens.
Result, measured, 2 seeds, 108 s of training each: 64 tokens are best or equal to the best (depth AbsRel 0.142, mIoU 0.423), then 32 and 128 (0.159 and
0.152; 0.388 and 0.414); 16 are worse than the best constant for depth (0.295; mIoU 0.267). Details: docs/results.md.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import torch
from pretraining import demo_for, prepare, pretrain, seconds_per_step
from study import Metrics, Panel, Study, draw, parser

from maskweave import load
from maskweave.data.token_store import TokenData
from maskweave.evaluate.run import evaluate
from maskweave.training.pipeline import build_batches
from maskweave.training.recipe import EvaluateSettings, EvaluationRequest, Recipe

COUNTS = (16, 32, 64, 128)
DEMO_COUNT = 64
SHORT, LONG = 20, 80
"""Steps of two runs. The difference of their times gives the time per step without the start and end of a run."""
ASKED = EvaluateSettings(samples=200, requests=[EvaluationRequest(["rgb"], ["depth", "normal", "semseg", "caption"])])
QUALITY = {
    "depth AbsRel": "depth, AbsRel ↓",
    "normal angle": "normals, mean angle ↓|.1f",
    "semseg mIoU": "classes, mIoU ↑",
    "caption F1": "caption, F1 ↑",
}
LOSSES = {f"loss, {n} tokens": f"loss, {n} tokens ↓" for n in COUNTS}
"""Loss on held-out scenes, with the token budget of each setting."""


def recipe_of(count: int, seed: int, steps: int) -> Recipe:
    recipe = demo_for(seed, steps)
    masking = replace(recipe.model.masking, input_tokens=count, target_tokens=count)
    return replace(recipe, model=replace(recipe.model, masking=masking))


def step_time(base: Path, count: int, seed: int) -> Metrics:
    return {"step": seconds_per_step(lambda steps: recipe_of(count, seed, steps), base, SHORT, LONG)}


def trial(out: Path, base: Path, steps: Mapping[int, int], count: int, seed: int) -> Metrics:
    folder = out / "trials" / f"{count}-{seed}"
    recipe = replace(recipe_of(count, seed, steps[count]), evaluate=ASKED)
    start = process_time()
    pretrain(recipe, folder, base)
    taken = process_time() - start
    rows = evaluate(load(folder), folder)
    found = {f"{row.target} {row.metric}": row.value for row in rows}
    losses = {f"loss, {n} tokens": held_out_loss(folder, base, n) for n in COUNTS}
    return {**found, **losses, "training": taken}


@torch.inference_mode()
def held_out_loss(folder: Path, base: Path, count: int) -> float:
    """Mean loss over held-out scenes with `count` input and target tokens; the masks are the same for all settings and seeds."""
    recipe = recipe_of(count, 0, 1)
    bundle = load(folder)
    objective = recipe.family.build_objective(bundle.model, recipe.model, bundle.catalog).eval()
    batches = build_batches(recipe, TokenData(base / "tokens/validation", bundle.catalog), held_out=True)
    losses = [objective(batches[i])[0].item() for i in range(len(batches))]
    return sum(losses) / len(losses)


if __name__ == "__main__":
    made = parser("token_budget", __doc__, steps=2000)
    made.add_argument(
        "--base",
        type=Path,
        default=Path("runs/studies/scenes"),
        help="run folder with tokenizers and tokens; missing ones are created",
    )
    options = made.parse_args()
    prepare(options.base)
    rates = Study(options.out / "rates")
    rates.run(partial(step_time, options.base), {str(n): n for n in COUNTS}, seeds=3, jobs=1)
    step = {n: median(rates.values(str(n), "step")) for n in COUNTS}
    steps = {n: round(options.steps * step[DEMO_COUNT] / step[n]) for n in COUNTS}
    study = Study(options.out, steps={str(n): steps[n] for n in COUNTS})
    study.run(
        partial(trial, options.out, options.base, steps), {str(n): n for n in COUNTS}, options.seeds, options.jobs
    )
    print(f"steps: {steps}\n")
    columns = {**QUALITY, **LOSSES, "training": "seconds of training|.0f"}
    print(study.table(map(str, COUNTS), columns, "input and target tokens"))
    shown = {**QUALITY, f"loss, {DEMO_COUNT} tokens": f"held-out loss, {DEMO_COUNT} tokens ↓"}
    panels = [
        Panel(
            title.split("|")[0], "input and target tokens", "", {"": {n: study.values(str(n), metric) for n in COUNTS}}
        )
        for metric, title in shown.items()
    ]
    draw(Path("docs/studies/token_budget.png"), panels, width=2.6, height=2.4)
