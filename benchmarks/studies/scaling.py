"""How do loss and transfer fall with data, steps and size? python benchmarks/studies/scaling.py

Trains 4M and M3AE on scenes with fewer scenes, fewer steps or smaller models, one of the three at a time, the others as large as they come. Measures the loss on
held-out scenes, with the same masks for all, and the error of a linear probe of the encoder on pictures alone. Each is fitted by a power law with a floor,
y = floor + factor · x^-exponent, in all seeds together. Size is the number of parameters of the Transformer blocks
(https://arxiv.org/abs/2001.08361) that grow with the width; the decoder of M3AE is as large in all its models. Three parameters of a few points are not certain: look at the figure.
Cost: 35 to 60 minutes of one thread for each seed, by the load, and 2 minutes for tokenizers and tokens. Result: docs/results.md, two seeds.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pretraining import base_parser, demo_for, first_samples, prepare_base
from study import Metrics, Panel, Study, draw
from transfers import RECIPES, probes

from maskweave.data.token_store import TokenData
from maskweave.generate.features import FeatureExtractor
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.training.loop import fit
from maskweave.training.pipeline import build_batches
from maskweave.training.recipe import Recipe, load_recipe

FAMILIES = ("4M", "M3AE")
MASKING = MaskingConfig(32, 64, [Mixture({"rgb": 1}, {"default": 0.5})])
SCENES = (250, 500, 1000, 2000, 4000)
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Of the steps."""
WIDTHS = (32, 64, 96, 128)
LOSS, COUNT, FIRST = "loss", "count, error", "first object, error"
SHOWN = {LOSS: "held-out loss ↓", COUNT: "count, error of the linear probe ↓", FIRST: "first object, error ↓"}


class Setting(NamedTuple):
    family: str
    scenes: int = SCENES[-1]
    share: float = SHARES[-1]
    width: int = WIDTHS[-1]


def axes_of(family: str) -> dict[str, list[Setting]]:
    """The settings along each axis. The largest one is on all of them."""
    return {
        "scenes": [Setting(family, scenes=number) for number in SCENES],
        "steps": [Setting(family, share=share) for share in SHARES],
        "parameters": [Setting(family, width=width) for width in WIDTHS],
    }


def name_of(setting: Setting) -> str:
    return f"{setting.family}: {setting.scenes} scenes, {setting.share:.2%} of the steps, width {setting.width}"


def recipe_of(setting: Setting, steps: int, seed: int) -> Recipe:
    """The recipe of a trial: the demo's or M3AE's, with 16 samples a step and a model of another width."""
    sizes = {"width": setting.width, "heads": max(1, setting.width // 32)}
    demo = demo_for(seed, steps, MASKING, modalities=["rgb", "tok_rgb", "depth", "caption"])
    train = replace(demo.train, validate_every=steps, checkpoint_every=0)
    if setting.family == "4M":
        model: Any = replace(demo.model, init_from_tokenizers=False, **sizes)
        return replace(demo, model=model, train=train)
    changes = {f"model.{key}": value for key, value in sizes.items()}
    m3ae = load_recipe(RECIPES / "m3ae-scenes.yaml", {**changes, "seed": seed})
    return replace(m3ae, train=replace(train, learning_rate=m3ae.train.learning_rate))


def trial(base: Path, steps: int, quick: bool, setting: Setting, seed: int) -> Metrics:
    own_steps = max(1, round(steps * setting.share))
    recipe = recipe_of(setting, own_steps, seed)
    catalog = recipe.load_catalog()
    torch.manual_seed(seed)
    model = recipe.family.build_model(catalog, recipe.model)
    held_out = TokenData(base / "tokens/validation", catalog)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(
            recipe.family.build_objective(model, recipe.model, catalog),
            build_batches(recipe, first_samples(base / "tokens/train", catalog, setting.scenes), held_out=False),
            recipe.train,
            Path(folder),
            validation=build_batches(replace(recipe, seed=0), held_out, held_out=True),
        )
    found = probes(FeatureExtractor(recipe.family.encoder(model, catalog, ["rgb"]), {}), seed, quick)
    return {
        LOSS: result.metrics["validation/loss"],
        COUNT: 1 - found["count, linear-probe accuracy"],
        FIRST: 1 - found["first object, linear-probe accuracy"],
        "scenes": setting.scenes,
        "steps": own_steps,
        "parameters": parameters_of(setting.family, model),
    }


def parameters_of(family: str, model: Any) -> int:
    """Number of parameters of the blocks whose size is a setting: of M3AE, the encoder alone."""
    parts = (model.encoder, model.decoder) if family == "4M" else (model.encoder,)
    return sum(p.numel() for part in parts for p in part.parameters())


class PowerLaw(NamedTuple):
    """y = floor + factor · x^-exponent."""

    floor: float
    factor: float
    exponent: float

    def __call__(self, x: Any) -> Any:
        return self.floor + self.factor * np.asarray(x, float) ** -self.exponent

    @classmethod
    def fit(cls, points: Mapping[float, Sequence[float]]) -> "PowerLaw | None":
        """Fits all values at each x: of many floors from 0 to the smallest value, the one whose straight line in logarithms has the least squared error of y.

        Returns:
            The law; None for fewer than three x, or if a value is 0, which has no logarithm.
        """
        if len(points) < 3 or min(min(values) for values in points.values()) <= 0:
            return None
        x, y = (np.array(v) for v in zip(*((x, one) for x, values in points.items() for one in values), strict=True))
        found = []
        for floor in np.linspace(0, 0.99, 100) * y.min():
            slope, constant = np.polyfit(np.log(x), np.log(y - floor), 1)
            law = cls(float(floor), float(np.exp(constant)), float(-slope))
            found.append((float(np.square(law(x) - y).sum()), law))
        return min(found, key=lambda one: one[0])[1]

    def __str__(self) -> str:
        return f"{self.floor:.3g} + {self.factor:.3g} · x^-{self.exponent:.3g}"


def draw_axes(study: Study, families: Sequence[str], path: Path) -> None:
    """Writes the figure, and prints the laws: a row of the measure, the axis and the law of each family."""
    panels = []
    print("\n| measure | of | " + " | ".join(families) + " |\n| --- | --- |" + " --- |" * len(families))
    for metric, title in SHOWN.items():
        for axis in axes_of(families[0]):
            lines, curves = {}, {}
            for family in families:
                points = {
                    study.values(name_of(s), axis)[0]: study.values(name_of(s), metric)
                    for s in axes_of(family)[axis]
                    if study.values(name_of(s), axis)
                }
                lines[family] = points
                if law := PowerLaw.fit(points):
                    curves[family] = law
            print(f"| {title} | {axis} | {' | '.join(str(curves.get(f, '–')) for f in families)} |")
            panels.append(Panel(title, axis, metric, lines, curves=curves))
    draw(path, panels, width=3.4, rows=len(SHOWN))


if __name__ == "__main__":
    made = base_parser("scaling", __doc__, steps=1600)
    made.add_argument("--families", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    options = made.parse_args()
    prepare_base(options)
    study = Study(options.out, steps=options.steps)
    settings = {name_of(s): s for family in options.families for some in axes_of(family).values() for s in some}
    study.run(partial(trial, options.base, options.steps, options.quick), settings, options.seeds, options.jobs)
    print(
        study.table(settings, {**SHOWN, "parameters": "parameters|.0f", "seconds": "CPU seconds|.0f"}, "trained with")
    )
    draw_axes(study, options.families, options.out / "scaling.png")
