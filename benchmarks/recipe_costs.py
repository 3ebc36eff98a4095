"""What the published recipes cost, as a Markdown table: python benchmarks/recipe_costs.py [GPU]

The numbers are those of `maskweave recipe check RECIPE --gpu GPU --gpus NUMBER`: counted, not measured. Cost: a minute, no GPU.
"""

import sys
from pathlib import Path

from maskweave.training.estimate import SHARE, estimate
from maskweave.training.hardware import gpu_named
from maskweave.training.memory import STATE_BYTES
from maskweave.training.recipe import load_recipe

RECIPES = {"4m-7-b": 64, "4m-21-b": 64, "4m-21-l": 64, "4m-21-xl": 64, "m3ae-cc12m": 8}
"""Number of GPUs with which each has the published batches."""
HEADS = ("recipe", "GPUs", "parameters", "samples a step", "PFLOP a step", "GB of weights, gradients, AdamW", "GB of activations", "tokens/s a GPU", "hours", "GPU hours")  # fmt: skip


def main() -> None:
    name = (sys.argv[1:2] or ["h100"])[0]
    card = gpu_named(name)
    print(f"{name} at {SHARE:.0%} of {card.bf16 / 1e12:,.0f} TFLOP/s:\n")
    print(f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}")
    for recipe_name, gpus in RECIPES.items():
        recipe = load_recipe(Path(__file__).parent.parent / "recipes" / f"{recipe_name}.yaml")
        costs, train = estimate(recipe, recipe.load_catalog()), recipe.train
        samples = train.batch_size * train.accumulate * gpus
        rate = SHARE * card.bf16 / costs.flops  # samples per second and GPU
        hours = samples * train.steps / (rate * gpus) / 3600
        state = costs.parameters * (STATE_BYTES + (4 if train.ema else 0))
        cells = [
            f"`{recipe_name}`",
            str(gpus),
            f"{costs.parameters / 1e6:,.0f} M",
            f"{samples:,} × {train.steps:,} steps",
            f"{costs.flops * samples / 1e15:,.2f}",
            f"{state / 1e9:,.1f}",
            f"{costs.activations / 1e9:,.1f}",
            f"{rate * costs.tokens:,.0f}",
            f"{hours:,.1f}",
            f"{hours * gpus:,.0f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
