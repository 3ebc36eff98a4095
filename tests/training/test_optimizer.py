"""AdamW that updates tables by rows, against dense AdamW and SparseAdam."""

import dataclasses
from pathlib import Path

import pytest
import torch
from halved_training import Drawn, whole_and_halves
from tiny_catalog import tiny
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.heads import BoxHead
from maskweave.objectives.fourm import FourMObjective
from maskweave.training import optimizer
from maskweave.training.loop import fit
from maskweave.training.optimizer import build_optimizer, clip_gradients, gradient_parts
from maskweave.training.settings import TrainSettings

SETTINGS = TrainSettings(steps=4, batch_size=2, learning_rate=0.01, betas=(0.9, 0.95), clip=0.1, device="cpu")
LAZY = dataclasses.replace(SETTINGS, lazy_embeddings=True)
ROWS = optimizer.LARGE


class Lookup(nn.Module):
    """A large table and a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(ROWS, 3)
        self.layer = nn.Linear(3, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return (self.layer(self.table(ids)) - ids[:, None] / ROWS).square().mean()


def steps(settings: TrainSettings, batches: list[Tensor], clip: float = 0.0) -> Lookup:
    torch.set_num_threads(1)
    module = Lookup()
    chosen, _ = build_optimizer(module, settings)
    for ids in batches:
        module(ids).backward()
        parts = gradient_parts(module.parameters())
        if clip:
            clip_gradients(parts, nn.utils.get_total_norm(parts), clip)
        chosen.step()
        chosen.zero_grad()
    return module


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_with_a_gradient_for_every_row_it_is_adamw(clip: float) -> None:
    batches = [torch.cat([torch.randperm(ROWS), torch.arange(9)]) for _ in range(5)]
    dense, lazy = steps(SETTINGS, batches, clip), steps(LAZY, batches, clip)
    assert lazy.table.sparse and not dense.table.sparse
    for a, b in zip(dense.parameters(), lazy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [0.5, 5.0, 7.0])
def test_gradients_are_clipped_like_torchs_and_short_ones_are_not_touched(most: float) -> None:
    ours, theirs = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    for p in (ours, theirs):
        p.grad = torch.tensor([3.0, 4.0])
    norm = nn.utils.clip_grad_norm_([theirs], most)
    before = ours.grad._version
    clip_gradients([ours.grad], norm, most, may_wait=True)
    assert ours.grad.equal(theirs.grad)
    assert (ours.grad._version == before) == (most > norm)


def test_rows_without_a_gradient_stay_as_they_are() -> None:
    batches = [torch.tensor([5, 6, 6]), torch.tensor([6, 7]), torch.tensor([2000])]
    lazy, start = steps(LAZY, batches), Lookup()
    moved = (lazy.table.weight != start.table.weight).any(dim=1).nonzero()[:, 0]
    assert moved.tolist() == [5, 6, 7, 2000]
    reference = Lookup()
    reference.table.sparse = True
    adam = torch.optim.SparseAdam([reference.table.weight], lr=0.01, betas=(0.9, 0.95))
    rest, _ = build_optimizer(reference.layer, SETTINGS)
    for ids in batches:
        reference(ids).backward()
        for each in (adam, rest):
            each.step()
            each.zero_grad()
    torch.testing.assert_close(lazy.table.weight, reference.table.weight)


def test_small_and_shared_tables_stay_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "LARGE", 20)
    for tied in (False, True):
        model = FourM(tiny(), FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, tied=tied))
        build_optimizer(FourMObjective(model), LAZY)
        sparse = {name for name, part in model.named_modules() if getattr(part, "sparse", False)}
        tables = {
            "token_embedding.tokens.for_codes",
            "token_embedding.tokens.for_spectrum",
            "token_embedding.tokens.for_text",
        }
        assert sparse == (
            set() if tied else tables | {"target_token_embedding.tokens.for_text"}
        )  # never where.modality


def test_embeddings_positions_and_tokens_do_not_decay() -> None:
    """`spectrum` has learned positions, which are tables as those of tokens are; registers and queries are such tables too."""
    torch.manual_seed(0)
    model = FourM(tiny(), FourMConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, registers=3))
    head = BoxHead(16, 4, queries=5, head_width=16, depth=1, heads=2)
    chosen, names = build_optimizer(nn.ModuleDict({"model": model, "head": head}), SETTINGS)
    decays = dict(zip(names, (g["weight_decay"] > 0 for g in chosen.param_groups for _ in g["params"]), strict=True))
    tables = {
        "model.position_embedding.learned", "model.position_embedding.learned_of_targets", "model.registers",
        "model.position_embedding.modality.weight", "model.token_embedding.tokens.for_codes.weight", "head.queries",
    }  # fmt: skip
    assert {name for name in tables if decays[name]} == set()
    matrices = {"model.context_projection.weight", "model.heads.for_codes.weight", "head.boxes.fc1.weight"}
    assert all(decays[name] for name in matrices)
    assert {name for name, decaying in decays.items() if decaying} == {
        name
        for name, p in [*model.named_parameters("model"), *head.named_parameters("head")]
        if p.ndim == 2 and name not in tables and ".tokens." not in name
    }


def test_a_training_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "LARGE", 20)
    whole, halves = whole_and_halves(LAZY, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskweave.training import loop
    from maskweave.training.distributed import DistContext

    monkeypatch.setattr(loop, "connect", lambda device: DistContext(0, 2, torch.device("cpu")))
    with pytest.raises(MaskweaveError, match="lazy_embeddings works only with one process"):
        fit(Lookup(), Drawn(), LAZY, tmp_path)
