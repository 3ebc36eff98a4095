"""How many tokens should be drawn of a sample, at equal time? python benchmarks/studies/drawn_tokens.py --seeds 2

The demo's model with 16, 32, 64 or 128 input tokens and as many target tokens of each sample. Few make cheap steps, so there are more of
them: a step's processor time is measured first, the settings in turn, and each setting gets the steps that fill the time of --steps
steps with 64. Then depth, normals, classes and captions of held-out scenes from the picture, and the loss on held-out scenes, drawn as each
setting draws them.
Cost: 16 minutes of one thread for 2 seeds, and 2 for tokenizers and tokens.
Result, measured, 2 seeds, 108 s of training each: 64 are best or as good as any (depth AbsRel 0.142, mIoU 0.423); 32 and 128 follow (0.159 and
0.152; 0.388 and 0.414); 16 are worse than constants (0.295; 0.267). All of it: docs/results.md.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import torch
from pretraining import demo_for, prepare, pretrain
from study import Metrics, Panel, Study, draw, parser

from maskweave import load
from maskweave.data.token_store import TokenData
from maskweave.evaluate.run import evaluate
from maskweave.training.loop import fit
from maskweave.training.pipeline import build_batches, build_model
from maskweave.training.recipe import EvaluateSettings, EvaluationRequest, Recipe

COUNTS = (16, 32, 64, 128)
DEMO_COUNT = 64
SHORT, LONG = 20, 80
"""Steps of the two runs whose difference gives the time of a step, without what begins and ends a run."""
ASKED = EvaluateSettings(samples=200, requests=[EvaluationRequest(["rgb"], ["depth", "normal", "semseg", "caption"])])
QUALITY = {
    "depth AbsRel": "depth, AbsRel ↓",
    "normal angle": "normals, mean angle ↓|.1f",
    "semseg mIoU": "classes, mIoU ↑",
    "caption F1": "caption, F1 ↑",
}
LOSSES = {f"loss, {n} drawn": f"loss, {n} drawn ↓" for n in COUNTS}
"""On held-out scenes, as many drawn of them as each setting has."""


def recipe_of(count: int, seed: int, steps: int) -> Recipe:
    recipe = demo_for(seed, steps)
    masking = replace(recipe.model.masking, input_tokens=count, target_tokens=count)
    return replace(recipe, model=replace(recipe.model, masking=masking))


def step_time(base: Path, count: int, seed: int) -> Metrics:
    """Seconds of processor time of one training step."""
    taken = []
    for steps in (SHORT, LONG):
        recipe = recipe_of(count, seed, steps)
        catalog = recipe.load_catalog()
        objective = recipe.family.build_objective(build_model(recipe, catalog, base), recipe.model)
        batches = build_batches(recipe, TokenData(base / "tokens/train", catalog), held_out=False)
        with TemporaryDirectory() as folder:
            start = process_time()
            fit(objective, batches, recipe.train, Path(folder))
            taken.append(process_time() - start)
    return {"step": (taken[1] - taken[0]) / (LONG - SHORT)}


def trial(out: Path, base: Path, steps: Mapping[int, int], count: int, seed: int) -> Metrics:
    folder = out / "trials" / f"{count}-{seed}"
    recipe = replace(recipe_of(count, seed, steps[count]), evaluate=ASKED)
    start = process_time()
    pretrain(recipe, folder, base)
    taken = process_time() - start
    rows = evaluate(load(folder), folder)
    found = {f"{row.target} {row.metric}": row.value for row in rows}
    losses = {f"loss, {n} drawn": held_out_loss(folder, base, n) for n in COUNTS}
    return {**found, **losses, "training": taken}


@torch.inference_mode()
def held_out_loss(folder: Path, base: Path, count: int) -> float:
    """Mean over the held-out scenes' tokens when `count` are drawn, alike for all settings and seeds."""
    recipe = recipe_of(count, 0, 1)
    bundle = load(folder)
    objective = recipe.family.build_objective(bundle.model, recipe.model).eval()
    batches = build_batches(recipe, TokenData(base / "tokens/validation", bundle.catalog), held_out=True)
    losses = [objective(batches[i])[0].item() for i in range(len(batches))]
    return sum(losses) / len(losses)


if __name__ == "__main__":
    made = parser("drawn_tokens", __doc__, steps=2000)
    made.add_argument("--base", type=Path, default=Path("runs/studies/scenes"), help="tokens, made where missing")
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
    print(study.table(map(str, COUNTS), columns, "tokens drawn of each"))
    shown = {**QUALITY, f"loss, {DEMO_COUNT} drawn": f"held-out loss, {DEMO_COUNT} drawn ↓"}
    panels = [
        Panel(title.split("|")[0], "tokens drawn of each", "", {"": {n: study.values(str(n), metric) for n in COUNTS}})
        for metric, title in shown.items()
    ]
    draw(Path("docs/studies/drawn_tokens.png"), panels, width=2.6, height=2.4)
