"""Heads: what they give, and that padding does not matter."""

import pytest
import torch

from maskweave.errors import MaskweaveError
from maskweave.models.encoder import Encoded
from maskweave.models.heads import BoxHead, DenseHead
from maskweave.models.sample_heads import ClassHead


def encoded(padding: int = 0) -> Encoded:
    """A picture's and a map's tokens on a 3 × 4 grid, then a text of 5, padded."""
    torch.manual_seed(0)
    tokens = torch.cat([torch.randn(2, 29, 8), torch.full((2, padding), 9.0)[..., None].expand(-1, -1, 8)], dim=1)
    present = torch.arange(29 + padding).expand(2, -1) < 29
    slices = {"a": slice(0, 12), "b": slice(12, 24), "text": slice(24, 29 + padding)}
    return Encoded(tokens, present, slices, {"a": (3, 4), "b": (3, 4)})


@torch.no_grad()
def test_shapes_and_padding() -> None:
    torch.manual_seed(1)
    classes = ClassHead(8, 5)
    boxes = BoxHead(8, 5, queries=7, head_width=16, depth=2, heads=2)
    assert classes(encoded()).shape == (2, 5)
    found = boxes(encoded())
    assert {tuple(p.shape) for p in boxes.boxes.parameters()} == {(16, 16), (16,), (4, 16), (4,)}
    assert found.shape == (2, 2, 7, 5 + 1 + 4) and found[..., -4:].min() >= 0 and found[..., -4:].max() <= 1
    for head in (classes, boxes):
        assert torch.allclose(head(encoded()), head(encoded(padding=3)), atol=1e-5)


@torch.no_grad()
def test_a_dense_head_keeps_places() -> None:
    torch.manual_seed(1)
    head = DenseHead(["a", "b"], 8, channels=3, size=(12, 16), head_width=4, depth=0, upsample=4)
    first = encoded()
    out = head(first)
    assert out.shape == (2, 3, 12, 16)
    first.tokens[0, 12 + 4 * 1 + 2] += 1  # of the second map, row 1 and column 2
    changed = (head(first) - out).abs().sum(dim=1) > 1e-6
    assert changed[0, 4:8, 8:12].all() and changed.sum() == 16


@torch.no_grad()
def test_boxes_know_where_tokens_stand() -> None:
    torch.manual_seed(1)
    head = BoxHead(8, 5, queries=7, head_width=16, depth=1, heads=2)
    given = encoded()
    turned = given._replace(tokens=torch.cat([given.tokens[:, :12].flip(1), given.tokens[:, 12:]], dim=1))
    assert not torch.allclose(head(given), head(turned), atol=1e-4)
    with pytest.raises(MaskweaveError, match="head.width 18 must be an even multiple of head.heads 4"):
        BoxHead(8, 5, 7, head_width=18, depth=1, heads=4)


@torch.no_grad()
def test_boxes_start_at_the_tokens_of_the_first_grid() -> None:
    torch.manual_seed(1)
    head = BoxHead(8, 5, queries=0, head_width=16, depth=2, heads=2, numbers=10, free=2)
    assert not [name for name, _ in head.named_parameters() if name == "queries"]
    found = head(encoded())
    assert found.shape == (2, 2, 12, 5 + 1 + 10)
    assert found[..., 6:14].min() >= 0 and found[..., 6:14].max() <= 1
    assert torch.allclose(found, head(encoded(padding=3)), atol=1e-5)
    for p in head.boxes.parameters():
        p.zero_()
    numbers = head(encoded())[0, 0, :, 6:]
    assert torch.allclose(numbers[4 * 1 + 2, :2], torch.tensor([2.5 / 4, 1.5 / 3])), "row 1, column 2 of 3 × 4"
    assert torch.allclose(numbers[:, 2:8], torch.tensor(0.5)) and not numbers[:, 8:].any(), (
        "the other numbers start anywhere"
    )
    moved = encoded()
    moved.tokens[0, 12 + 7] += 1  # of the second map, at the place of the eighth query
    with_context, without = head(moved)[0, 0], head(encoded())[0, 0]
    assert (with_context - without).abs().sum(dim=1).argmax() == 7, "inputs on the same grid are added"
