"""A training step never makes the host wait for results of the device: none of the operators that would are called, on a CPU as on a GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, tiny, tiny_batch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from maskweave.data.batches import ValueBatch
from maskweave.masking.m3ae import MaskRatio, mask_columns
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.nn import linear_cross_entropy
from maskweave.objectives.fourm import FourMObjective
from maskweave.objectives.m3ae import M3AEObjective
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.training.checkpoints import State
from maskweave.training.distributed import DistContext
from maskweave.training.optimizer import build_optimizer
from maskweave.training.settings import TrainSettings
from maskweave.training.stepping import Stepper
from maskweave.training.updates import Update, count
from maskweave.values.image import Image

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "bincount",
    "_unique2",
    "unique_dim",
    "masked_select",
    "is_nonzero",
    "equal",
}
"""Operators whose result the host needs, or whose output has a size that the device must tell."""


class Watch(TorchDispatchMode):
    """Collects the names of operators that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.calls += 1
        masks = name in ("index", "index_put", "index_put_") and any(
            t.dtype == torch.bool for t in args[1] if t is not None
        )
        if name in WAITING or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def fourm() -> tuple[nn.Module, Any]:
    model = FourM(tiny(), FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1, registers=1))
    return FourMObjective(model), tiny_batch(tiny())


def m3ae() -> tuple[nn.Module, Any]:
    pair = tiny().subset(["photo", "caption"])
    config = M3AEConfig(width=16, depth=1, heads=2, decoder_width=12, decoder_depth=1, decoder_heads=2)
    columns = random_columns(pair, 8, np.random.default_rng(0), 0.4, fewest=2)
    return M3AEObjective(M3AE(pair, config)), mask_columns(columns, pair, MaskRatio(), np.random.default_rng(0))


def tokenizer(**quantizer: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def made() -> tuple[nn.Module, Any]:
        spec = TokenizerSpec(width=16, heads=2, depth=1, decoder_depth=1, quantizer=Quantizer(**quantizer))
        entry = Modality("probe", 1, "grid", Image((16, 16), 3), grid=(4, 4), tokenizer=spec)
        return TokenizerObjective(GridTokenizer(entry)), ValueBatch("probe", torch.rand(4, 3, 16, 16))

    return made


KINDS = {
    "fourm": fourm,
    "m3ae": m3ae,
    "tokenizer with vq": tokenizer(type="vq", codes=32, dim=8),
    "tokenizer with fsq": tokenizer(type="fsq", levels=(8, 6, 5)),
}


def stepper(objective: nn.Module, **settings: Any) -> Stepper:
    """Steps as on a GPU."""
    chosen = TrainSettings(precision="bf16", skip_nonfinite=3, **settings)
    optimizer, names = build_optimizer(objective.train(), chosen)
    made = Stepper(State(objective, optimizer, names, None, chosen, DistContext(0, 1, torch.device("cpu"))), [])
    made.may_wait = False
    return made


def update(objective: nn.Module, batch: Any) -> Update:
    counts = count(batch, objective)
    return Update([batch, batch], [counts, counts], {name: 2.0 * number for name, number in counts.items()})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_does_not_wait(kind: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    objective, batch = KINDS[kind]()
    step, same = stepper(objective, optimizer=optimizer), update(objective, batch)
    step(same)  # may wait: it initializes codebooks
    for large in (linear_cross_entropy.LARGE, 0):
        monkeypatch.setattr(linear_cross_entropy, "LARGE", large)
        before = [p.detach().clone() for p in step.parameters]
        with Watch() as watch:
            step(same)
        assert watch.calls > 100 and watch.found == []
        assert any(not p.equal(old) for p, old in zip(step.parameters, before, strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_is_skipped_without_waiting(optimizer: Any) -> None:
    torch.manual_seed(0)
    objective, batch = fourm()
    step, same = stepper(objective, optimizer=optimizer), update(objective, batch)
    step(same)
    before = [p.detach().clone() for p in step.parameters]
    step.parameters[0].register_hook(lambda gradient: gradient * torch.inf)
    with Watch() as watch:
        step(same)
    assert watch.found == [] and step.state.skipped.nonfinite_in_a_row == 0
    step.check()
    assert step.state.skipped.nonfinite_in_a_row == 1 and "the step was skipped" in step.messages[0]
    assert all(p.equal(old) for p, old in zip(step.parameters, before, strict=True))


def test_waiting_is_noticed() -> None:
    x = torch.arange(4)
    for work, name in (
        (lambda: x[x > 1], "index"), (lambda: int(x[0]), "_local_scalar_dense"), (lambda: torch.bincount(x), "bincount"),
        (lambda: x.nonzero(), "nonzero"),
    ):  # fmt: skip
        with Watch() as watch:
            work()
        assert watch.found == [name]
