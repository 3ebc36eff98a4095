"""The masked autoencoder: who sees what, what padding and absence do, sizes, features, attention."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, tiny

from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskedTokens, MaskRatio, mask_columns
from maskweave.models.joint_encoder import position_table
from maskweave.models.m3ae import M3AE, M3AE_SIZES, M3AEConfig
from maskweave.nn.layers import sine_cosine

CATALOG = tiny().subset(["photo", "caption"])
TINY = M3AEConfig(width=32, depth=2, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def model() -> M3AE:
    torch.manual_seed(0)
    model = M3AE(CATALOG, TINY)
    for p in model.parameters():  # biases and norms too are to matter
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def parts_of(samples: int = 5, ratio: float = 0.5, seed: int = 0, **missing) -> dict[str, MaskedTokens]:
    columns = random_columns(CATALOG, samples, np.random.default_rng(seed), fewest=4)
    (group,) = mask_columns(columns, CATALOG, MaskRatio(ratio, ratio), np.random.default_rng(seed)).groups
    return group.parts


def take(parts: dict[str, MaskedTokens], b: int) -> dict[str, MaskedTokens]:
    """Sample b alone, without padding."""
    found = {}
    for name, t in parts.items():
        L = t.masked.shape[1] if t.present is None else int(t.present[b].sum())
        found[name] = MaskedTokens.of(t.content[b : b + 1, :L], t.masked[b : b + 1, :L])
    return found


@torch.inference_mode()
def test_padding_and_company_change_nothing(model) -> None:
    parts = parts_of()
    assert parts["caption"].present is not None and parts["caption"].visible is not None
    together = model(parts)
    for b in range(5):
        alone = model(take(parts, b))
        for name, output in alone.items():
            torch.testing.assert_close(together[name][b, : output.shape[1]], output[0], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_what_is_hidden_is_not_seen(model) -> None:
    parts = parts_of()
    changed = {}
    for name, t in parts.items():
        noise = torch.randint_like(t.content, 5) if t.content.ndim == 2 else torch.randn_like(t.content)
        hidden = t.masked if t.content.ndim == 2 else t.masked[..., None]
        changed[name] = dataclasses.replace(t, content=torch.where(hidden, noise, t.content))
    before, after = model(parts), model(changed)
    assert all(torch.equal(before[name], after[name]) for name in parts)
    seen = dataclasses.replace(
        parts["photo"], content=torch.where(parts["photo"].masked[..., None], parts["photo"].content, 0.0)
    )
    assert not torch.allclose(model({**parts, "photo": seen})["caption"], before["caption"], atol=1e-3), (
        "text is restored from the picture too"
    )


@torch.inference_mode()
def test_hidden_tokens_cost_the_encoder_nothing(model) -> None:
    parts = parts_of(ratio=0.75)
    assert model.encode(parts).shape[1] == 1 + 4 + parts["caption"].kept.shape[1]
    assert parts["caption"].kept.shape[1] <= 5


@torch.inference_mode()
def test_a_place_without_any_text_or_picture(model) -> None:
    columns = random_columns(CATALOG, 12, np.random.default_rng(1), missing=0.4)
    for group in mask_columns(columns, CATALOG, MaskRatio(), np.random.default_rng(0)).groups:
        output = model(group.parts)
        assert output.keys() == group.parts.keys()
        assert all(torch.isfinite(o).all() for o in output.values())


def test_groups_in_one_go_are_each_group_by_itself(model) -> None:
    columns = random_columns(CATALOG, 12, np.random.default_rng(1), missing=0.4)
    groups = [group.parts for group in mask_columns(columns, CATALOG, MaskRatio(), np.random.default_rng(0)).groups]
    assert [sorted(parts) for parts in groups] == [["caption", "photo"], ["photo"], ["caption"]]

    def outputs_and_gradients(decoded):
        outputs = [y for group in decoded for y in group.values()]
        loss = torch.stack([y.square().mean() for y in outputs]).sum()
        return outputs, torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

    expected = outputs_and_gradients([decoded for parts in groups for decoded in model.decode([parts])])
    found = outputs_and_gradients(model.decode(groups))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_everything_hidden_still_gives_an_answer(model) -> None:
    parts = parts_of(ratio=1.0)
    assert model.encode(parts).shape[1] == 1
    assert all(torch.isfinite(o).all() for o in model(parts).values())


@torch.inference_mode()
def test_features_are_of_the_tokens_that_are_there(model) -> None:
    parts = parts_of(ratio=0.0)
    found = model.features(parts)
    L = parts["caption"].masked.shape[1]
    assert found.tokens.shape == (5, 16 + L, 32) and found.class_token.shape == found.pooled.shape == (5, 32)
    assert (found.present[:, 16:] == parts["caption"].present).all() and found.present[:, :16].all()
    for b in range(5):
        alone = model.features(take(parts, b))
        torch.testing.assert_close(alone.pooled[0], found.pooled[b], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.tokens[0].mean(dim=0), found.pooled[b], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_attention_is_that_of_each_block(model) -> None:
    parts = parts_of(ratio=0.0)
    weights = model.attention(parts)
    N = 1 + 16 + parts["caption"].masked.shape[1]
    assert weights.shape == (2, 5, 2, N, N)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 5, 2, N))
    padding = ~parts["caption"].present[0]
    assert padding.any() and (weights[:, 0, :, :, 17:][..., padding] == 0).all()
    x, mask = model.embed(parts)
    x = model.encoder[0](x, mask)
    last = model.encoder[1]
    normed = last.norm1(x)
    _, v = last.attention.keys_values(normed)
    by_hand = last.attention.out((weights[1] @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(by_hand, last.attention(normed, mask=mask), atol=1e-5, rtol=1e-4)


def test_the_column_comes_before_the_row() -> None:
    photo, caption = CATALOG["photo"], CATALOG["caption"]
    table = position_table([photo, caption], 32)
    assert table.shape == (16 + caption.max_tokens, 32)
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    line = sine_cosine((4,), 16)
    torch.testing.assert_close(table[:16], torch.cat([line[column], line[row]], dim=1))
    torch.testing.assert_close(table[16:], sine_cosine((caption.max_tokens,), 32))


def test_published_sizes() -> None:
    assert {name: tuple(size)[:3] for name, size in M3AE_SIZES.items() if name != "nano"} == {
        "S": (384, 12, 6),
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "H": (1280, 32, 16),
    }
    assert {tuple(M3AE_SIZES[name])[3:] for name in "SBLH"} == {(512, 8, 16)}
    assert M3AEConfig("B", depth=3).resolved().depth == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"size": "XXL"}, "unknown size 'XXL'; known: nano, S, B, L, H"),
        ({"width": 33, "heads": 2}, "width 33 must be a multiple of heads 2"),
        ({"decoder_width": 20, "decoder_heads": 3}, "decoder_width 20 must be a multiple of decoder_heads 3"),
        ({"depth": -1}, "must be above 0"),
    ],
)
def test_sizes_that_cannot_be(config, words) -> None:
    with pytest.raises(MaskweaveError, match=words):
        M3AEConfig(**config).resolved()


def test_other_kinds_are_refused() -> None:
    with pytest.raises(
        MaskweaveError, match=r"kind patches and sequence, found codes \(grid\), spectrum \(grid\), feature \(vectors\)"
    ):
        M3AE(tiny(), TINY)
