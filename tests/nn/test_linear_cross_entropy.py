"""A linear layer and cross-entropy computed by chunks are what they are one after the other, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from tiny_catalog import tiny, tiny_batch

from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn import linear_cross_entropy as module
from maskweave.nn.linear_cross_entropy import Head, by_chunks, linear_cross_entropy
from maskweave.objectives.fourm import FourMObjective

N, D, V = 23, 16, 40


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(N, D, generator=g), torch.randn(V, D, generator=g)
    return (
        x.requires_grad_(),
        weight.requires_grad_(),
        torch.randint(0, V, (N,), generator=g),
        torch.rand(N, generator=g),
    )


@pytest.mark.parametrize("chunk", [1, 5 * V, 10**6])
@pytest.mark.parametrize("halved", [False, True])
def test_value_and_gradient(chunk: int, halved: bool) -> None:
    x, weight, labels, share = inputs()
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        found = linear_cross_entropy(x, weight, labels, share, chunk)
        logits = F.linear(x, weight)
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(found.losses_n, losses.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.total, (losses * share).sum(), rtol=1e-5, atol=1e-5)
    assert found.total.dtype == torch.float32 and not found.losses_n.requires_grad and found.is_right_n is None
    tolerance = 3e-2 if halved else 1e-5
    expected = torch.autograd.grad(3 * (losses * share).sum(), [x, weight])
    for ours, theirs in zip(torch.autograd.grad(3 * found.total, [x, weight]), expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_without_gradients_it_says_which_are_right() -> None:
    x, weight, labels, share = inputs()
    with torch.no_grad():
        found = linear_cross_entropy(x, weight, labels, share, 3 * V)
        logits = F.linear(x, weight)
    assert found.is_right_n is not None and torch.equal(found.is_right_n, logits.argmax(dim=-1) == labels)
    torch.testing.assert_close(found.losses_n, F.cross_entropy(logits, labels, reduction="none"))


def test_the_logits_are_not_kept() -> None:
    x, weight, labels, share = inputs()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        linear_cross_entropy(x, weight, labels, share, V)
    assert kept and max(kept) <= max(N * D, V * D) < N * V


def test_a_loss_that_is_not_finite_makes_the_gradient_so() -> None:
    x, weight, labels, share = inputs()
    found = linear_cross_entropy(torch.full_like(x, torch.nan).requires_grad_(), weight, labels, share)
    assert found.losses_n.isnan().all()
    assert torch.autograd.grad(found.total, weight)[0].isnan().any()


def test_large_heads() -> None:
    assert by_chunks(module.LARGE // 1000, Head(4, 1000, bias=False)) is False
    assert by_chunks(-(-module.LARGE // 1000), Head(4, 1000, bias=False)) is True
    assert by_chunks(module.LARGE, Head(4, 1000, bias=False, device="meta")) is False
    compiled = Head(4, 1000, bias=False)
    compiled.compile(dynamic=False)
    assert by_chunks(1, compiled) is True


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_losses_are_the_same_for_any_number_of_rows(backend: str) -> None:
    x, weight, labels, share = inputs()
    gradient = module._compiled_gradient(backend)
    for n in (N, N - 1, 7):
        for dtype in (torch.float32, torch.bfloat16):
            logits = F.linear(x, weight)[:n].detach().to(dtype)
            found, expected = (f(logits, labels[:n], share[:n]) for f in (gradient, module._gradient_in_place))
            assert found[1].dtype == dtype and found[0].dtype == torch.float32
            torch.testing.assert_close(found, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("loss", ["mod", "token"])
def test_the_objective_is_the_same(tied: bool, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = tiny()
    batch, found = tiny_batch(catalog, 6), []
    for large, compiled in ((module.LARGE, False), (0, False), (module.LARGE, True)):
        monkeypatch.setattr(module, "LARGE", large)
        torch.manual_seed(0)
        config = FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1, tied=tied)
        objective = FourMObjective(FourM(catalog, config), loss)
        for head in objective.model.heads.values() if compiled else ():
            head.compile(backend="aot_eager")
        total, metrics = objective(batch)
        total.backward()
        gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
        with torch.no_grad():
            validated, measured = objective.eval()(batch)
        found.append({"total": total, "validated": validated, **metrics, **measured, **gradients})
    plain, *others = found
    for fused in others:
        assert plain.keys() == fused.keys() and any(name.startswith("accuracy/") for name in fused)
        for name in plain:
            torch.testing.assert_close(
                fused[name], plain[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
