"""Regions: masks, boxes, shares and parts of a text, and what of the given values they take away."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from tiny_catalog import TEXT, tiny

from maskweave.errors import MaskweaveError
from maskweave.generate.editing import grid_region, keep_rest, sequence_region, touched
from maskweave.generate.token_state import TokenState
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer

CATALOG = tiny()
CODES, CAPTION = CATALOG["codes"], CATALOG["caption"]


def region(what) -> np.ndarray:
    return touched(grid_region(what, CODES, np.random.default_rng(0)), CODES.grid)


def test_a_token_is_made_anew_if_one_of_its_pixels_is() -> None:
    mask = np.zeros((8, 8), bool)
    mask[3, 4] = True
    expected = np.zeros((4, 4), bool)
    expected[1, 2] = True
    np.testing.assert_array_equal(region(mask), expected)
    np.testing.assert_array_equal(region(expected), expected)  # of the grid's own size
    np.testing.assert_array_equal(region(mask.astype(np.uint8) * 255), expected)
    np.testing.assert_array_equal(region(np.kron(mask, np.ones((5, 5), bool))), expected)  # of a larger picture
    coarse = np.array([[False, True], [False, False]])
    np.testing.assert_array_equal(region(coarse), np.kron(coarse, np.ones((2, 2), bool)))
    assert touched(np.ones(5, bool), (3,)).all() and touched(np.eye(3, dtype=bool), (2, 2)).tolist() == [
        [True, True],
        [True, True],
    ]


def test_a_mask_is_cropped_like_its_picture() -> None:
    wide = np.zeros((8, 16), bool)
    wide[:, :4] = True
    assert not region(wide).any(), "only the outer quarter, which is cut off"
    wide[:, 4:6] = True
    assert region(wide).sum(axis=0).tolist() == [4, 0, 0, 0]


def test_words_of_a_text_of_bytes_are_edited_with_their_space() -> None:
    vocabulary = dataclasses.replace(TEXT, size=600, type="byte_bpe")
    catalog = Catalog([CAPTION], [vocabulary])
    tokenizer = SequenceTokenizer(CAPTION, TextTokenizer.train(vocabulary, ["Ein rotes Auto, rotes Haus"] * 9))
    ids = np.array(tokenizer.encode(["Ein rotes Haus"])[0])
    rng = np.random.default_rng(0)
    anew = sequence_region("rotes", catalog, CAPTION, tokenizer, ids, rng)
    assert tokenizer.decode([ids[anew], ids[~anew]]) == [" rotes", "Ein Haus"]
    with pytest.raises(MaskweaveError, match="'blaues' is not a part of the given text"):
        sequence_region("blaues", catalog, CAPTION, tokenizer, ids, rng)


def test_boxes_and_shares() -> None:
    assert region([0.5, 0.0, 1.0, 0.25]).tolist() == [[False, False, True, True], *[[False] * 4] * 3]
    assert region([0.1, 0.1, 0.2, 0.2]).sum() == 1
    assert region(0.25).sum() == 4 and region(0).sum() == 0 and region(1.0).all()
    assert (region(0.5) == region(0.5)).all()


def test_a_mask_from_a_file(tmp_path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert region(tmp_path / "mask.png").sum() == region(str(tmp_path / "mask.png")).sum() == 4


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ([0.5, 0, 0.4, 1], "found the box [0.5, 0, 0.4, 1]"),
        (1.5, "found 1.5; expected a share from 0 to 1"),
        (np.zeros((2, 2, 2), bool), "found bool of shape (2, 2, 2); expected a mask of (height, width)"),
        (np.zeros((8, 8)), "found float64"),
        ("nothing.png", "nothing.png: no such file; expected a mask"),
    ],
)
def test_regions_that_do_not_fit(what, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        region(what)
    assert message in str(caught.value) and "edit of 'codes'" in str(caught.value)


def test_patches_of_the_same_picture_lose_the_region_too() -> None:
    given = {
        "photo": TokenState(np.ones((2, 16), bool), rows=np.zeros((2, 16, 12), np.float32)),
        "codes": TokenState(np.ones((2, 16), bool), np.arange(32).reshape(2, 16)),
        "spectrum": TokenState(np.ones((2, 5), bool), np.zeros((2, 5), int)),
    }
    anew = np.zeros((4, 4), bool)
    anew[:2, :2] = True
    rest, started = keep_rest(CATALOG, given, [{"codes": np.kron(anew, np.ones((2, 2), bool))}, {}])
    assert (started["codes"].mask[0] == ~anew.flatten()).all() and not started["codes"].mask[1].any()
    assert (rest["photo"].mask[0] == ~anew.flatten()).all() and rest["photo"].mask[1].all()
    assert set(rest) == {"photo", "spectrum"} and given["photo"].mask.all() and given["codes"].mask.all()


def test_tokens_of_another_grid_of_the_same_picture_are_all_lost() -> None:
    """Each token of a row, as TiTok writes it, may tell of the whole picture."""
    value = {"type": "image", "size": [8, 8], "channels": 3}
    row = {
        "id": 2,
        "kind": "grid",
        "grid": [3],
        "source": "photo",
        "value": value,
        "tokenizer": {"external": "a/b", "codes": 16},
    }
    entries = {"photo": {"id": 1, "kind": "grid", "grid": [4, 4], "value": value}, "row": row}
    catalog = catalog_from({"modalities": entries}, "own")
    given = {
        "photo": TokenState(np.ones((2, 16), bool), np.zeros((2, 16), int)),
        "row": TokenState(np.ones((2, 3), bool), np.zeros((2, 3), int)),
    }
    corner = np.zeros((8, 8), bool)
    corner[0, 0] = True
    rest, started = keep_rest(catalog, given, [{"photo": corner}, {"photo": np.zeros((8, 8), bool)}])
    assert rest["row"].mask.tolist() == [[False] * 3, [True] * 3] and started["photo"].mask.sum(axis=1).tolist() == [
        15,
        16,
    ]
    second = grid_region(np.array([False, True, False]), catalog["row"], np.random.default_rng(0))
    rest, started = keep_rest(catalog, given, [{"row": second}, {}])
    assert not rest["photo"].mask[0].any() and rest["photo"].mask[1].all()
    assert started["row"].mask[0].tolist() == [True, False, True]
    assert grid_region(1 / 3, catalog["row"], np.random.default_rng(0)).sum() == 1
    with pytest.raises(MaskweaveError, match="expected a mask of 1 axes or a share"):
        grid_region([0.0, 0.0, 0.5, 0.5], catalog["row"], np.random.default_rng(0))


def text_region(what, text="a red cube on a red table") -> list[str]:
    tokenizer = SequenceTokenizer(CAPTION, TextTokenizer.train(TEXT, ["a red cube on a table"]))
    ids = np.array(tokenizer.encode([text])[0])
    anew = sequence_region(what, CATALOG, CAPTION, tokenizer, ids, np.random.default_rng(0))
    return [tokenizer.text.piece(id) for id in ids[anew]]


def test_parts_of_a_text() -> None:
    assert text_region("red cube") == ["red", "cube"]
    assert text_region("red") == ["red", "red"]
    assert text_region(1.0)[-1] == "[EOS]" and text_region(0) == []
    assert text_region(np.array([True] + [False] * 7)) == ["a"]
    for what, message in (
        ("blue", "'blue' is not a part of the given text"),
        ("", "'' is not a part"),
        (np.zeros(3, bool), "expected a bool for each of 8 tokens"),
    ):
        with pytest.raises(MaskweaveError, match=message):
            text_region(what)


def test_chunks_are_made_anew_as_one() -> None:
    ids = np.arange(100, 109)
    for seed in range(5):
        anew = sequence_region(0.5, CATALOG, CATALOG["facts"], None, ids, np.random.default_rng(seed))
        assert (anew[0:8:2] == anew[1:8:2]).all() and anew.any()
    many = np.arange(15) % 2 == 0
    with pytest.raises(MaskweaveError, match="found 8 gaps; expected at most 6"):
        sequence_region(many, CATALOG, CAPTION, None, np.arange(15), np.random.default_rng(0))
