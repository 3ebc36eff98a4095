"""The set loss: matching is the cheapest there is, overlaps as known, an answer that is right costs next to nothing."""

import itertools

import pytest
import torch

from maskweave.objectives.boxes import BOX_COST, CLASS_COST, OVERLAP_COST, SetLoss, corners, generalized_overlap, match


def cost(logits_QK: torch.Tensor, boxes_Q4: torch.Tensor, target_M5: torch.Tensor, query: int, item: int) -> float:
    """Of one pair, by hand."""
    number, box = int(target_M5[item, 0]), target_M5[item, 1:]
    overlap = generalized_overlap(corners(boxes_Q4[query]), corners(box))
    distance = (boxes_Q4[query] - box).abs().sum()
    return float(-CLASS_COST * logits_QK[query].softmax(0)[number] + BOX_COST * distance - OVERLAP_COST * overlap)


@pytest.mark.parametrize("seed", range(4))
def test_matching_is_the_cheapest_of_all(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits, boxes = torch.randn(2, 5, 4, generator=g), torch.rand(2, 5, 4, generator=g)
    target = torch.cat([torch.randint(0, 3, (2, 3, 1), generator=g).float(), torch.rand(2, 3, 4, generator=g)], dim=-1)
    target[1, 1, 0] = -1  # the second sample has two boxes
    sample, query, item = match(logits, boxes, target)
    for b, there in enumerate(([0, 1, 2], [0, 2])):
        pairs = [(q, m) for s, q, m in zip(sample.tolist(), query.tolist(), item.tolist(), strict=True) if s == b]
        assert sorted(m for _, m in pairs) == there
        found = sum(cost(logits[b], boxes[b], target[b], q, m) for q, m in pairs)
        least = min(
            sum(cost(logits[b], boxes[b], target[b], q, m) for q, m in zip(chosen, there, strict=True))
            for chosen in itertools.permutations(range(5), len(there))
        )
        assert found == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], 1.0),
        ([0.0, 0.0, 0.2, 1.0], [0.1, 0.0, 0.3, 1.0], 1 / 3),
        ([0.0, 0.0, 0.1, 1.0], [0.9, 0.0, 1.0, 1.0], -0.8),
        ([0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], -0.5),
    ],
)
def test_generalized_overlaps(a: list[float], b: list[float], expected: float) -> None:
    assert generalized_overlap(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(corners(torch.tensor([0.3, 0.4, 0.2, 0.6])), torch.tensor([0.2, 0.1, 0.4, 0.7]))


def answer(number: int, box: list[float]) -> torch.Tensor:
    return torch.cat([20.0 * torch.eye(4)[number], torch.tensor(box)])


def test_what_is_right_costs_nothing_and_what_is_not_does() -> None:
    target = torch.tensor([[[2, 0.5, 0.5, 0.2, 0.4], [0, 0.2, 0.2, 0.1, 0.1]], [[-1.0] * 5] * 2])
    nothing = [0.9, 0.9, 0.1, 0.1]
    right = torch.stack(
        [
            torch.stack([answer(0, [0.2, 0.2, 0.1, 0.1]), answer(3, nothing), answer(2, [0.5, 0.5, 0.2, 0.4])]),
            torch.stack([answer(3, nothing)] * 3),
        ]
    )[None]
    loss, metrics = SetLoss()(right, target)
    assert loss < 1e-5 and set(metrics) == {"loss/class", "loss/box", "loss/overlap"}
    assert SetLoss()(right.repeat(2, 1, 1, 1), target)[0] < 1e-5, "of every block"
    moved = right.clone()
    moved[0, 0, 2, -4] += 0.1
    worse, metrics = SetLoss()(moved, target)
    assert metrics["loss/box"].item() == pytest.approx(BOX_COST * 0.1 / 2, abs=1e-4) and worse > loss
    empty = target.clone()
    empty[..., 0] = -1
    assert torch.isfinite(SetLoss()(right.requires_grad_(), empty)[0])
