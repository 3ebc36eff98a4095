"""Do more modalities cost the others anything? python benchmarks/studies/more_modalities.py

Pre-trains the demo's model with 3, 7 and 11 modalities of scenes. "equal per modality": the steps grow with the number of modalities, so that each has as many
tokens; "equal in total": the steps are equal. Measures, on held-out scenes, the loss of the modalities that all models have, predicted from half of
the picture's patches, and probes the encoder on complete pictures. 4M-21 (https://arxiv.org/abs/2406.09406) goes from 7 to 21 modalities at no loss.
Each step has 64 input and 64 target tokens a sample, drawn from all modalities alike; those with few tokens, such as palette, have fewer than their share.
Cost: 24 minutes of one thread with bf16 units, and 2 minutes for tokenizers and tokens. Result: docs/results.md.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from pretraining import base_parser, demo_for, prepare_base, pretrain
from study import Metrics, Panel, Study, draw
from transfers import probes

from maskweave import load
from maskweave.data.token_store import TokenData
from maskweave.families.fourm import FourMSettings
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.modality.catalogs import load_catalog

THREE = ("rgb", "tok_rgb", "caption")
SEVEN = (*THREE, "depth", "normal", "semseg", "boxes")
ELEVEN = tuple(load_catalog("scenes"))
MASKING = MaskingConfig(64, 64, [Mixture({"default": 0.5}, {"default": 0.5}), Mixture({"rgb": 1}, {"default": 0.5})])
ASKED = FourMSettings(masking=MaskingConfig(32, 128, [Mixture({"rgb": 1}, {"default": 1})]))
"""What is asked of all models: the other two of `THREE` from half of the picture's patches."""


class Setting(NamedTuple):
    modalities: tuple[str, ...]
    factor: float
    """Of the steps."""


SETS = (THREE, SEVEN, ELEVEN)
PER_MODALITY, IN_TOTAL = "equal per modality", "equal in total"
SETTINGS = {
    **{f"{len(names)}, {PER_MODALITY}": Setting(names, len(names) / len(THREE)) for names in SETS},
    **{f"{len(names)}, {IN_TOTAL}": Setting(names, 1.0) for names in SETS[1:]},
}
SHOWN = {
    "loss of tok_rgb": "loss of tok_rgb ↓",
    "loss of caption": "loss of caption ↓",
    "count, linear-probe accuracy": "count, linear probe ↑",
    "first object, linear-probe accuracy": "first object, linear probe ↑",
    "steps": "steps|.0f",
    "seconds": "CPU seconds|.0f",
}


def trial(out: Path, base: Path, steps: int, quick: bool, setting: Setting, seed: int) -> Metrics:
    own_steps = round(steps * setting.factor)
    folder = out / "trials" / f"{len(setting.modalities)}-{own_steps}-{seed}"
    pretrain(demo_for(seed, own_steps, MASKING, modalities=list(setting.modalities)), folder, base)
    found = probes(load(folder).encoder(["rgb"]), seed, quick)
    return {**found, **held_out_losses(folder, base), "steps": own_steps}


@torch.inference_mode()
def held_out_losses(folder: Path, base: Path) -> Metrics:
    """Mean cross-entropy of the held-out tokens of the modalities of `THREE`, with the same masks for all models."""
    bundle = load(folder)
    data = TokenData(base / "tokens/validation", bundle.catalog.subset(THREE))
    objective = bundle.family.build_objective(bundle.model, ASKED, bundle.catalog).eval()
    (batch,) = list(bundle.family.build_batches(ASKED, data, len(data), seed=1, held_out=True))
    _, metrics = objective(batch)
    return {f"loss of {name}": float(metrics[f"loss/{name}"]) for name in THREE if f"loss/{name}" in metrics}


if __name__ == "__main__":
    options = base_parser("more_modalities", __doc__, steps=600).parse_args()
    prepare_base(options)
    study = Study(options.out, steps=options.steps)
    run = partial(trial, options.out, options.base, options.steps, options.quick)
    study.run(run, SETTINGS, options.seeds, options.jobs)
    print(study.table(SETTINGS, SHOWN, "modalities, tokens"))
    panels = []
    for metric, title in list(SHOWN.items())[:4]:
        lines = {
            which: {len(names): study.values(f"{len(names)}, {which}", metric) for names in SETS}
            for which in (PER_MODALITY, IN_TOTAL)
        }
        lines[IN_TOTAL][len(THREE)] = lines[PER_MODALITY][len(THREE)]  # the same training
        panels.append(Panel(title, "modalities", metric.rpartition(", ")[2], lines))
    draw(options.out / "more_modalities.png", panels)
