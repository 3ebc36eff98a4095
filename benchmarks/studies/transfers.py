"""Code shared by the studies of transfer: pre-trains, probes and fine-tunes an encoder on scenes, with pictures as inputs."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pretraining import QUICK_SAMPLES, demo_for, pretrain, untrained
from study import Metrics

from maskweave import load
from maskweave.generate.features import FeatureExtractor
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.modality.catalogs import load_catalog
from maskweave.transfer.data import open_examples
from maskweave.transfer.probe import probe
from maskweave.transfer.recipe import TransferData, load_transfer
from maskweave.transfer.run import run_transfer

RECIPES = Path(__file__).parents[2] / "recipes"
EXAMPLES = 500
"""Labeled training scenes; different ones for each seed."""
PROBED = {"count": ("metadata", "object_count"), "first object": ("boxes", "first")}
PROBE_DATA = TransferData(samples=2000, validation=1000)
TOKENS = {"input_tokens": 32, "target_tokens": 64}


class Setting(NamedTuple):
    """A pre-training."""

    modalities: tuple[str, ...]
    """Pictures are inputs as patches (rgb) and targets as tokens (tok_rgb)."""
    mixture: Mixture
    trained: bool = True


class Task(NamedTuple):
    """A fine-tuning."""

    recipe: str
    """Of the recipes transfer-scenes-NAME.yaml."""
    rate: float
    """Learning rate. Those of count and semseg are the best of a few, tried on another seed from scratch and from a pre-trained encoder; the others are their recipes'."""
    changes: dict[str, Any]
    """Of the recipe."""
    catalog: str = "scenes"
    """Has the target, which may be new to the encoder."""


DENSE = {"train.steps": 300, "data.validation": 256}
TASKS = {
    "count": Task(
        "count",
        4e-3,
        {"inputs": ["rgb"], "tuning.parameters": "all", "train.steps": 300, "data.validation": 1000},
    ),
    "semseg": Task("semseg", 5e-3, DENSE),
    "depth": Task("semseg", 3e-3, {**DENSE, "target": "depth"}),
    "boxes3d": Task("boxes3d", 2e-3, {**DENSE, "train.batch_size": 16}, "scenes-3d"),
}


def pretrain_setting(setting: Setting, folder: Path, base: Path, steps: int, seed: int) -> None:
    """Pre-trains an encoder, or writes one of random weights; afterwards `folder` is a bundle."""
    masking = MaskingConfig(**TOKENS, mixtures=[setting.mixture])
    recipe = demo_for(seed, steps, masking, modalities=list(setting.modalities))
    (pretrain if setting.trained else untrained)(recipe, folder, base)


def transfer_setting(
    out: Path, base: Path, steps: int, tasks: Iterable[str], quick: bool, setting: tuple[str, Setting], seed: int
) -> Metrics:
    """A trial: pre-trains, probes and fine-tunes one encoder.

    Args:
        quick: use few labeled scenes and steps.
        setting: the name of its folder, and how it is pre-trained.
    """
    name, how = setting
    folder = out / "trials" / f"{name}-{seed}"
    pretrain_setting(how, folder / "encoder", base, steps, seed)
    found = probes(load(folder / "encoder").encoder(["rgb"]), seed, quick)
    for task in tasks:
        found |= fine_tune(task, folder, not how.trained, seed, quick)
    return found


def probes(features: FeatureExtractor, seed: int, quick: bool = False) -> Metrics:
    """Accuracy of the linear probe and of nearest neighbors."""
    found = {}
    data = replace(PROBE_DATA, seed=1000 + 2 * seed)
    if quick:
        data = replace(data, samples=QUICK_SAMPLES, validation=QUICK_SAMPLES)
    for name, (target, label) in PROBED.items():
        examples = open_examples(data, load_catalog("scenes"), ["rgb"], target, label)
        for row in probe(features, examples, data.seed):
            found[f"{name}, {row.metric}"] = row.value
    return found


def fine_tune(task: str, folder: Path, scratch: bool, seed: int, quick: bool = False) -> Metrics:
    """Fine-tunes `folder/encoder` in `folder/TASK` and scores it."""
    how = TASKS[task]
    overrides = {
        "start": str(folder / "encoder"),
        "catalog": how.catalog,
        "scratch": scratch,
        "tuning.layer_decay": 1.0,
        "seed": seed,
        "train.seed": seed,
        "data.seed": 2000 + 2 * seed,
        "data.samples": EXAMPLES,
        "train.learning_rate": how.rate,
        "train.keep": 1,
    }
    if quick:
        overrides |= {"data.samples": QUICK_SAMPLES, "data.validation": QUICK_SAMPLES, "train.steps": 2}
    recipe = load_transfer(RECIPES / f"transfer-scenes-{how.recipe}.yaml", {**how.changes, **overrides})
    return {f"{task}, {row.metric}": row.value for row in run_transfer(recipe, folder / task)}
