"""Pictures below a folder: which files count, and what is said of those that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.data.pictures import Pictures, files_under
from maskweave.data.source import Source
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.values.files import MAX_BYTES, PICTURES, read_value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("b.png", "a/c.JPG", "a/.hidden.png", ".cache/d.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(root / name)
    (root / "notes.txt").write_text("left aside", encoding="utf-8")
    (root / "link.png").symlink_to(root / "b.png")
    (root / "folder.png").mkdir()
    return root


def test_hidden_files_links_and_others_are_left_aside(folder: Path) -> None:
    assert files_under(folder, PICTURES) == [folder / "a" / "c.JPG", folder / "b.png"]


def test_pictures_are_samples(folder: Path, scenes_catalog: Catalog) -> None:
    found = Pictures(folder, scenes_catalog["rgb"])
    assert (
        isinstance(found, Source)
        and found.names == ("rgb",)
        and [found.key(i) for i in range(2)] == ["a/c.JPG", "b.png"]
    )
    assert found[1]["rgb"].shape == (64, 64, 3) and found[1]["rgb"][0, 0, 0] == 90
    with pytest.raises(MaskweaveError, match="contains no pictures"):
        Pictures(folder / "folder.png", scenes_catalog["rgb"])


def test_files_that_cannot_be_read(folder: Path, scenes_catalog: Catalog) -> None:
    rgb = scenes_catalog["rgb"]
    with pytest.raises(BadSample, match="gone.png: cannot be read: No such file"):
        read_value(folder / "gone.png", rgb.value)
    with open(folder / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: takes no room
    with pytest.raises(BadSample, match=r"large.png: 268,435,457 bytes; expected at most 268,435,456"):
        read_value(folder / "large.png", rgb.value)
    with pytest.raises(
        BadSample,
        match="^the photo: a file that ends in 'txt' cannot hold values of type 'image'; expected png, jpg, jpeg, webp, bmp, gif, tif, tiff, npy",
    ):
        read_value(folder / "notes.txt", rgb.value, "the photo")
