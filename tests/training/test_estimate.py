"""Costs that are counted before anything is built."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_catalog import tiny, tiny_batch
from torch import Tensor, nn

from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn.costs import training_costs
from maskweave.objectives.fourm import FourMObjective
from maskweave.training import estimate as training_estimate
from maskweave.training import hardware
from maskweave.training.estimate import Estimate, describe_estimate, estimate
from maskweave.training.hardware import GPUS, gpu_named, gpu_of, peak_flops
from maskweave.training.memory import CHECKPOINTING, Needs
from maskweave.training.pace import largest_product
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.settings import TrainSettings

RECIPES = Path(__file__).parents[2] / "recipes"


class Halves(nn.Module):
    """Two products."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).sum()


def test_flops_and_activations_are_counted() -> None:
    costs = training_costs(Halves(), torch.ones(10, 8))
    assert costs.flops == 3 * 2 * 10 * (8 * 16 + 16 * 4)
    assert costs.activations == 4 * 10 * (8 + 16), "the inputs of both products; the second one is also kept for relu"


def test_counting_changes_nothing() -> None:
    objective = FourMObjective(FourM(tiny(), FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1)))
    before = {name: t.clone() for name, t in objective.state_dict().items()}
    state = torch.get_rng_state()
    batch = tiny_batch(tiny(), 4)
    one, two = (training_costs(objective, batch, objective.count(batch)) for _ in range(2))
    assert one == two and one.flops > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in objective.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in objective.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "flops", "activations"),
    [
        ("4m-7-b", 407e6, 0.166e12, 17.3e9 / 128),
        ("4m-21-b", 762e6, 0.336e12, 21e9 / 64),
        ("4m-21-l", 1457e6, 1.14e12, 55e9 / 64),
        ("4m-21-xl", 4325e6, 4.42e12, 110e9 / 64),
    ],
)
def test_the_published_sizes(name: str, parameters: float, flops: float, activations: float) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    found = estimate(recipe, recipe.load_catalog())
    assert found.parameters == pytest.approx(parameters, rel=0.01)
    assert found.flops == pytest.approx(flops, rel=0.01)
    assert found.activations / recipe.train.batch_size == pytest.approx(activations, rel=0.01)
    budget = recipe.model.masking  # type: ignore[attr-defined]
    assert 0.75 < found.tokens / (budget.input_tokens + budget.target_tokens) <= 1


@pytest.mark.slow  # a minute: sizes of XL under several plans
def test_the_estimate_says_what_fits_and_what_to_do() -> None:
    recipe = load_recipe(RECIPES / "4m-21-xl.yaml")
    catalog = recipe.load_catalog()
    lines = describe_estimate(recipe, catalog, "h100", 64)
    assert "4,096 samples (64 × accumulate 1 × 64 GPUs)" in lines[0]
    assert (
        "with parallel fsdp and activation_checkpointing none: 14.2 GB for weights, gradients and AdamW divided among 64 GPUs"
        in lines[1]
    )
    assert "64 × h100 at 40% of 989 TFLOP/s" in lines[2] and "GPU hours" in lines[2]
    assert "does not fit on h100: set train.activation_checkpointing to auto; or lower train.batch_size" in lines[3]
    assert "at any batch size: use more GPUs" in describe_estimate(recipe, catalog, "a10", 8)[3]

    def changed(**train: Any) -> Recipe:
        return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **train))

    alone = describe_estimate(changed(batch_size=4), catalog, "h100", 1)
    assert "parallel none and activation_checkpointing none: 69.2 GB" in alone[1]
    assert "use several GPUs, among which train.parallel auto divides the model" in alone[3]
    whole = describe_estimate(changed(parallel="ddp"), catalog, "h100", 64)
    assert "parallel ddp" in whole[1] and "set train.parallel to auto on several GPUs" in whole[3]
    saving = describe_estimate(changed(activation_checkpointing="auto"), catalog, "h100", 64)
    assert len(saving) == 3 and "parallel hybrid and activation_checkpointing full" in saving[1]
    alone = describe_estimate(changed(batch_size=4, parallel="fsdp"), catalog, "h100", 1)
    assert "use several GPUs, among which train.parallel fsdp divides the model" in alone[3]
    muon = describe_estimate(changed(optimizer="muon"), catalog, "h100", 64)
    assert "parallel ddp" in muon[1] and "for weights, gradients and Muon with AdamW, and" in muon[1]
    assert "set train.optimizer to adamw and use several GPUs" in muon[3]
    small = describe_estimate(changed(batch_size=4, accumulate=16), catalog, "h200", 64)
    assert len(small) == 3 and "parallel ddp and activation_checkpointing none: 69.2 GB" in small[1]


