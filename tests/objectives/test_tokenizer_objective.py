import dataclasses

import numpy as np
import pytest
import torch
from value_helpers import network

from maskweave.data.batches import ValueBatch
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Diffusion, Quantizer, TokenizerSpec
from maskweave.objectives.tokenizer import WARM_UP, TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.binary import Binary
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.vector import Vector

SPEC = TokenizerSpec(width=48, heads=2, depth=1, decoder_depth=1, quantizer=Quantizer("fsq", levels=(8, 6, 5)))


def entry(value, grid=(4, 4), spec=SPEC):
    return Modality(name="probe", id=1, kind="grid", value=value, grid=grid, tokenizer=spec)


def discs(count, size=16, seed=0):
    """Boolean discs of random place and radius, (count, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    center, radius = rng.uniform(4, size - 4, (count, 2, 1, 1)), rng.uniform(2, 5, (count, 1, 1))
    return (y - center[:, 0]) ** 2 + (x - center[:, 1]) ** 2 < radius**2


def picture():
    inside = discs(64)[..., None]
    return entry(Image((16, 16), 3)), np.where(inside, [220, 40, 30], [60, 90, 200]).astype(np.uint8)


def depth():
    return entry(Map((16, 16), range=(0, 10))), np.where(discs(64), 3.0, 8.0)


def directions():
    return entry(Direction((16, 16), 3)), np.where(discs(64)[..., None], [0.0, 0.6, 0.8], [0.0, 1.0, 0.0])


def classes():
    return entry(Classes((16, 16), classes=("floor", "disc", "never"))), discs(64).astype(np.uint8)


def binary():
    return entry(Binary((16, 16))), discs(64)


def spectrum():
    x = np.linspace(0, 1, 32)
    lines = np.exp(-(((x - np.random.default_rng(0).random((64, 1))) / 0.1) ** 2))
    return entry(Map((32,), range=(0, 1)), (8,)), lines


def volume():
    frames = np.repeat(discs(16)[:, None], 4, 1)[..., None]
    return entry(Image((4, 16, 16), 1), (2, 4, 4)), (frames * 255).astype(np.uint8)


def vectors():
    basis = np.random.default_rng(0).normal(size=(2, 24))
    value, spec = (
        Vector(channels=24),
        dataclasses.replace(SPEC, model="mlp", quantizer=Quantizer("memcodes", codes=32, dim=16, heads=4)),
    )
    return entry(value, (4,), spec), np.random.default_rng(1).normal(size=(64, 2)) @ basis


def train(modality, values, steps=120, rate=3e-3):
    torch.manual_seed(0)
    objective = TokenizerObjective(GridTokenizer(modality)).train()
    batch = ValueBatch(modality.name, network(modality, values))
    optimizer = torch.optim.AdamW(objective.parameters(), rate)
    history = []
    for _ in range(steps):
        loss, metrics = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(metrics["reconstruction"].item())
    return objective, batch, history, metrics


@pytest.mark.parametrize(
    "case", [picture, depth, directions, classes, binary, spectrum, volume, vectors], ids=lambda c: c.__name__
)
def test_training_lowers_the_loss(case):
    modality, values = case()
    objective, _, history, metrics = train(modality, values)
    fraction = {"vectors": 0.8, "directions": 0.4}.get(case.__name__, 0.3)
    assert np.mean(history[-5:]) < fraction * np.mean(history[:2])
    assert set(metrics) == {"reconstruction", "quantizer", "perplexity", "codebook_use"}
    assert all(v.shape == () and not v.requires_grad for v in metrics.values())
    assert 0 < metrics["codebook_use"] <= 1 < metrics["perplexity"] <= objective.tokenizer.vocabulary_size


@pytest.mark.parametrize("case", [picture, depth, directions, classes, binary, vectors], ids=lambda c: c.__name__)
def test_an_entry_takes_the_losses_that_suit_it(case):
    modality, values = case()
    losses = modality.value.losses
    batch = ValueBatch("probe", network(modality, values[:4]))
    for loss in ("mse", "smooth_l1", "cosine", "cross_entropy", "binary"):
        own = dataclasses.replace(modality, tokenizer=dataclasses.replace(modality.tokenizer, loss=loss))
        if loss not in losses:
            with pytest.raises(MaskweaveError, match=f"tokenizer.loss '{loss}' does not suit values of type"):
                Catalog([own])
            continue
        Catalog([own])
        objective = TokenizerObjective(GridTokenizer(own))
        assert objective.loss is losses[loss] and objective(batch)[0].isfinite()
    assert TokenizerObjective(GridTokenizer(modality)).loss is next(iter(losses.values())), "by default"


def test_a_diffusion_decoder_trains_with_its_encoder():
    modality, values = picture()
    denoiser = Diffusion(widths=(32,), layers=1, attention=0, patch=2, prediction="sample", training_steps=40)
    modality = dataclasses.replace(modality, tokenizer=dataclasses.replace(SPEC, diffusion=denoiser))
    objective, batch, history, _ = train(modality, values[:16], steps=60, rate=5e-3)
    assert np.mean(history[-5:]) < 0.5 * np.mean(history[:2])
    assert objective.tokenizer.encoder.patches.weight.grad.abs().sum() > 0
    first, second = (objective.eval()(batch)[0] for _ in range(2))
    assert torch.equal(first, second)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "prediction", [pytest.param("sample", marks=SLOW), pytest.param("epsilon", marks=SLOW), "v_prediction"]
)
def test_a_diffusion_decoder_skips_unknown_points(prediction):
    _, values = depth()
    denoiser = Diffusion(widths=(32,), layers=1, attention=0, patch=2, prediction=prediction, training_steps=40)
    modality = entry(Map((16, 16), range=(0, 10), missing=("nan",)), spec=dataclasses.replace(SPEC, diffusion=denoiser))
    values = values[:16].copy()
    values[:, :5] = np.nan
    objective, batch, history, _ = train(modality, values, steps=60, rate=5e-3)
    assert all(np.isfinite(history)) and np.mean(history[-5:]) < 0.7 * np.mean(history[:2])
    objective.eval()
    output, target, _, *_ = objective.tokenizer(batch.values)
    assert torch.equal(target.isnan(), batch.values.isnan()) and output.isfinite().all()
    known = ~target.isnan()
    torch.testing.assert_close(objective(batch)[1]["reconstruction"], (output - target)[known].square().mean().detach())
    assert np.isfinite(objective.tokenizer.decode(objective.tokenizer.encode(values[:2]))).all()


@pytest.mark.parametrize(
    "quantizer",
    [
        Quantizer("vq", codes=64, dim=16),
        Quantizer("vq", codes=64, dim=16, rotation=True),
        Quantizer("vq", codes=64, dim=16, codebook="simvq"),
        Quantizer("lfq", codes=64, dim=16),
        Quantizer("residual", codes=16, dim=16),
        Quantizer("residual", over="fsq", levels=(3, 3, 3)),
    ],
)
def test_other_quantizers_train(quantizer):
    modality, values = picture()
    modality = dataclasses.replace(modality, tokenizer=dataclasses.replace(SPEC, quantizer=quantizer))
    _, _, history, metrics = train(modality, values)
    assert np.mean(history[-5:]) < 0.4 * np.mean(history[:2])
    assert metrics["codebook_use"] > 0.2


def test_loss_is_reconstruction_and_quantizer():
    modality, values = picture()
    modality = dataclasses.replace(
        modality, tokenizer=dataclasses.replace(SPEC, quantizer=Quantizer("vq", codes=16, dim=8))
    )
    loss, metrics = TokenizerObjective(GridTokenizer(modality)).train()(ValueBatch("probe", network(modality, values)))
    assert metrics["quantizer"] > 0
    torch.testing.assert_close(loss.detach(), metrics["reconstruction"] + metrics["quantizer"])


def test_evaluation_leaves_the_counts():
    modality, values = picture()
    objective = TokenizerObjective(GridTokenizer(modality)).eval()
    _, metrics = objective(ValueBatch("probe", network(modality, values)))
    assert objective.batches == 0 and objective.counts.sum() == 0 and metrics["perplexity"] >= 1


def test_use_of_codes_that_fell_out_fades():
    modality, _ = picture()
    objective = TokenizerObjective(GridTokenizer(modality)).train()
    objective._use(torch.arange(240))
    _, use = objective._use(torch.zeros(240, dtype=torch.long))
    assert use == 1
    for _ in range(60):
        perplexity, use = objective._use(torch.zeros(240, dtype=torch.long))
    assert use == pytest.approx(1 / 240) and perplexity < 1.6


def test_collapse_is_warned_of_after_warm_up():
    modality, _ = picture()
    objective = TokenizerObjective(GridTokenizer(modality))
    assert objective.warnings({"codebook_use": torch.tensor(0.01)}) == []
    objective.batches.fill_(WARM_UP)
    (message,) = objective.warnings({"codebook_use": torch.tensor(0.01)})
    assert "probe" in message and "1.0% of its 240 codes" in message and "fewer codes" in message
    assert objective.warnings({"codebook_use": 0.5}) == []


@pytest.mark.parametrize(
    "case, loss", [(picture, "cross_entropy"), (picture, "binary"), (classes, "mse"), (binary, "cosine")]
)
def test_a_loss_that_does_not_suit_is_refused(case, loss):
    modality, _ = case()
    modality = dataclasses.replace(modality, tokenizer=dataclasses.replace(SPEC, loss=loss))
    with pytest.raises(MaskweaveError, match=f"probe.*{loss}.*{modality.value.type}"):
        TokenizerObjective(GridTokenizer(modality))


def test_rare_classes_and_edges_weigh_more():
    from maskweave.values.binary import balanced_binary
    from maskweave.values.classes import balanced_cross_entropy

    truth = torch.zeros(1, 10, 10, dtype=torch.long)
    truth[0, 0, :4] = 1
    always_first = torch.tensor([3.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 10, 10)
    assert balanced_cross_entropy(always_first, truth) > 3 * torch.nn.functional.cross_entropy(always_first, truth)
    signs = truth[:, None].float() * 2 - 1
    never = torch.full((1, 1, 10, 10), -3.0)
    assert balanced_binary(never, signs) > 1.8 * torch.nn.functional.binary_cross_entropy_with_logits(
        never, (signs > 0).float()
    )
