"""The model: what it sees and does not see, its variants, sizes and initialization."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, tiny, tiny_batch

from maskweave.errors import MaskweaveError
from maskweave.families.weights import load_model, save_model
from maskweave.masking.batch import Slots, TokenBatch, pack
from maskweave.masking.fourm import MaskingConfig, MaskSampler, Mixture
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.sizes import SIZES
from maskweave.nn.layers import count_parameters, sine_cosine

BIASES = {"qkv_bias": True, "proj_bias": True, "mlp_bias": True, "norm_bias": True}
TINY = FourMConfig(width=32, heads=2, encoder_depth=2, decoder_depth=2)
VARIANTS = {
    "plain": TINY,
    "registers": dataclasses.replace(TINY, registers=3),
    "qk_norm": dataclasses.replace(TINY, qk_norm=True),
    "bias": dataclasses.replace(TINY, **BIASES),
    "tied": dataclasses.replace(TINY, tied=True),
    "gelu": dataclasses.replace(TINY, gated=False, **BIASES, qk_norm=True, registers=1),
}


def build(config: FourMConfig = TINY, catalog: Catalog | None = None) -> FourM:
    torch.manual_seed(0)
    return FourM(catalog or tiny(), config).eval()


def outputs(model: FourM, batch: TokenBatch) -> torch.Tensor:
    """(B, M, D) of the decoder."""
    with torch.no_grad():
        return model.decode(batch.targets, model.encode(batch.inputs, batch.rows), batch.inputs)


def at(side: Slots, number: int) -> torch.Tensor:
    """(n, 2) sample and slot of a modality's tokens."""
    return (side.modality == number).nonzero()


