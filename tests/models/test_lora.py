"""Corrections of low rank: nothing at first, alone in training, part of the weights at last."""

import pytest
import torch

from maskweave.models.lora import LoRALinear, add_lora, merge_lora
from maskweave.nn.cpu import Linear
from maskweave.nn.layers import BIASED, Biases, Block


@pytest.mark.parametrize("biases", [BIASED, Biases(False, False, False, False)])
@pytest.mark.parametrize(("mlp", "layers"), [(False, 4), (True, 7)])
def test_lora(biases: Biases, mlp: bool, layers: int) -> None:
    torch.manual_seed(0)
    block = Block(16, 2, biases=biases, gated=True)
    x, before = torch.randn(3, 5, 16), {k: v.clone() for k, v in block.state_dict().items()}
    plain = block(x)
    add_lora(block, rank=3, alpha=6.0, mlp=mlp)
    torch.testing.assert_close(
        block(x), plain, rtol=1e-5, atol=1e-5
    )  # nothing changes at first; another kernel may multiply
    trained = {name: p for name, p in block.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * layers and all(name.rpartition(".")[2] in ("lora_a", "lora_b") for name in trained)

    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items() if "lora" not in name)
    learned = block(x)
    assert not torch.allclose(learned, plain)

    q = block.attention.q
    assert isinstance(q, LoRALinear)
    by_hand = q.weight + 6.0 / 3 * q.lora_b @ q.lora_a
    merge_lora(block)
    assert torch.equal(block.attention.q.weight, by_hand) and type(block.attention.q) is Linear
    torch.testing.assert_close(
        block(x), learned, rtol=1e-5, atol=1e-5
    )  # W x + B A x in another order, sums of up to 42 terms
    assert block.state_dict().keys() == before.keys()


def test_merged_layers_can_be_trained_again() -> None:
    block = Block(16, 2)
    add_lora(block, rank=3, alpha=6.0, mlp=True)
    assert not block.norm1.weight.requires_grad, "all else is frozen"
    merge_lora(block)
    assert all(
        p.requires_grad for layer in (*block.attention.children(), *block.mlp.children()) for p in layer.parameters()
    )


def test_updates_start_at_random_and_at_zero() -> None:
    """A as torch's own linear layers; B at zero; the scale is alpha / rank."""
    torch.manual_seed(0)
    layer = LoRALinear(Linear(400, 30), rank=5, alpha=2.0)
    bound = 1 / 400**0.5
    assert layer.scale == 0.4 and (layer.lora_b == 0).all() and layer.lora_a.shape == (5, 400)
    assert 0.98 * bound < layer.lora_a.abs().max() <= bound and layer.lora_b.shape == (30, 5)
