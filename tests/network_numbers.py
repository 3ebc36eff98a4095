"""Networks with weights of a formula, and what they compute in a few numbers, so that a layer, a scale or a connection that changes is noticed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def filled(module: nn.Module) -> None:
    """Sets each parameter to a wave of its own, as large as usual for its inputs; norms stay near 1."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (1 + 0.37 * number) + number)
            size = 1.5 / math.sqrt(max(1, parameter.shape[-1] if parameter.ndim > 1 else parameter.numel()))
            base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_((base + size * wave).view(parameter.shape))


def told(t: Tensor) -> list[float]:
    """Mean, standard deviation, and a mean with growing weights."""
    numbers = t.detach().double().flatten()
    numbers = numbers[numbers.isfinite()]
    weights = torch.linspace(1, 2, len(numbers), dtype=torch.float64)
    return [float(x) for x in (numbers.mean(), numbers.std(correction=0), (numbers * weights).mean())]


def shapes(module: nn.Module) -> list[Any]:
    return [sum(p.numel() for p in module.parameters()), len([*module.parameters()]), len(module.state_dict())]


def assert_close(found: Any, stored: Any, where: str) -> None:
    if isinstance(stored, dict):
        assert found.keys() == stored.keys(), where
        for key in stored:
            assert_close(found[key], stored[key], f"{where}: {key}")
    elif isinstance(stored, list) and stored and isinstance(stored[0], float):
        assert found == pytest.approx(stored, rel=2e-4, abs=2e-5, nan_ok=True), where
    else:
        assert found == stored, f"{where} changed; the head of the test's file says how it is written anew"