def test_time_and_costs_are_those_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 steps of 1024 samples, each of 1 TFLOP and 250 tokens, on 16 GPUs with 40% of 989 TFLOP/s."""
    needs = Needs(2 * 10**9, 10**8, 10**8, False, dict.fromkeys(CHECKPOINTING, 10e9))
    known = Estimate(parameters=2 * 10**9, flops=1e12, tokens=250.0, needs=needs)
    monkeypatch.setattr(training_estimate, "estimate", lambda *_: known)
    train = TrainSettings(steps=1000, batch_size=32, accumulate=2, precision="bf16", parallel="fsdp")
    lines = describe_estimate(Recipe(train=train), tiny(), "h100", 16)
    assert lines == [
        "model: 2,000.0 M parameters; 1.00 TFLOP a sample of 250 tokens; 1.02 PFLOP a step of 1,024 samples (32 × accumulate 2 × 16 GPUs)",
        "memory of a GPU with parallel fsdp and activation_checkpointing none: 4.4 GB for weights, gradients and AdamW divided among 16 GPUs, "
        "and about 10.0 GB for activations of 32 samples in bf16, of 80 GB",
        "16 × h100 at 40% of 989 TFLOP/s: 98,900 tokens/s and 395.6 samples/s a GPU; 0.0449 hours, 0.719 GPU hours",
    ]


@pytest.mark.slow
def test_what_is_computed_again_takes_time() -> None:
    recipe = load_recipe(RECIPES / "m3ae-cc12m.yaml")
    catalog = recipe.load_catalog()
    hours = []
    for mode in ("none", "full", "selective"):
        train = dataclasses.replace(recipe.train, activation_checkpointing=mode)
        line = describe_estimate(dataclasses.replace(recipe, train=train), catalog, "h100", 8)[2]
        hours.append(float(line.split("; ")[1].split()[0]))
        assert ("with forward passes computed twice" in line) == (mode == "full")
    assert hours[1] / hours[0] == pytest.approx(4 / 3, rel=0.01) and hours[2] == hours[0]
    with pytest.raises(MaskweaveError, match="--gpus is 12; expected at most 8, or a multiple of 8"):
        describe_estimate(recipe, catalog, "h100", 12)


def test_a_recipe_is_estimated_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", str(RECIPES / "4m-7-b.yaml"), "--gpu", "h200", "--gpus", "8"]) == 1
    shown = capsys.readouterr()
    assert "406.9 M parameters" in shown.out and "8 × h200 at 40%" in shown.out and "no such folder" in shown.err
    assert main(["recipe", "check", str(RECIPES / "smoke.yaml"), "--gpu", "abacus"]) == 1
    assert "unknown GPU 'abacus'; known: b200, h200" in capsys.readouterr().err


def test_cards_are_known_by_their_names() -> None:
    cards = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA H200": "h200",
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA A10": "a10",
        "NVIDIA L4": "l4",
        "NVIDIA GeForce RTX 4090": "rtx-4090",
    }
    assert {card: gpu_of(card) for card in cards} == {card: GPUS[name] for card, name in cards.items()}
    assert gpu_of("Tesla K80") is None
    with pytest.raises(MaskweaveError, match="unknown GPU 'k80'"):
        gpu_named("k80")


def test_a_processors_peak_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "MEASURED_SECONDS", 0.02)
    peak = peak_flops(torch.device("cpu"), "float32", (256, 256, 1024))
    assert 1e8 < peak < 1e14
    assert largest_product(nn.Sequential(nn.Linear(3, 50), *(nn.Linear(8, 16) for _ in range(2)))) == (8, 16)
