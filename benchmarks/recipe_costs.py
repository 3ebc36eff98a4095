"""What the published recipes cost, as a Markdown table: python benchmarks/recipe_costs.py [GPU]

The numbers are those of `maskweave recipe check RECIPE --gpu GPU --gpus NUMBER`: counted, not measured. Memory is that of a GPU, with what `parallel: auto`
chooses. Cost: a minute, no GPU.
"""

import sys
from pathlib import Path

from maskweave.training.estimate import PER_MACHINE, SHARE, estimate
from maskweave.training.hardware import Gpu, gpu_named
from maskweave.training.memory import choose_plan
from maskweave.training.recipe import load_recipe

RECIPES = {"4m-7-b": 64, "4m-21-b": 64, "4m-21-l": 64, "4m-21-xl": 64, "m3ae-cc12m": 8}
"""Number of GPUs with which each has the published batches."""
HEADS = ("recipe", "GPUs", "parameters", "samples a step", "PFLOP a step", "parallel", "GB of weights, gradients, AdamW", "GB of activations", "tokens/s a GPU", "hours", "GPU hours")  # fmt: skip


def cells(recipe_name: str, gpus: int, card: Gpu) -> list[str]:
    """Returns a row of the table."""
    recipe = load_recipe(Path(__file__).parent.parent / "recipes" / f"{recipe_name}.yaml")
    costs, train = estimate(recipe, recipe.load_catalog()), recipe.train
    plan = choose_plan(costs.needs, train, card.memory, gpus, min(gpus, PER_MACHINE))
    samples = train.batch_size * train.accumulate * gpus
    rate = SHARE * card.bf16 / costs.flops  # samples per second and GPU
    hours = samples * train.steps / (rate * gpus) / 3600
    return [
        f"`{recipe_name}`",
        str(gpus),
        f"{costs.parameters / 1e6:,.0f} M",
        f"{samples:,} × {train.steps:,} steps",
        f"{costs.flops * samples / 1e15:,.2f}",
        plan.parallel,
        f"{costs.needs.state(plan.shards) / 1e9:,.1f}",
        f"{costs.needs.activations[plan.checkpointing] / 1e9:,.1f}",
        f"{rate * costs.tokens:,.0f}",
        f"{hours:,.1f}",
        f"{hours * gpus:,.0f}",
    ]


def main() -> None:
    name = (sys.argv[1:2] or ["h100"])[0]
    card = gpu_named(name)
    print(f"{name} at {SHARE:.0%} of {card.bf16 / 1e12:,.0f} TFLOP/s:\n")
    print(f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}")
    for recipe_name, gpus in RECIPES.items():
        print(f"| {' | '.join(cells(recipe_name, gpus, card))} |", flush=True)


if __name__ == "__main__":
    main()
