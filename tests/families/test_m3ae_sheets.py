"""What a masked autoencoder restores, as figures: what was seen stays, hidden patches are gray, words light the picture where they look."""

import numpy as np
import pytest
import torch

from maskweave.families.m3ae_sheets import MOST_WORDS, attention_sheet, restored_sheet
from maskweave.masking.m3ae import MaskRatio, mask_values
from maskweave.modality.catalogs import Catalog
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.nn.patches import patchify
from maskweave.report.sheets import contact_sheet
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer

TINY = M3AEConfig(width=32, depth=2, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def given(scenes_catalog):
    catalog = scenes_catalog.subset(["rgb", "caption"])
    scenes = Scenes(catalog, 3, seed=1)
    samples = [dict(scenes[i]) for i in range(3)]
    text = TextTokenizer.train(catalog.vocabularies["text"], [s["caption"] for s in samples])
    torch.manual_seed(0)
    return M3AE(catalog, TINY).eval(), catalog, {"caption": SequenceTokenizer(catalog["caption"], text)}, samples


def restored(given, ratio: float, **options):
    """The values on the sheet: of each sample those of the pictures and of the texts, each seen, restored and true."""
    sheet = restored_sheet(*given, ratios=(ratio,), **options)
    assert contact_sheet(sheet.rows, sheet.catalog, sheet.title, sheet.headings, tile=sheet.tile).width > 500
    return [[None if t is None else t.value for t in row.tiles] for row in sheet.rows]


def test_what_is_seen_stays_and_the_rest_is_gray(given) -> None:
    for (seen, made, truth, *texts), sample in zip(restored(given, 0.75), given[3], strict=True):
        assert (truth == sample["rgb"]).all()
        patches = [patchify(picture[None].astype(int), (8, 8))[0] for picture in (seen, made, truth)]
        gray = (abs(patches[0] - 127.5) <= 1).all(axis=1)
        assert gray.sum() == 48
        assert (patches[0][~gray] == patches[2][~gray]).all() and (patches[1][~gray] == patches[2][~gray]).all()
        assert (patches[1][gray] != patches[2][gray]).any()
        assert texts[2] == sample["caption"].lower() or texts[2]
        length = len(given[2]["caption"].encode([sample["caption"]])[0])
        assert texts[0].split().count("_") == length - int(length * 0.25 + 1e-6)


def test_nothing_hidden_is_the_truth(given) -> None:
    for seen, made, truth, _, text, true_text in restored(given, 0.0):
        assert (seen == truth).all() and (made == truth).all() and text == true_text


def test_normalized_patches_get_the_truth_s_brightness(given, monkeypatch) -> None:
    model = given[0]
    monkeypatch.setattr(
        model,
        "forward",
        lambda parts: {n: torch.zeros(*t.masked.shape, 192 if n == "rgb" else 512) for n, t in parts.items()},
    )
    for _, made, truth, *_ in restored(given, 1.0, normalized=True):
        mean = patchify(truth[None].astype(float), (8, 8))[0].mean(axis=1)
        assert abs(patchify(made[None].astype(float), (8, 8))[0] - mean[:, None]).max() <= 1


def test_a_missing_part_is_shown_as_missing(given) -> None:
    model, catalog, tokenizers, samples = given
    alone = [samples[0], {"rgb": samples[1]["rgb"]}, {"caption": samples[2]["caption"]}]
    values = restored((model, catalog, tokenizers, alone), 0.5)
    assert [[v is None for v in row] for row in values] == [
        [False] * 6,
        [False] * 3 + [True] * 3,
        [True] * 3 + [False] * 3,
    ]


def test_words_light_the_picture_where_they_look(given, monkeypatch) -> None:
    model, catalog, tokenizers, samples = given
    batch = mask_values(samples, catalog, tokenizers)
    text = batch.groups[0].parts["caption"]
    first, N = 1 + 64, 1 + 64 + text.masked.shape[1]
    weights = torch.full((2, 3, 2, N, N), 1 / N)
    pieces = [tokenizers["caption"].text.piece(i) for i in text.content[0].tolist()]
    word = next(p for p in pieces if p.isalpha() and len(p) > 3)
    for place, piece in enumerate(pieces):
        if piece == word:
            weights[:, 0, :, first + place, 1 + 63] = 0.5  # the last patch
    monkeypatch.setattr(model, "attention", lambda parts: weights)
    sheet = attention_sheet(*given)
    assert sheet is not None and len(sheet.rows) == 3
    tiles = sheet.rows[0].tiles
    (lit,) = [tile.value for tile in tiles if tile.note == word]
    share = lit.astype(float).sum(axis=-1) / np.maximum(samples[0]["rgb"].astype(float).sum(axis=-1), 1)
    assert share[56:, 56:].mean() > 0.7 and share[:48].mean() < 0.2
    assert 2 <= len(tiles) <= 1 + MOST_WORDS


def test_no_words_no_sheet(given, scenes_catalog: Catalog) -> None:
    _, _, tokenizers, samples = given
    pictures = scenes_catalog.subset(["rgb"])
    assert attention_sheet(M3AE(pictures, TINY), pictures, {}, samples) is None
    only = [{"rgb": s["rgb"]} for s in samples]
    assert attention_sheet(given[0], given[1], tokenizers, only) is None


def test_nothing_hidden_is_the_default(given) -> None:
    _, catalog, tokenizers, samples = given
    (group,) = mask_values(samples, catalog, tokenizers).groups
    assert not group.parts["rgb"].masked.any() and group.samples.tolist() == [0, 1, 2]
    (group,) = mask_values(samples, catalog, tokenizers, MaskRatio(), seed=3).groups
    assert group.parts["rgb"].masked.float().mean() == 0.75
