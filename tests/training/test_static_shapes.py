"""Static shapes: the loss and gradient are those without padding, and blocks are compiled once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from split_training import CATALOG, Held, build
from stub_training import StubBatches
from torch._dynamo.utils import counters

from maskweave.masking.batch import TokenBatch
from maskweave.masking.fourm import MaskingConfig, MaskSampler, TokenBatches
from maskweave.training import loop
from maskweave.training.hardware import compile_blocks
from maskweave.training.loading import with_static_shapes
from maskweave.training.loop import fit
from maskweave.training.settings import TrainSettings


def gradients(objective: torch.nn.Module, batch: TokenBatch) -> dict[str, torch.Tensor]:
    objective.zero_grad()
    loss, metrics = objective(batch)
    loss.backward()
    return {"loss": loss, **metrics, **{n: p.grad for n, p in objective.named_parameters() if p.grad is not None}}


def test_all_batches_have_the_same_shapes_and_the_same_tokens() -> None:
    data: Any = Held(list(CATALOG))
    batches = TokenBatches(data, MaskSampler(CATALOG, MaskingConfig(9, 13)), 16, seed=1, shuffle=False)
    sizes = set()
    for i in range(len(batches)):
        plain, static = batches[i], batches.static()[i]
        sizes.add(plain.inputs.ids.shape)
        assert static.inputs.is_static and static.targets.is_static and not plain.inputs.is_static
        assert static.inputs.ids.shape == (16, 9) and static.targets.ids.shape == static.labels.shape == (16, 13)
        for a, b in ((plain.inputs, static.inputs), (plain.targets, static.targets)):
            B, N = a.ids.shape
            assert torch.equal(b.modality[:B, :N], a.modality) and torch.equal(b.ids[:B, :N], a.ids)
            assert not b.modality[B:].any() and not b.modality[:, N:].any() and a.index.keys() == b.index.keys()
    assert len(sizes) > 1, "without padding, shapes vary"


@pytest.mark.parametrize("kind", ["mod", "token"])
def test_loss_and_gradient_are_those_without_padding(kind: str) -> None:
    objective, batches = build(kind, 16)
    for i in range(3):
        plain, static = (gradients(objective, one[i]) for one in (batches, batches.static()))
        assert plain.keys() == static.keys()
        for name in plain:
            torch.testing.assert_close(static[name], plain[name], rtol=1e-4, atol=1e-6)


@pytest.fixture
def graphs() -> Iterator[Any]:
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def test_blocks_are_not_compiled_again(graphs: Any) -> None:
    objective, batches = build("mod", 16)
    compile_blocks(objective, dynamic=False, backend="eager")
    batches = batches.static()
    found = [(gradients(objective, batches[i])["loss"].item(), graphs()) for i in range(20)]
    assert len({loss for loss, _ in found}) == 20, "the masks differ"
    assert [count for _, count in found] == [2] * 20, "one graph for the encoder's blocks and one for the decoder's"
    with torch.inference_mode():
        for i in range(5):
            objective.eval()(batches[i])
    assert graphs() <= 4, "one more of each for validation"


@pytest.mark.slow
def test_without_padding_they_are(graphs: Any) -> None:
    objective, batches = build("mod", 16)
    compile_blocks(objective, dynamic=False, backend="eager")
    for i in range(4):
        gradients(objective, batches[i])
    assert graphs() > 2


@pytest.mark.parametrize(
    ("settings", "static"), [({}, False), ({"static_shapes": True}, True), ({"compile": True}, True)]
)
def test_settings(settings: dict[str, bool], static: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, batches = build("mod", 16)
    compiled: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "compile_blocks", lambda _, **options: compiled.append(options))
    seen: list[TokenBatch] = []
    objective.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    train = TrainSettings(steps=2, batch_size=16, device="cpu", **settings)  # type: ignore[arg-type]
    fit(objective, batches, train, tmp_path)
    assert [batch.inputs.is_static for batch in seen if batch.inputs.ids.device.type == "cpu"] == [static] * 2
    assert compiled == ([{"dynamic": False}] if "compile" in settings else [])


@pytest.mark.parametrize("asked", [None, True])
def test_blocks_of_other_batches_may_have_any_shapes(
    asked: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "compile_blocks", lambda _, **options: compiled.append(options))
    objective, batches = build("m3ae", 8)
    fit(
        objective,
        batches,
        TrainSettings(steps=1, batch_size=8, device="cpu", compile=True, static_shapes=asked),
        tmp_path,
    )
    assert compiled == [{"dynamic": None}]
    assert ("static_shapes changes nothing here" in capsys.readouterr().err) == (asked is True)


def test_other_batches_stay_as_they_are() -> None:
    batches = StubBatches()
    assert with_static_shapes(batches) is batches and with_static_shapes(None) is None
