"""What is hidden for masked autoencoding: how much, where, of whom; and that a batch is a function of its number."""

import numpy as np
import pytest
import torch
from tiny_catalog import random_columns, tiny

from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskedBatch, MaskedBatches, MaskRatio, mask_columns, separate

CATALOG = tiny().subset(["photo", "caption"])


class Held:
    """Token shards of random content, in memory."""

    def __init__(self, samples: int, missing: float = 0.0):
        self.catalog = CATALOG
        self.all = random_columns(CATALOG, samples, np.random.default_rng(3), missing)
        self.counts, self.weights, self.windows = (samples,), (1.0,), (None,)

    def __len__(self) -> int:
        return len(self.all["photo"].present)

    def columns(self, indices):
        return {name: type(c)(*(None if a is None else a[indices] for a in c)) for name, c in self.all.items()}


def same(a: MaskedBatch, b: MaskedBatch) -> bool:
    if len(a.groups) != len(b.groups):
        return False
    pairs = []
    for x, y in zip(a.groups, b.groups, strict=True):
        if x.parts.keys() != y.parts.keys():
            return False
        pairs += [(x.samples, y.samples)]
        pairs += [(x.parts[n].content, y.parts[n].content) for n in x.parts]
        pairs += [(x.parts[n].masked, y.parts[n].masked) for n in x.parts]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("ratio", [0.0, 0.15, 0.5, 0.75, 0.9, 1.0])
def test_the_ratio_decides_how_many_are_hidden(ratio) -> None:
    columns = random_columns(CATALOG, 40, np.random.default_rng(0))
    batch = mask_columns(columns, CATALOG, MaskRatio(ratio, ratio), np.random.default_rng(1))
    (group,) = batch.groups
    length = {"photo": np.full(40, 16), "caption": columns["caption"].length}
    for name, tokens in group.parts.items():
        shown = (~tokens.masked).sum(dim=1).numpy()
        assert (shown == [int(n * (1 - ratio) + 1e-6) for n in length[name]]).all()
        assert tokens.kept.shape[1] == shown.max(), "not one token more goes through the encoder than the longest has"
        assert len(tokens.targets) == (length[name] - shown).sum()
        padding = torch.arange(tokens.masked.shape[1]) >= torch.from_numpy(length[name])[:, None]
        assert tokens.masked[padding].all() and not padding.flatten()[tokens.targets].any()


def test_ten_tokens_at_nine_tenths_leave_one() -> None:
    columns = {"photo": random_columns(CATALOG, 3, np.random.default_rng(0))["photo"]}
    columns["photo"] = columns["photo"]._replace(rows=columns["photo"].rows[:, :10])
    (group,) = mask_columns(columns, CATALOG, MaskRatio(patches=0.9), np.random.default_rng(0)).groups
    assert group.parts["photo"].kept.shape == (3, 1)


def test_every_place_is_hidden_as_often() -> None:
    columns = random_columns(CATALOG, 4000, np.random.default_rng(0))
    (group,) = mask_columns(columns, CATALOG, MaskRatio(), np.random.default_rng(0)).groups
    shares = group.parts["photo"].masked.float().mean(dim=0)
    assert (shares - 0.75).abs().max() < 0.03
    both = (group.parts["photo"].masked[:, 0] & group.parts["photo"].masked[:, 1]).float().mean()
    assert both == pytest.approx(12 / 16 * 11 / 15, abs=0.03), "neighbors are hidden independently"


def test_the_encoder_is_shown_what_is_not_hidden() -> None:
    columns = random_columns(CATALOG, 12, np.random.default_rng(0))
    (group,) = mask_columns(columns, CATALOG, MaskRatio(0.5, 0.5), np.random.default_rng(1)).groups
    caption, photo = group.parts["caption"], group.parts["photo"]
    assert photo.visible is None and photo.present is None, "pictures need no mask"
    for b in range(12):
        shown = caption.kept[b][caption.visible[b]].tolist()
        assert shown == (~caption.masked[b]).nonzero()[:, 0].tolist()
    assert (caption.content.numpy() == columns["caption"].ids[:, : caption.content.shape[1]]).all()


def test_samples_of_equal_modalities_stand_together() -> None:
    columns = random_columns(CATALOG, 60, np.random.default_rng(0), missing=0.4)
    there = {name: column.present for name, column in columns.items()}
    batch = mask_columns(columns, CATALOG, MaskRatio(), np.random.default_rng(0))
    assert [sorted(group.parts) for group in batch.groups] == [["caption", "photo"], ["photo"], ["caption"]]
    for group in batch.groups:
        for name in CATALOG:
            assert (there[name][group.samples] == (name in group.parts)).all()
    nothing = ~there["photo"] & ~there["caption"]
    assert nothing.any() and len(batch) == 60 - nothing.sum()
    assert batch.names == ["caption", "photo"]


def test_unpaired_samples_never_show_both() -> None:
    data = Held(40)
    number = np.arange(40)[:, None]
    data.all["photo"].rows[:] = number[..., None]  # each sample's content tells which it is
    data.all["caption"].ids[:] = number
    batches = MaskedBatches(data, MaskRatio(), 20, seed=5, unpaired=0.5)  # type: ignore[arg-type]
    assert 8 < batches.is_unpaired(np.arange(40)).sum() < 32
    seen: dict[int, set[tuple[str, ...]]] = {}
    for group in (group for i in range(24) for group in batches[i].groups):
        shown = tuple(sorted(group.parts))
        content = group.parts[shown[0]].content.flatten(1)[:, 0]
        for sample in content if shown[0] == "caption" else (content + 1) * 127.5:
            seen.setdefault(round(sample.item()), set()).add(shown)
    assert len(seen) == 40
    for sample, shown_as in seen.items():
        assert shown_as == (
            {("photo",), ("caption",)} if batches.is_unpaired(np.array([sample]))[0] else {("caption", "photo")}
        )


def test_what_is_apart_keeps_what_there_is() -> None:
    columns = random_columns(CATALOG, 200, np.random.default_rng(0), missing=0.4)
    parted = separate(columns, np.ones(200, bool), CATALOG, np.random.default_rng(0))
    before, after = (np.stack([c.present for c in found.values()]).sum(axis=0) for found in (columns, parted))
    assert (after == np.minimum(before, 1)).all()


def test_a_batch_is_a_function_of_its_number() -> None:
    data = Held(50, missing=0.2)
    one, other = (MaskedBatches(data, MaskRatio(), 16, seed=1, unpaired=0.3) for _ in range(2))  # type: ignore[arg-type]
    later = [one[i] for i in (7, 2, 3)]
    assert all(same(a, other[i]) for a, i in zip(later, (7, 2, 3), strict=True))
    assert not same(one[2], one[3]) and not same(one[2], MaskedBatches(data, MaskRatio(), 16, seed=2)[2])  # type: ignore[arg-type]
    held_out = MaskedBatches(data, MaskRatio(), 16, seed=1, shuffle=False)  # type: ignore[arg-type]
    assert len(held_out) == 4 and sum(len(held_out[i]) for i in range(4)) <= 50
    with pytest.raises(IndexError):
        held_out[4]


def test_ratios_that_cannot_be() -> None:
    with pytest.raises(MaskweaveError, match="mask_ratio.sequence is 1.5; expected a share from 0 to 1"):
        MaskRatio(0.5, 1.5)
