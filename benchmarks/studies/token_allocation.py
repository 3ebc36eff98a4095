"""Are budgets better split as in 4M (Dirichlet) or as in AION-1 (uniform)? python benchmarks/studies/token_allocation.py SCRIPTS

Trains the model that `init` plans for satellite tiles and for galaxies, and the demo's for scenes, any from any, for equally many steps with `masking.allocation` dirichlet,
with uniform, and with uniform and nearly as many targets as the budget allows. Measures how much of the budgets was filled, the loss on held-out samples with masks of either kind, and a few
predictions. SCRIPTS holds `eo.py` and `astro.py`, which write raw files (OUT COUNT SEED); they are not part of this repository.
Cost for 3 seeds, of one thread: 7 minutes for tiles, 50 for galaxies, 34 for scenes on a busy core. Result: docs/results.md.
"""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from pretraining import DEMO, open_folder
from study import Metrics, Study, parser

from maskweave import load
from maskweave.evaluate.run import evaluate
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import build_batches, claim, make_tokens, open_tokens, train_model
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.tokenizers import train_tokenizers

SETTINGS = {
    "dirichlet": {"allocation": "dirichlet"},
    "uniform": {"allocation": "uniform"},
    "uniform, many targets": {"allocation": "uniform", "target_beta": (50.0, 1.0)},
}
ANY = [Mixture({"default": 0.5}, {"default": 0.5})]


class DataSet(NamedTuple):
    command: str
    """Writes the project with catalog and recipe from the raw files; empty: the demo's recipe is used."""
    script: str
    count: int
    held_out: int
    scores: Mapping[str, str]
    """Metrics of predictions and their headings."""
    changes: Mapping[str, object] = {}


DATA = {
    "tiles": DataSet(
        "init raw/ --out project --minutes 1",
        "eo.py",
        300,
        60,
        {
            "tok_dem MAE": "elevation, MAE ↓|.0f",
            "landcover mIoU": "land cover, mIoU ↑",
            "biomass MAE": "biomass, MAE ↓|.1f",
        },
    ),
    "galaxies": DataSet(
        "init raw/ --array spectrum=flux --axis spectrum=loglam --out project --minutes 1",
        "astro.py",
        400,
        80,
        {"redshift MAE": "redshift, MAE ↓", "tok_image MAE": "image, MAE ↓", "tok_spectrum MAE": "spectrum, MAE ↓"},
    ),
    "scenes": DataSet(
        "",
        "",
        4000,
        128,
        {"depth AbsRel": "depth, AbsRel ↓", "semseg mIoU": "classes, mIoU ↑", "caption F1": "caption, F1 ↑"},
        {
            "tokenizers.train.steps": 400,
            "tokenizers.steps": {},
            "tokenizers.samples": 2000,
            "tokenizers.jobs": 1,
            "train.batch_size": 16,
        },
    ),
}


def prepare(folder: Path, data: DataSet, scripts: Path) -> None:
    """Writes raw files, project, tokenizers and tokens under `folder`; existing ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if data.script and not (folder / "project" / "recipe.yaml").exists():
        subprocess.run(
            [sys.executable, scripts.resolve() / data.script, "raw", str(data.count), "0"], cwd=folder, check=True
        )
        subprocess.run([sys.executable, "-m", "maskweave", *shlex.split(data.command)], cwd=folder, check=True)
    recipe = recipe_of(folder, data)
    catalog = claim(recipe, folder / "base")
    train_tokenizers(recipe, catalog, folder / "base")
    make_tokens(recipe, catalog, folder / "base")


def recipe_of(folder: Path, data: DataSet) -> Recipe:
    changes = {
        "data.validation": data.held_out,
        "evaluate.samples": data.held_out,
        "evaluate.sheets": [],
        **data.changes,
    }
    if not data.script:
        return load_recipe(DEMO, {**changes, "data.samples": data.count})
    return load_recipe(folder / "project" / "recipe.yaml", changes)


def recipe_for(folder: Path, data: DataSet, setting: str, seed: int, steps: int) -> Recipe:
    recipe = recipe_of(folder, data)
    wanted = {name.rpartition(" ")[0] for name in data.scores}
    requests = [
        replace(request, targets=[name for name in request.targets if name in wanted])
        for request in recipe.evaluate.requests
        if wanted & {*request.targets} and not request.read
    ]
    requests = requests[:1] if not data.script else requests
    masking = recipe.model.masking
    masking = MaskingConfig(masking.input_tokens, masking.target_tokens, ANY, **SETTINGS[setting])
    return replace(
        recipe,
        seed=seed,
        model=replace(recipe.model, masking=masking),
        train=replace(recipe.train, steps=steps, seed=seed, processes=1, keep=1, log_every=10),
        evaluate=replace(recipe.evaluate, requests=requests),
    )


def trial(out: Path, base: Path, data: DataSet, steps: int, setting: str, seed: int) -> Metrics:
    recipe = recipe_for(base, data, setting, seed, steps)
    folder = out / "trials" / f"{base.name}-{setting.replace(', ', '-').replace(' ', '-')}-{seed}"
    catalog = open_folder(recipe, folder, base / "base")
    train_model(recipe, catalog, folder)
    lines = [line for line in read_metrics(folder) if line["split"] == "train"]
    filled = {side: mean(line[f"fill/{side}"] for line in lines) for side in ("inputs", "targets")}
    losses = {f"loss, {name}": held_out_loss(folder, base, data, name) for name in SETTINGS}
    scores = {f"{row.target} {row.metric}": row.value for row in evaluate(load(folder), folder) if not row.part}
    return {**filled, **losses, **{name: scores[name] for name in data.scores}}


@torch.inference_mode()
def held_out_loss(folder: Path, base: Path, data: DataSet, drawn: str) -> float:
    """Mean loss over held-out samples with masks of one setting; they are the same for all models and seeds."""
    recipe, bundle = recipe_for(base, data, drawn, 0, 1), load(folder)
    objective = recipe.family.build_objective(bundle.model, recipe.model, bundle.catalog).eval()
    batches = build_batches(recipe, open_tokens(recipe, bundle.catalog, base / "base", "validation"), held_out=True)
    return mean(objective(batches[i])[0].item() for i in range(len(batches)))


if __name__ == "__main__":
    made = parser("token_allocation", __doc__, steps=400)
    made.add_argument("scripts", type=Path, help="folder of eo.py and astro.py")
    made.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA), help="data sets to compare on")
    options = made.parse_args()
    for name in options.data:
        data = DATA[name]
        base = options.out / name
        prepare(base, data, options.scripts)
        study = Study(options.out / f"{name}-results", steps=options.steps)
        function = partial(trial, options.out, base, data, options.steps)
        study.run(function, {setting: setting for setting in SETTINGS}, options.seeds, options.jobs)
        columns = {
            "inputs": "inputs filled|.2f",
            "targets": "targets filled|.2f",
            "loss, dirichlet": "loss, masks of dirichlet ↓",
            "loss, uniform": "of uniform ↓",
            **data.scores,
        }
        print(f"\n{study.table(SETTINGS, columns, name)}\n", flush=True)
