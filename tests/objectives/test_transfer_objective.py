"""Fine-tuning: every task is learned, rates fall with depth as computed by hand, what is frozen stays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from value_helpers import value_of

from maskweave.masking.inputs import Inputs, TransferBatch
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.encoder import Encoder
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.heads import BoxHead, DenseHead
from maskweave.models.lora import add_lora
from maskweave.models.sample_heads import ClassHead
from maskweave.objectives.boxes import SetLoss
from maskweave.objectives.classes import ClassLoss
from maskweave.objectives.transfer import TransferObjective
from maskweave.training.loop import fit
from maskweave.training.metrics import read_metrics
from maskweave.training.optimizer import build_optimizer, trained
from maskweave.training.settings import TrainSettings
from maskweave.values.boxes import Boxes
from maskweave.values.image import Image

PHOTO = Modality("photo", 1, "patches", Image((8, 8), 3), grid=(4, 4))
LAYERS = 3


def make_encoder() -> Encoder:
    torch.manual_seed(0)
    catalog = Catalog([PHOTO])
    model = FourM(catalog, FourMConfig(width=32, heads=2, encoder_depth=LAYERS, decoder_depth=1))
    return Encoder(model, catalog, ["photo"]).drop_decoder()


class Spots:
    """A bright square of 1 × 1 to 3 × 3 patches on a gray picture: how large, where, and how its points differ. Batch i depends on i alone."""

    def __init__(self, task: str):
        self.task = task

    def __getitem__(self, i: int) -> TransferBatch:
        rng = np.random.default_rng(i % 8)
        B = 16
        rows = torch.from_numpy(rng.normal(0, 0.1, (B, 16, PHOTO.row_width)).astype(np.float32))
        size, corner = rng.integers(1, 4, B), np.zeros((B, 2), int)
        inside = torch.zeros(B, 4, 4, dtype=torch.bool)
        for b in range(B):
            corner[b] = rng.integers(0, 5 - size[b], 2)
            y, x = corner[b]
            inside[b, y : y + size[b], x : x + size[b]] = True
        rows = rows + 2 * inside.flatten(1)[..., None]
        fine = inside.repeat_interleave(2, 1).repeat_interleave(2, 2)
        normal = torch.where(
            fine[:, None], torch.tensor([1.0, 0, 0])[:, None, None], torch.tensor([0.0, 0, 1])[:, None, None]
        )
        center = (corner[:, ::-1] + size[:, None] / 2) / 4
        target: dict[str, Any] = {
            "label": torch.from_numpy(size - 1),
            "classes": fine.long(),
            "map": fine[:, None] * 1.6 - 0.8,
            "direction": normal,
            "boxes": torch.from_numpy(np.stack([size - 1, *center.T, size / 4, size / 4], axis=1)).float()[:, None],
        }
        return TransferBatch(Inputs.of({"photo": rows}, {}), target[self.task])


def head_of(task: str) -> torch.nn.Module:
    if task == "label":
        return ClassHead(32, 3)
    if task == "boxes":
        return BoxHead(32, 3, queries=4, head_width=32, depth=2, heads=2)
    return DenseHead(["photo"], 32, {"classes": 2, "map": 1, "direction": 3}[task], (8, 8), 16, depth=2, upsample=2)


def loss_of(task: str) -> Any:
    whole = {"label": ClassLoss(), "boxes": SetLoss(Boxes(classes=("a", "b", "c")))}
    return whole.get(task) or value_of(task, size=(8, 8), classes=("a", "b"), range=(0, 1)).task_loss


def settings(**changes: Any) -> TrainSettings:
    plain = {"steps": 70, "batch_size": 16, "learning_rate": 3e-3, "log_every": 1, "weight_decay": 0.0}
    return TrainSettings(**{**plain, **changes})


@pytest.mark.parametrize(
    ("task", "fraction"), [("label", 0.2), ("classes", 0.2), ("map", 0.2), ("direction", 0.2), ("boxes", 0.5)]
)
def test_every_task_is_learned(task: str, fraction: float, tmp_path: Path) -> None:
    objective = TransferObjective(make_encoder(), head_of(task), loss_of(task), layer_decay=0.8)
    fit(objective, Spots(task), settings(), tmp_path)
    lines = read_metrics(tmp_path)
    assert lines[-1]["loss"] < fraction * lines[0]["loss"], (lines[0]["loss"], lines[-1]["loss"])
    if task in ("label", "classes"):
        assert lines[-1]["accuracy"] > 0.9


def test_a_training_goes_on_exactly_with_stochastic_depth(tmp_path: Path) -> None:
    from maskweave.models.encoder import add_stochastic_depth

    def run(folder: Path, steps: int) -> TransferObjective:
        objective = TransferObjective(make_encoder(), head_of("label"), ClassLoss(), layer_decay=0.5)
        add_stochastic_depth(objective.encoder.blocks, 0.5)
        fit(objective, Spots("label"), settings(steps=steps, schedule="constant", warmup=0.0), folder)
        return objective

    whole = run(tmp_path / "whole", 6)
    run(tmp_path / "halves", 3)
    halves = run(tmp_path / "halves", 6)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_rates_fall_from_the_head_down() -> None:
    objective = TransferObjective(make_encoder(), head_of("label"), ClassLoss(), layer_decay=0.5)
    factors = objective.rate_factors()
    by_hand = {
        "encoder.model.encoder_norm.weight": 1.0,
        "encoder.model.encoder.2.attention.q.weight": 0.5,
        "encoder.model.encoder.1.mlp.fc1.weight": 0.25,
        "encoder.model.encoder.0.norm1.weight": 0.125,
        "encoder.model.token_embedding.rows.for_photo.weight": 0.0625,
        "encoder.model.position_embedding.modality.weight": 0.0625,
    }
    assert {name: factors[name] for name in by_hand} == by_hand
    assert not any(name.startswith("head.") for name in factors)
    optimizer, names = build_optimizer(objective, settings())
    rate = {}
    for group in optimizer.param_groups:
        rate |= {id(p): group["rate_factor"] for p in group["params"]}
    assert sorted(names) == sorted(trained(objective))
    for name, p in objective.named_parameters():
        assert rate[id(p)] == factors.get(name, 1.0), name
    objective.encoder.new = ["photo"]
    assert objective.rate_factors()["encoder.model.token_embedding.rows.for_photo.weight"] == 1.0, (
        "what is new learns as the head"
    )


def test_the_first_update_has_these_rates(tmp_path: Path) -> None:
    """Adam's first step is the rate itself, whatever the gradient."""
    objective = TransferObjective(make_encoder(), head_of("label"), ClassLoss(), layer_decay=0.5)
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    fit(objective, Spots("label"), settings(steps=1, warmup=0.0, schedule="constant"), tmp_path)
    after = dict(objective.named_parameters())
    for name, factor in (
        ("encoder.model.encoder.2.mlp.fc2.weight", 0.5),
        ("encoder.model.encoder.0.mlp.fc2.weight", 0.125),
        ("head.out.weight", 1.0),
    ):
        moved = (after[name] - before[name]).abs()
        assert moved.max().item() == pytest.approx(3e-3 * factor, rel=0.01), name


@pytest.mark.parametrize("lora", [False, True])
def test_what_is_frozen_stays(lora: bool, tmp_path: Path) -> None:
    encoder = make_encoder().requires_grad_(False)
    if lora:
        add_lora(encoder.blocks, 2, 4.0)
    objective = TransferObjective(encoder, head_of("label"), ClassLoss())
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    fit(objective, Spots("label"), settings(steps=5, weight_decay=0.1), tmp_path)
    changed = {name for name, p in objective.named_parameters() if not torch.equal(p, before[name])}
    expected = {name for name in before if name.startswith("head.") or "lora_" in name}
    assert changed == expected and any("lora_b" in name for name in changed) == lora
