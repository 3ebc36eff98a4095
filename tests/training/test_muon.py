"""Muon is torch's, leaves everything but the matrices of blocks to AdamW, can be skipped, and resumes exactly."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from halved_training import whole_and_halves
from tiny_catalog import tiny
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.objectives.fourm import FourMObjective
from maskweave.training import muon
from maskweave.training.distributed import DistContext
from maskweave.training.muon import matrices_of_blocks, orthogonalized
from maskweave.training.optimizer import AdamW, MuonAdamW, build_optimizer
from maskweave.training.parallel import shard
from maskweave.training.settings import TrainSettings

SETTINGS = TrainSettings(steps=6, learning_rate=0.01, optimizer="muon", device="cpu", log_every=1)


class Stack(nn.Module):
    """Blocks with matrices of two shapes, one of them twice, and a layer outside of blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 20), nn.LayerNorm(20)])
        self.out = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x).tanh()
        return self.out(x).square().mean()


def moved(module: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int = 4) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    for _ in range(steps):
        module(torch.randn(5, 8, generator=g)).backward()
        for one in optimizers:
            one.step()
            one.zero_grad()
    return [p.detach() for p in module.parameters()]


def test_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_bf16_instructions", lambda _: True)
    ours, theirs = Stack(), Stack()
    optimizer, _ = build_optimizer(ours, SETTINGS)
    assert isinstance(optimizer, MuonAdamW)
    matrices = [p for name, p in theirs.named_parameters() if name.startswith("blocks") and p.ndim == 2]
    rest = [p for p in theirs.parameters() if not any(p is m for m in matrices)]
    decay = SETTINGS.weight_decay
    groups = [
        {"params": [p for p in rest if p.ndim == 2], "weight_decay": decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    found = moved(ours, [optimizer])
    reference = torch.optim.Muon(matrices, lr=0.01, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    expected = moved(theirs, [reference, torch.optim.AdamW(groups, lr=0.01, betas=SETTINGS.betas)])
    start = list(Stack().parameters())
    assert all((a - b).abs().max() > 5e-3 for a, b in zip(found, start, strict=True))
    for a, b in zip(found, expected, strict=True):  # bfloat16 rounds what is added
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_singular_values_are_about_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    found = orthogonalized(matrices, torch.float32)
    assert found.shape == shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (found * (u @ v)).sum() / found.norm() / (u @ v).norm() > 0.97
    torch.testing.assert_close(orthogonalized(matrices[:1], torch.float32), found[:1], rtol=1e-4, atol=1e-5)


def test_which_parameters() -> None:
    model = FourM(tiny(), FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, registers=2))
    optimizer, names = build_optimizer(FourMObjective(model), SETTINGS)
    flags = dict(zip(names, (g["muon"] for g in optimizer.param_groups for _ in g["params"]), strict=True))
    blocks = ("model.encoder.", "model.decoder.")
    assert {n for n, flag in flags.items() if flag} == {
        n for n, p in model.named_parameters("model") if n.startswith(blocks) and p.ndim == 2
    }
    adamw, _ = build_optimizer(FourMObjective(model), TrainSettings())
    assert type(adamw) is AdamW and not any(g["muon"] for g in adamw.param_groups)


@pytest.mark.parametrize("together", [1, 10**6])
def test_a_step_that_is_skipped_changes_nothing(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the decision is a tensor and nothing may wait for it."""
    monkeypatch.setattr(muon, "TOGETHER", together)
    module, plain = Stack(), Stack()
    (optimizer, _), (reference, _) = (build_optimizer(one, SETTINGS) for one in (module, plain))
    for bad in (False, True, False):
        module(torch.ones(2, 8)).backward()
        if bad:
            for p in module.parameters():
                p.grad.fill_(torch.nan)  # type: ignore[union-attr]
        else:
            plain(torch.ones(2, 8)).backward()
            reference.step()
            reference.zero_grad()
        optimizer.found_inf = torch.tensor(float(bad))  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_sharded_matrices_are_refused(tmp_path: Path) -> None:
    module = Stack()
    assert len(matrices_of_blocks(module)) == 3
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        sharded = shard(module, DistContext(0, 1, torch.device("cpu")), 1, SETTINGS)
        with pytest.raises(MaskweaveError, match="optimizer muon needs whole matrices"):
            matrices_of_blocks(sharded)
    finally:
        dist.destroy_process_group()


def test_a_training_resumes_exactly(tmp_path: Path) -> None:
    whole, halves = whole_and_halves(SETTINGS, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))
