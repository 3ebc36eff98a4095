"""Encoding in parts: the first part is exact; later parts see everything, but are not seen by what was encoded before."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_catalog import tiny, tiny_batch

from maskweave.masking.batch import TokenSlice, pack
from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.models.encoder_cache import EncoderCache
from maskweave.models.fourm import FourM, FourMConfig

CATALOG = tiny()
ONLY_OTHERS = MaskingConfig(9, 4, [Mixture({"photo": 1.0, "caption": 1.0}, {"codes": 1.0})], unconditional=0.3)


def build(registers: int) -> FourM:
    torch.manual_seed(0)
    config = FourMConfig(width=32, heads=2, encoder_depth=3, decoder_depth=1, registers=registers, qk_norm=True)
    return FourM(CATALOG, config).eval()


@pytest.mark.parametrize("registers", [0, 2])
@torch.no_grad()
def test_encoding_in_parts(registers: int) -> None:
    model, batch = build(registers), tiny_batch(CATALOG, 6, masking=ONLY_OTHERS)
    cache = EncoderCache(model, batch.inputs, batch.rows)
    torch.testing.assert_close(cache.encoded_BND, model.encode(batch.inputs, batch.rows))
    sample, position = np.array([0, 0, 2, 3, 3, 5]), np.array([1, 4, 2, 7, 9, 3])
    part = TokenSlice(sample, np.arange(6), position)
    new, _ = pack({"codes": part}, {"codes": CATALOG["codes"].id}, 6)
    before = cache.encoded_BND
    cache.extend(new)
    N, n = batch.inputs.ids.shape[1], new.ids.shape[1]
    assert cache.encoded_BND.shape == (6, registers + N + n, 32) and torch.equal(cache.encoded_BND[:, :-n], before)
    # All tokens at once, where those that were there do not attend to the new ones.
    x = torch.cat(
        [
            model.token_embedding(side, rows) + model.position_embedding(side)
            for side, rows in ((batch.inputs, batch.rows), (new, {}))
        ],
        dim=1,
    )
    if model.registers is not None:
        x = torch.cat([model.registers.expand(6, -1, -1), x], dim=1)
    mask = model.context_mask(cache.inputs).expand(-1, -1, x.shape[1], -1).clone()  # type: ignore[union-attr]
    old = model.context_mask(dataclasses.replace(batch.inputs, is_static=True))
    mask[:, :, :-n, :-n], mask[:, :, :-n, -n:] = old, False
    for block in model.encoder:
        x = block(x, mask)
    torch.testing.assert_close(cache.encoded_BND, model.encoder_norm(x), rtol=1e-4, atol=1e-5)
