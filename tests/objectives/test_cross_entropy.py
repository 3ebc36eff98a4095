"""Cross-entropy made in parts is the library's, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from maskweave.objectives import cross_entropy as module
from maskweave.objectives.cross_entropy import cross_entropy


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_librarys(chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    ours = (torch.randn(23, 40) * 5).to(dtype).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    labels, weights = torch.randint(0, 40, (23,)), torch.rand(23)
    found, expected = cross_entropy(ours, labels), F.cross_entropy(theirs.float(), labels, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e4, -3e4, -3e4]], requires_grad=True)
    losses = cross_entropy(logits, torch.tensor([1, 2]))
    assert losses.tolist() == pytest.approx([2e4, 1.0986123])
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all()
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy(logits, torch.tensor([1, 2])), losses)


def test_numbers_that_are_none_are_not_hidden() -> None:
    logits = torch.full((2, 3), torch.nan, requires_grad=True)
    assert cross_entropy(logits, torch.tensor([0, 1])).isnan().all()
