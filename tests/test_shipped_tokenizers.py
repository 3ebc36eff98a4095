"""The tokenizers `picture-p8` and `picture-p16`, which ship with the package: small, found by their names, and good on photographs that they never saw."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_rules import ROOT

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import catalog_from
from maskweave.modality.entry import Modality
from maskweave.provenance import read_provenance
from maskweave.shipped import PACKAGE, shipped_tokenizer
from maskweave.tokenizers.pretrained import load_pretrained

LEAST = {8: 25.0, 16: 20.0}
"""Peak signal-to-noise ratio in dB that a photograph has at least, by the side of a patch; one color has 12."""


def entry(side: int, height: int, width: int) -> Modality:
    content = {
        "id": 9,
        "kind": "grid",
        "grid": [height // side, width // side],
        "value": {"type": "image", "size": [height, width], "channels": 3},
        "tokenizer": {"pretrained": f"picture-p{side}"},
    }
    return catalog_from({"modalities": {"photo": content}}, "mine.yaml")["photo"]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A part of a photograph that is left for measuring, 128×192."""
    skimage = pytest.importorskip("skimage")
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as picture:
        return np.asarray(picture.convert("RGB"))[100:228, 200:392]


@pytest.mark.parametrize("side", LEAST)
def test_a_photograph_stays_recognizable(side: int, photograph: np.ndarray) -> None:
    """As one grid of another size than that of training, and in tiles of that size."""
    tokenizer = load_pretrained(entry(side, *photograph.shape[:2]))
    ids = tokenizer.encode(photograph[None])
    assert ids.shape == (1, 128 // side, 192 // side) and len(ids.unique()) > ids.numel() / 2
    tiled = photograph.reshape(2, 64, 3, 64, 3).swapaxes(1, 2).reshape(6, 64, 64, 3)
    tiles = load_pretrained(entry(side, 64, 64))
    found = {"one grid": (tokenizer.decode(ids)[0], photograph), "tiles": (tiles.decode(tiles.encode(tiled)), tiled)}
    for name, (decoded, true) in found.items():
        ratio = 10 * np.log10(255**2 / np.square(decoded.astype(float) - true).mean())
        assert ratio > LEAST[side], name


def test_they_are_no_bundles() -> None:
    with pytest.raises(
        MaskweaveError, match=r"picture-p8: is a tokenizer without a model; .*\{pretrained: picture-p8\}"
    ):
        maskweave.load("picture-p8")


def test_they_are_small_and_say_where_they_come_from() -> None:
    folders = [shipped_tokenizer(f"picture-p{side}") for side in LEAST]
    assert sum(path.stat().st_size for folder in folders if folder for path in folder.iterdir()) < 10e6
    for folder in folders:
        assert folder is not None and read_provenance(folder).license == "apache-2.0"
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert f"tokenizer: {{pretrained: {folder.name}}}" in card and "JPEG" in card


def test_texts_name_all_weights_that_ship() -> None:
    answer = (
        (ROOT / "docs/questions.md").read_text(encoding="utf-8").split("## Which licenses hold?")[1].split("\n## ")[0]
    )
    tree = re.search(r"^  bundles/ .*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    folders = [path.name for path in (PACKAGE / "bundles").iterdir()]
    assert len(folders) >= 3 and tree
    assert [name for name in folders if f"`{name}`" not in answer or name not in tree[0]] == []
