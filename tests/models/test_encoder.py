"""Features: one interface over 4M, M3AE and backbones, equal to what each model gives by itself."""

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, tiny

from maskweave.errors import MaskweaveError
from maskweave.generate.token_state import TokenState, pack_inputs
from maskweave.masking.inputs import Inputs
from maskweave.masking.m3ae import MaskedTokens
from maskweave.modality.catalogs import Catalog
from maskweave.models.backbone import Backbone
from maskweave.models.encoder import Encoder, add_stochastic_depth
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.nn.layers import Block
from maskweave.nn.patches import unpatchify

CONFIG = FourMConfig(width=32, heads=2, encoder_depth=2, decoder_depth=1)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Biases and norms too are to matter."""
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def inputs_of(catalog: Catalog, names: list[str], samples: int = 3) -> Inputs:
    columns = random_columns(catalog, samples, np.random.default_rng(0), fewest=4)
    content, present = {}, {}
    for name in sorted(names, key=lambda n: not catalog[n].grid):
        column = columns[name]
        if column.rows is not None:
            content[name] = torch.from_numpy(catalog[name].value.normalize_rows(column.rows))
        else:
            content[name] = torch.from_numpy(np.asarray(column.ids, np.int64))
        if column.length is not None:
            present[name] = torch.from_numpy(np.arange(content[name].shape[1]) < column.length[:, None])
    return Inputs.of(content, present)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("names", [["photo"], ["caption", "photo"], ["caption"], list(tiny())])
@torch.no_grad()
def test_4m_gives_what_its_own_packing_gives(registers: int, names: list[str]) -> None:
    catalog = tiny()
    model = shaken(FourM(catalog, FourMConfig(**{**CONFIG.__dict__, "registers": registers})))
    inputs = inputs_of(catalog, names)
    encoded = Encoder(model, catalog, names)(inputs)
    for b in range(3):
        fields = {}
        for name, content in inputs.content.items():
            mask = inputs.present.get(name, torch.ones(content.shape[:2], dtype=torch.bool))[b : b + 1].numpy()
            whole = content[b : b + 1].numpy()
            fields[name] = TokenState(mask, rows=whole) if content.ndim == 3 else TokenState(mask, whole)
        slots, rows = pack_inputs(catalog, fields, [frozenset(names)], np.array([0]))
        alone = model.encode(slots, rows)[:, registers:]
        there = slice(None) if encoded.present is None else encoded.present[b]
        assert torch.allclose(encoded.tokens[b, there], alone[0], atol=1e-5)
        assert torch.allclose(encoded.pooled[b], alone[0].mean(dim=0), atol=1e-5), "padding counts for nothing"


@torch.no_grad()
def test_m3ae_gives_its_features() -> None:
    catalog = tiny().subset(["photo", "caption"])
    sizes = M3AEConfig(width=32, depth=2, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2)
    model = shaken(M3AE(catalog, sizes))
    inputs = inputs_of(catalog, ["photo", "caption"])
    parts = {
        name: MaskedTokens.of(t, torch.zeros(t.shape[:2], dtype=torch.bool), inputs.present.get(name))
        for name, t in inputs.content.items()
    }
    own, encoded = model.features(parts), Encoder(model, catalog, ["caption", "photo"])(inputs)
    assert torch.allclose(own.pooled, encoded.pooled, atol=1e-5)
    assert torch.allclose(own.tokens[:, :16], encoded.tokens[:, encoded.slices["photo"]], atol=1e-5)


@torch.no_grad()
def test_a_backbone_gives_its_tokens() -> None:
    catalog = tiny()
    photo = catalog["photo"]
    model = shaken(Backbone(photo, CONFIG))
    inputs = inputs_of(catalog, ["photo"])
    pixels = unpatchify(inputs.content["photo"], photo.grid, photo.patch).movedim(-1, 1)
    encoded = Encoder(model, catalog, ["photo"])(inputs)
    assert torch.equal(model(pixels), encoded.tokens) and encoded.present is None
    with pytest.raises(MaskweaveError, match="does not read caption; it reads photo"):
        Encoder(model, catalog, ["caption"])


@torch.no_grad()
def test_a_feature_map_is_the_tokens_on_their_grid() -> None:
    catalog = tiny()
    encoder = Encoder(shaken(FourM(catalog, CONFIG)), catalog, ["caption", "codes", "photo"])
    assert encoder.names[-1] == "caption", "grids first"
    encoded = encoder(inputs_of(catalog, ["caption", "codes", "photo"]))
    found = encoded.feature_map("codes")
    assert found.shape == (3, 32, 4, 4)
    assert torch.equal(found[1, :, 2, 3], encoded.tokens[1, encoded.slices["codes"].start + 2 * 4 + 3])
    with pytest.raises(MaskweaveError, match="no feature map of 'caption'.*codes, photo"):
        encoded.feature_map("caption")


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_an_encoder_can_do_without_what_predicts(masked: bool) -> None:
    catalog = tiny().subset(["photo", "caption"])
    model = M3AE(catalog, M3AEConfig(width=32, depth=2, heads=2)) if masked else FourM(catalog, CONFIG)
    encoder = Encoder(shaken(model), catalog, ["photo", "caption"])
    inputs = inputs_of(catalog, ["photo", "caption"])
    before, parameters = encoder(inputs).tokens, sum(p.numel() for p in encoder.parameters())
    after = encoder.drop_decoder()(inputs).tokens
    assert torch.equal(before, after) and sum(p.numel() for p in encoder.parameters()) < 0.8 * parameters
    assert not [name for name, _ in encoder.named_parameters() if "decoder" in name or "heads" in name]


def test_nothing_and_the_unknown_are_refused() -> None:
    model = FourM(tiny(), CONFIG)
    with pytest.raises(MaskweaveError, match="needs one input or more; it reads photo, codes"):
        Encoder(model, tiny(), [])
    with pytest.raises(MaskweaveError, match="unknown modality 'phhoto'; did you mean 'photo'"):
        Encoder(model, tiny(), ["phhoto"])


def test_stochastic_depth_leaves_blocks_out_by_its_chance() -> None:
    torch.manual_seed(0)
    blocks = torch.nn.ModuleList(Block(16, 2) for _ in range(3))
    names = [name for name, _ in blocks.named_parameters()]
    x = torch.randn(2000, 3, 16)
    plain = [block(x) for block in blocks]
    add_stochastic_depth(blocks, 0.6)
    assert [name for name, _ in blocks.named_parameters()] == names
    for block, expected, chance in zip(blocks, plain, (0.0, 0.3, 0.6), strict=True):
        out = block(x)
        left_out = (out == x).all(dim=(1, 2))
        assert abs(left_out.float().mean() - chance) < 0.04
        kept = ~left_out
        assert torch.allclose(out[kept], x[kept] + (expected - x)[kept] / (1 - chance), atol=1e-5)
        block.eval()
        assert torch.equal(block(x), expected)