def changed(batch: TokenBatch, **targets: torch.Tensor) -> TokenBatch:
    return dataclasses.replace(batch, targets=dataclasses.replace(batch.targets, **targets))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_predicts_every_target(variant) -> None:
    catalog = tiny()
    model, batch = build(VARIANTS[variant]), tiny_batch(catalog, 12)
    found = model(batch)
    assert set(found) == {"codes", "spectrum", "text"}
    assert set(found["text"][0]) == {"caption", "facts"}
    for names, rows, logits in found.values():
        assert logits.shape == (sum(len(batch.targets.index[n]) for n in names), catalog.vocabulary_size(names[0]))
        assert torch.equal(rows, torch.cat([batch.targets.index[n] for n in names]))
        assert torch.isfinite(logits).all()
    always = ("token_embedding.rows.", "context_projection.")
    has_bias = any(name.endswith("bias") for name, _ in model.named_parameters() if not name.startswith(always))
    assert has_bias == VARIANTS[variant].mlp_bias
    assert model.encode(batch.inputs, batch.rows).shape == (
        12,
        batch.inputs.ids.shape[1] + VARIANTS[variant].registers,
        32,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_and_neighbors_change_nothing(variant) -> None:
    """Each sample alone, without padding, gives what it gives in a padded batch; so does one without any input."""
    catalog = tiny()
    model = build(VARIANTS[variant])
    columns = random_columns(catalog, 8, np.random.default_rng(0), missing=0.4)
    masking = MaskingConfig(14, 14, [Mixture({"default": 0.3}, {"default": 0.3})], unconditional=0.3)
    batch = MaskSampler(catalog, masking)(columns, np.random.default_rng(5))
    sizes = (batch.inputs.modality > 0).sum(1).tolist()
    assert min(sizes) == 0 < max(sizes), "the batch is to hold all sorts of samples"
    whole = outputs(model, batch)
    for b in range(8):
        alone = TokenBatch(cut(batch.inputs, b), rows_of(batch, b), cut(batch.targets, b), batch.labels)
        n = int((batch.targets.modality[b] > 0).sum())
        torch.testing.assert_close(whole[b, :n], outputs(model, alone)[0, :n], rtol=1e-5, atol=1e-5)


def cut(side: Slots, b: int) -> Slots:
    """One sample's slots, without padding."""
    N, n = side.ids.shape[1], max(1, int((side.modality[b] > 0).sum()))
    index = {name: i[i // N == b] - b * N for name, i in side.index.items()}
    parts = (t[b : b + 1, :n] for t in (side.ids, side.modality, side.position))
    return Slots(*parts, {name: i for name, i in index.items() if len(i)})


def rows_of(batch: TokenBatch, b: int) -> dict[str, torch.Tensor]:
    N = batch.inputs.ids.shape[1]
    found = {name: rows[batch.inputs.index[name] // N == b] for name, rows in batch.rows.items()}
    return {name: rows for name, rows in found.items() if len(rows)}


def test_the_order_of_inputs_does_not_matter() -> None:
    model, catalog = build(), tiny()
    batch = tiny_batch(catalog, 3, masking=MaskingConfig(10, 10, [Mixture({"codes": 1.0}, {"spectrum": 1.0})]))
    order = torch.randperm(10)
    turned = dataclasses.replace(batch.inputs, ids=batch.inputs.ids[:, order], position=batch.inputs.position[:, order])
    torch.testing.assert_close(
        outputs(model, batch), outputs(model, dataclasses.replace(batch, inputs=turned)), atol=1e-5, rtol=1e-5
    )


def test_tokens_that_were_not_drawn_change_nothing() -> None:
    catalog = tiny()
    columns = random_columns(catalog, 4, np.random.default_rng(0))
    sampler = MaskSampler(catalog, MaskingConfig(5, 5))
    batch = sampler(columns, np.random.default_rng(3))
    drawn = {name: np.zeros((4, m.tokens), bool) for name, m in catalog.items() if m.kind in ("grid", "patches")}
    for side in (batch.inputs, batch.targets):
        for name, index in side.index.items():
            if name in drawn:
                drawn[name][index // side.ids.shape[1], side.position.flatten()[index]] = True
    for name, mask in drawn.items():
        array = columns[name].ids if columns[name].ids is not None else columns[name].rows
        array[~mask] = (array[~mask] + 7) % 20
    assert not all(mask.all() for mask in drawn.values())
    again = sampler(columns, np.random.default_rng(3))
    torch.testing.assert_close(outputs(build(), batch), outputs(build(), again), rtol=0, atol=0)


def test_what_takes_no_part_gets_no_gradient() -> None:
    catalog = tiny()
    model = build(dataclasses.replace(TINY, registers=1))
    batch = tiny_batch(catalog, masking=MaskingConfig(8, 8, [Mixture({"photo": 1.0}, {"codes": 1.0})]))
    sum(logits.sum() for _, _, logits in model(batch).values()).backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    idle = {
        *(
            "token_embedding.tokens.for_codes.weight",
            "token_embedding.tokens.for_spectrum.weight",
            "token_embedding.tokens.for_text.weight",
        ),
        *(
            "token_embedding.rows.for_feature.weight",
            "token_embedding.rows.for_feature.bias",
            "target_token_embedding.tokens.for_text.weight",
        ),
        *(
            "heads.for_spectrum.weight",
            "heads.for_text.weight",
            "position_embedding.learned",
            "position_embedding.learned_of_targets",
        ),
    }
    assert set(dict(model.named_parameters())) - with_gradient == idle
    # In the one table of modality embeddings only the rows of the drawn ones, and padding's, may move.
    rows = model.position_embedding.modality.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert set(rows) <= {0, catalog["photo"].id, catalog["codes"].id}


def test_targets_of_different_modalities_do_not_see_each_other() -> None:
    catalog = tiny()
    model = build()
    mixture = Mixture({"photo": 1.0}, {"codes": 5.0, "spectrum": 5.0, "caption": 5.0})
    batch = tiny_batch(catalog, 8, masking=MaskingConfig(8, 24, [mixture]))
    before = outputs(model, batch)
    caption, codes = catalog["caption"].id, catalog["codes"].id
    ids, position = batch.targets.ids.clone(), batch.targets.position.clone()
    spoken = batch.targets.modality == caption
    ids[spoken] = 300 - ids[spoken] % 100
    after = outputs(model, changed(batch, ids=ids))
    others = (batch.targets.modality > 0) & ~spoken
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-6)
    assert ((after - before)[spoken].abs().amax(1) > 1e-3).all()
    asked = batch.targets.modality == codes
    position[asked] = 15 - position[asked]
    after = outputs(model, changed(batch, position=position))
    others = (batch.targets.modality > 0) & ~asked
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-6)


def test_sequences_are_causal_and_grids_are_not() -> None:
    catalog = tiny()
    model = build()
    mixture = Mixture({"photo": 1.0}, {"codes": 5.0, "caption": 5.0})
    batch = tiny_batch(catalog, 8, masking=MaskingConfig(8, 20, [mixture]))
    before = outputs(model, batch)
    ids, position = batch.targets.ids.clone(), batch.targets.position.clone()
    for b in range(8):
        spoken = at(batch.targets, catalog["caption"].id)
        spoken = spoken[spoken[:, 0] == b][:, 1]
        late = spoken[len(spoken) // 2]
        ids[b, late] = 250
        after = outputs(model, changed(batch, ids=ids))
        earlier = spoken[spoken < late]
        torch.testing.assert_close(after[b, earlier], before[b, earlier], rtol=0, atol=1e-6)
        assert ((after - before)[b, spoken[spoken >= late]].abs().amax(1) > 1e-4).all()
        ids[b, late] = batch.targets.ids[b, late]
        asked = at(batch.targets, catalog["codes"].id)
        asked = asked[asked[:, 0] == b][:, 1]
        position[b, asked[-1]] = (position[b, asked[-1]] + 5) % 16
        after = outputs(model, changed(batch, position=position))
        assert ((after - before)[b, asked].abs().amax(1) > 1e-6).all(), "all positions of a grid see one another"
        position[b] = batch.targets.position[b]


def test_the_answers_of_grids_are_not_read() -> None:
    catalog = tiny()
    batch = tiny_batch(catalog, masking=MaskingConfig(8, 8, [Mixture({"photo": 1.0}, {"codes": 1.0, "spectrum": 1.0})]))
    other = changed(batch, ids=(batch.targets.ids + 3) % 20)
    torch.testing.assert_close(outputs(build(), batch), outputs(build(), other), rtol=0, atol=0)


def test_every_input_is_seen() -> None:
    catalog = tiny()
    model = build()
    batch = tiny_batch(
        catalog, 4, masking=MaskingConfig(8, 8, [Mixture({"codes": 1.0, "caption": 1.0}, {"spectrum": 1.0})])
    )
    before = outputs(model, batch)
    for slot in range(4):
        ids = batch.inputs.ids.clone()
        ids[:, slot] = (ids[:, slot] + 1) % 20
        after = outputs(model, dataclasses.replace(batch, inputs=dataclasses.replace(batch.inputs, ids=ids)))
        assert ((after - before)[:, 0].abs().amax(1) > 1e-5).all()


def test_an_empty_batch_of_inputs_still_predicts() -> None:
    catalog = tiny()
    targets = tiny_batch(catalog, 3).targets
    nothing, _ = pack({}, {}, 3)
    for config in VARIANTS.values():
        model = build(config)
        y = model.decode(targets, model.encode(nothing, {}), nothing)
        assert torch.isfinite(y).all()


@pytest.mark.parametrize("size", SIZES)
def test_every_size_builds(size) -> None:
    with torch.device("meta"):
        model = FourM(load_catalog("scenes"), FourMConfig(size=size))
    row = SIZES[size]
    assert (len(model.encoder), len(model.decoder), model.encoder[0].attention.heads) == row[2:] + row[1:2]
    D = row.width
    hidden = int(8 / 3 * D)
    blocks = row.encoder_depth * (4 * D * D + 3 * D * hidden) + row.decoder_depth * (8 * D * D + 3 * D * hidden)
    body = count_parameters(model.encoder) + count_parameters(model.decoder)
    assert body == blocks + D * (2 * row.encoder_depth + 4 * row.decoder_depth)


@pytest.mark.parametrize(("size", "millions"), [("B", 198), ("L", 705), ("XL", 2818)])
def test_published_sizes_have_their_parameters(size, millions) -> None:
    """Blocks alone, as the papers' tables leave embeddings and heads out: 12 width² a layer of the encoder, 16 of the decoder."""
    row = SIZES[size]
    with torch.device("meta"):
        model = FourM(tiny(), FourMConfig(size=size))
    body = count_parameters(model.encoder) + count_parameters(model.decoder)
    assert body == pytest.approx(row.width**2 * (12 * row.encoder_depth + 16 * row.decoder_depth), rel=0.01)
    assert body == pytest.approx(millions * 1e6, rel=0.005)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FourMConfig(size="huge"), "unknown size 'huge'; known: nano, micro, mini, Ti, S, B, L, XL"),
        (FourMConfig(width=100, heads=3), "width 100 must be an even multiple of heads 3"),
        (FourMConfig(heads=-2), "must be an even multiple of heads -2"),
        (FourMConfig(encoder_depth=-1), "depths at least 1"),
        (FourMConfig(registers=-1), "registers must be 0 or more"),
        (FourMConfig(mlp_ratio=0.0), "mlp_ratio above 0"),
    ],
)
def test_sizes_that_cannot_be(config, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        FourM(tiny(), config)
    assert message in str(caught.value)


def test_initialization() -> None:
    model = build(dataclasses.replace(TINY, width=128, registers=4, **BIASES))
    for table in (
        model.token_embedding.tokens["text"].weight,
        model.position_embedding.modality.weight,
        model.position_embedding.learned,
        model.position_embedding.learned_of_targets,
        model.registers,
    ):
        assert table.std().item() == pytest.approx(0.02, rel=0.15)
    assert model.mask_token.std().item() == pytest.approx(0.02, rel=0.3)
    for layer in (
        model.encoder[0].attention.q,
        model.encoder[1].mlp.fc1,
        model.heads["text"],
        model.token_embedding.rows["photo"],
    ):
        fan = sum(layer.weight.shape)
        assert layer.weight.abs().max().item() == pytest.approx((6 / fan) ** 0.5, rel=0.02)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))
    assert all((p == 1).all() for name, p in model.named_parameters() if "norm" in name and name.endswith("weight"))


def test_a_sequence_and_its_like_share_a_vocabulary() -> None:
    model = build()
    assert set(model.token_embedding.tokens) == {"codes", "spectrum", "text"}
    assert set(model.target_token_embedding.tokens) == {"text"}
    assert set(model.heads) == {"codes", "spectrum", "text"}


def test_sixteen_bits_stay_finite() -> None:
    model, batch = build(dataclasses.replace(TINY, registers=2)), tiny_batch(tiny(), 12)
    whole = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    for name, (_, _, logits) in half.items():
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(logits.float(), whole[name][2], rtol=0.1, atol=0.1)


def test_learned_positions_are_those_of_their_modality() -> None:
    catalog = tiny()
    model = build()
    where = model.position_embedding
    assert where.learned.shape == (5, 32)
    spectrum, codes = catalog["spectrum"].id, catalog["codes"].id
    slots = Slots(torch.zeros(1, 5, dtype=torch.long), torch.full((1, 5), spectrum), torch.arange(5)[None], {})
    torch.testing.assert_close(where(slots)[0] - where.modality.weight[spectrum], where.learned)
    torch.testing.assert_close(
        where(slots, targets=True)[0] - where.modality.weight[spectrum], where.learned_of_targets
    )
    assert not torch.equal(where.learned, where.learned_of_targets)
    assert where.learned_rows(catalog["spectrum"]) == slice(0, 5)
    slots = Slots(torch.zeros(1, 16, dtype=torch.long), torch.full((1, 16), codes), torch.arange(16)[None], {})
    torch.testing.assert_close(where(slots)[0] - where.modality.weight[codes], sine_cosine((4, 4), 32))


def test_tied_tables_are_one_and_survive_saving(tmp_path) -> None:
    catalog = tiny()
    tied, untied = build(VARIANTS["tied"]), build()
    assert tied.token_embedding.tokens["codes"].weight is tied.heads["codes"].weight
    assert (
        tied.token_embedding.tokens["text"].weight
        is tied.target_token_embedding.tokens["text"].weight
        is tied.heads["text"].weight
    )
    assert count_parameters(tied) < count_parameters(untied)
    save_model(tied, catalog, tmp_path)
    again = load_model(tmp_path, catalog)
    assert again.token_embedding.tokens["codes"].weight is again.heads["codes"].weight
    batch = tiny_batch(catalog, 4)
    assert torch.equal(outputs(tied, batch), outputs(again, batch))


def test_tokens_start_where_their_tokenizers_place_them() -> None:
    model = build(VARIANTS["tied"])
    size = model.heads["codes"].weight.shape[0]
    embeddings = torch.randn(size, 6)
    embeddings[1] = embeddings[0]
    model.init_from_tokenizers({"codes": embeddings})
    weight = model.token_embedding.tokens["codes"].weight
    assert torch.equal(weight[0], weight[1]) and not torch.equal(weight[0], weight[2])
    assert weight.std().item() == pytest.approx(0.1, rel=1e-3)
    assert weight is model.heads["codes"].weight


def test_names_that_torch_keeps_for_itself_are_names_like_any_other() -> None:
    entry = {"kind": "grid", "grid": [4], "value": {"type": "map", "size": [8], "range": [0, 1]}}
    names = ("values", "type", "keys", "forward", "cpu")
    catalog = catalog_from({"modalities": {name: {"id": i + 1, **entry} for i, name in enumerate(names)}}, "f")
    assert set(build(TINY, catalog).heads) == set(names)
