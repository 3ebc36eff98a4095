"""Does pre-training on more modalities help fine-tuning? python benchmarks/studies/transfer_pretraining.py

Pre-trains the demo's model to predict, from half of a picture's patches, the picture, or also its depth and caption, or all modalities of the
scenes; or all modalities from any. The steps are equal; "from scratch" is not pre-trained. Then fine-tunes it on complete pictures of a few labeled
scenes, with equal steps, for the number of objects and the class of each pixel. Also measures a linear probe of the encoder before fine-tuning.
Cost: 30 minutes of one thread, and 2 minutes for tokenizers and tokens.
Result, measured, 3 seeds, from scratch / rgb → rgb / rgb → all: count by linear probe 0.591, 0.633, 0.736; fine-tuned on 500 scenes 0.688, 0.697,
0.718, mIoU 0.716, 0.737, 0.744. any → any, which has few patches of the picture as inputs, is worse than "from scratch". Details: docs/results.md.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pretraining import demo_for, prepare, pretrain, untrained
from study import Metrics, Panel, Study, draw, parser

from maskweave import load
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.modality.catalogs import load_catalog
from maskweave.transfer.data import open_examples
from maskweave.transfer.probe import probe
from maskweave.transfer.recipe import TransferData, load_transfer
from maskweave.transfer.run import run_transfer

RECIPES = Path(__file__).parents[2] / "recipes"
SCRATCH = "from scratch"
ALL = tuple(load_catalog("scenes"))
FROM_PICTURES = Mixture({"rgb": 1}, {"default": 0.5})
ANY_TO_ANY = Mixture({"default": 0.5}, {"default": 0.5})


class Setting(NamedTuple):
    modalities: tuple[str, ...]
    """Pictures are inputs as patches (rgb) and targets as tokens (tok_rgb)."""
    mixture: Mixture


SETTINGS = {
    SCRATCH: Setting(("rgb", "tok_rgb"), FROM_PICTURES),
    "rgb → rgb": Setting(("rgb", "tok_rgb"), FROM_PICTURES),
    "rgb → rgb, depth, caption": Setting(("rgb", "tok_rgb", "depth", "caption"), FROM_PICTURES),
    "rgb → all": Setting(ALL, FROM_PICTURES),
    "any → any": Setting(ALL, ANY_TO_ANY),
}
TOKENS = {"input_tokens": 32, "target_tokens": 64}
EXAMPLES = 500
"""Labeled training scenes; different ones for each seed."""
TASKS: dict[str, dict[str, Any]] = {
    "count": {"inputs": ["rgb"], "tuning.parameters": "all", "train.steps": 300, "data.validation": 1000},
    "semseg": {"train.steps": 300, "data.validation": 256},
}
"""Changes to the recipes transfer-scenes-NAME.yaml."""
RATES = {"count": 4e-3, "semseg": 5e-3}
"""Learning rates: the best of a few, tried on another seed from scratch and from a pre-trained encoder."""
PROBED = {"count": ("metadata", "object_count"), "first object": ("boxes", "first")}
PROBE_DATA = TransferData(samples=2000, validation=1000)
SHOWN = {
    "count, linear-probe accuracy": "count, linear probe",
    "count, accuracy": "count, fine-tuned",
    "first object, linear-probe accuracy": "first object, linear probe",
    "semseg, mIoU": "semantic segmentation, fine-tuned, mIoU",
}
LABELS = ("from\nscratch", "rgb\n→ rgb", "+ depth,\ncaption", "rgb\n→ all", "any\n→ any")
"""Labels of the settings in the figure."""
FIGURE = (
    ("number of objects", {"count, accuracy": "fine-tuned", "count, linear-probe accuracy": "linear probe"}),
    ("first object, 32 classes", {"first object, linear-probe accuracy": "linear probe"}),
    ("semantic segmentation", {"semseg, mIoU": "fine-tuned"}),
)


def trial(out: Path, base: Path, steps: int, name: str, seed: int) -> Metrics:
    """Pre-trains, probes and fine-tunes one encoder."""
    folder, setting = out / "trials" / f"{list(SETTINGS).index(name)}-{seed}", SETTINGS[name]
    masking = MaskingConfig(**TOKENS, mixtures=[setting.mixture])
    recipe = demo_for(seed, steps, masking, modalities=list(setting.modalities))
    (untrained if name == SCRATCH else pretrain)(recipe, folder / "encoder", base)
    found = probes(folder / "encoder", seed)
    for task in TASKS:
        found |= fine_tune(task, folder, name == SCRATCH, seed)
    return found


def probes(start: Path, seed: int) -> Metrics:
    """Accuracy of the linear probe and of nearest neighbors, with pictures as inputs."""
    bundle, found = load(start), {}
    data = replace(PROBE_DATA, seed=1000 + 2 * seed)
    for name, (target, label) in PROBED.items():
        examples = open_examples(data, load_catalog("scenes"), ["rgb"], target, label)
        for row in probe(bundle.encoder(["rgb"]), examples, data.seed):
            found[f"{name}, {row.metric}"] = row.value
    return found


def fine_tune(task: str, folder: Path, scratch: bool, seed: int) -> Metrics:
    overrides = {
        "start": str(folder / "encoder"),
        "catalog": "scenes",  # the targets may be new to the encoder
        "scratch": scratch,
        "tuning.layer_decay": 1.0,
        "seed": seed,
        "train.seed": seed,
        "data.seed": 2000 + 2 * seed,
        "data.samples": EXAMPLES,
        "train.learning_rate": RATES[task],
        "train.keep": 1,
    }
    recipe = load_transfer(RECIPES / f"transfer-scenes-{task}.yaml", {**TASKS[task], **overrides})
    return {f"{task}, {row.metric}": row.value for row in run_transfer(recipe, folder / task)}


def panel(study: Study, title: str, metrics: dict[str, str]) -> Panel:
    lines = {
        label: {place: study.values(name, metric) for name, place in zip(SETTINGS, LABELS, strict=True)}
        for metric, label in metrics.items()
    }
    return Panel(title, "pre-training", "mIoU" if "semseg, mIoU" in metrics else "accuracy", lines)


if __name__ == "__main__":
    made = parser("transfer_pretraining", __doc__, steps=1500)
    made.add_argument(
        "--base",
        type=Path,
        default=Path("runs/studies/scenes"),
        help="run folder with tokenizers and tokens; missing ones are created",
    )
    options = made.parse_args()
    prepare(options.base)
    study = Study(options.out, steps=options.steps)
    settings = {name: name for name in SETTINGS}
    study.run(partial(trial, options.out, options.base, options.steps), settings, options.seeds, options.jobs)
    print(study.table(SETTINGS, SHOWN, "pre-trained to predict"))
    draw(Path("docs/studies/transfer_pretraining.png"), [panel(study, title, metrics) for title, metrics in FIGURE])
