"""The set loss: matching is the cheapest there is, overlaps as known, an answer that is right costs next to nothing."""

import itertools
import math

import pytest
import torch

from maskweave.objectives.boxes import BOX_COST, CLASS_COST, OVERLAP_COST, SetLoss, match
from maskweave.values.boxes import Boxes
from maskweave.values.boxes3d import Boxes3D
from maskweave.values.detection import box_corners, generalized_overlap

FLAT, SPACE = Boxes(classes=("a", "b", "c")), Boxes3D(classes=("a", "b", "c"))


def cost(logits_QK: torch.Tensor, boxes_Q4: torch.Tensor, target_M5: torch.Tensor, query: int, item: int) -> float:
    """Of one pair, by hand."""
    number, box = int(target_M5[item, 0]), target_M5[item, 1:]
    overlap = generalized_overlap(box_corners(boxes_Q4[query]), box_corners(box))
    distance = (boxes_Q4[query] - box).abs().sum()
    return float(-CLASS_COST * logits_QK[query].softmax(0)[number] + BOX_COST * distance - OVERLAP_COST * overlap)


@pytest.mark.parametrize("seed", range(4))
def test_matching_is_the_cheapest_of_all(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits, boxes = torch.randn(2, 5, 4, generator=g), torch.rand(2, 5, 4, generator=g)
    target = torch.cat([torch.randint(0, 3, (2, 3, 1), generator=g).float(), torch.rand(2, 3, 4, generator=g)], dim=-1)
    target[1, 1, 0] = -1  # the second sample has two boxes
    sample, query, item = match(logits, boxes, target, FLAT)
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
    assert torch.allclose(box_corners(torch.tensor([0.3, 0.4, 0.2, 0.6])), torch.tensor([0.2, 0.1, 0.4, 0.7]))


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
    loss, metrics = SetLoss(FLAT)(right, target)
    assert loss < 1e-5 and set(metrics) == {"loss/class", "loss/box", "loss/overlap"}
    assert SetLoss(FLAT)(right.repeat(2, 1, 1, 1), target)[0] < 1e-5, "of every block"
    moved = right.clone()
    moved[0, 0, 2, -4] += 0.1
    worse, metrics = SetLoss(FLAT)(moved, target)
    assert metrics["loss/box"].item() == pytest.approx(BOX_COST * 0.1 / 2, abs=1e-4) and worse > loss
    empty = target.clone()
    empty[..., 0] = -1
    assert torch.isfinite(SetLoss(FLAT)(right.requires_grad_(), empty)[0])


def test_many_queries_without_an_object_weigh_as_much_as_twenty() -> None:
    target = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.4]]])
    for queries, weight in ((20, 0.1), (80, 0.1 * 20 / 80)):
        output = torch.cat([torch.zeros(queries, 4), torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(queries, 4)], dim=1)
        output[0, 0] = 20.0  # the query with the object is sure of its class
        _, metrics = SetLoss(FLAT)(output[None, None], target)
        others = (queries - 1) * weight
        assert metrics["loss/class"].item() == pytest.approx(others * math.log(4) / (1 + others), rel=1e-4)


def space(center: list[float], size: list[float], yaw: float) -> torch.Tensor:
    """The numbers of a box in space."""
    item = {"class": "a", "center": center, "size": size, "yaw": yaw}
    camera = {"focal": [1.0, 1.0], "center": [0.5, 0.5], "pitch": 0.0, "roll": 0.0}
    return torch.from_numpy(SPACE.box_rows({"camera": camera, "boxes": [item]}))[0, 1:]


def test_boxes_in_space_cost_nothing_if_they_are_right_in_either_description() -> None:
    size = [1.0, 0.5, 2.0]
    true, turned = space([1, 0, 5], size, 0.3), space([1, 0, 5], size[::-1], 0.3 + torch.pi / 2)
    target = torch.cat([torch.tensor([0.0]), true])[None, None]
    for numbers in (true, turned):
        output = torch.cat([20.0 * torch.eye(4)[0], numbers])[None, None, None]
        loss, metrics = SetLoss(SPACE)(output, target)
        assert loss < 1e-5 and set(metrics) == {"loss/class", "loss/box", "loss/overlap"}
    # half a meter aside: a tenth of the picture, and a share of the largest size, 4 m; sides 1 × 0.5 × 2 overlap in 0.5 of 1.5
    moved = space([1.5, 0, 5], size, 0.3)
    assert SPACE.box_distance(moved, true).item() == pytest.approx(0.4 * (0.5 / 5 + 0.5 / 4), abs=1e-6)
    assert SPACE.box_overlap(moved, true).item() == pytest.approx(1 / 3, abs=1e-6)
    assert SPACE.box_distance(space([1, 0, 5], [1.4, 0.5, 2.0], 0.3), true).item() == pytest.approx(
        0.4 * 0.4 / 4, abs=1e-6
    )
    # turned by 45°: cosine and sine of twice the angle each differ by 1 from those of no turn
    turn = SPACE.box_distance(space([0, 0, 5], size, torch.pi / 4), space([0, 0, 5], size, 0))
    assert turn.item() == pytest.approx(0.4 * 0.1 * 2, abs=1e-6)
