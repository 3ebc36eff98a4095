"""The published models' recipes: built whole on the meta device, and a step taken at reduced width."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns

from maskweave.masking.fourm import MaskSampler
from maskweave.models.fourm import FourM
from maskweave.nn.layers import count_parameters
from maskweave.objectives.fourm import FourMObjective
from maskweave.training.optimizer import build_optimizer
from maskweave.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"

PUBLISHED = {"4m-7-b": (8, 400e6), "4m-21-b": (19, 750e6), "4m-21-l": (19, 1.4e9), "4m-21-xl": (19, 4.3e9)}
"""Modalities, and parameters at least, tables and heads included."""


def test_sizes_differ_in_what_they_say() -> None:
    base, large, largest = (load_recipe(RECIPES / f"4m-21-{size}.yaml") for size in ("b", "l", "xl"))
    assert base.data.weights == {"cc12m": 0.6, "coyo": 0.2, "c4": 0.2}
    assert large == replace(base, model=replace(base.model, size="L"))
    train = replace(base.train, learning_rate=3.2e-4, clip=3.0)
    assert largest == replace(base, model=replace(base.model, size="XL"), train=train)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_build_and_step(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    catalog = recipe.load_catalog()
    modalities, parameters = PUBLISHED[name]
    with torch.device("meta"):
        assert count_parameters(FourM(catalog, recipe.model)) > parameters
    assert len(catalog) == modalities
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = replace(recipe.model, width=8, heads=2, encoder_depth=1, decoder_depth=1)
    objective = FourMObjective(FourM(catalog, small), recipe.model.loss)
    rng = np.random.default_rng(0)
    columns = random_columns(catalog, 4, rng)
    if recipe.data.mix:  # the last sample is of a data set of texts alone
        columns = {
            name: c._replace(present=c.present & (np.arange(4) < 3)) if name != "caption" else c
            for name, c in columns.items()
        }
    batch = MaskSampler(catalog, recipe.model.masking)(columns, rng)
    budgets = recipe.model.masking.input_tokens, recipe.model.masking.target_tokens
    assert all(0 < side.ids.shape[1] <= most for side, most in zip((batch.inputs, batch.targets), budgets, strict=True))
    optimizer, _ = build_optimizer(objective, recipe.train)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss, _ = objective(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
