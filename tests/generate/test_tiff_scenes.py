"""Windows of TIFF scenes are those parts of the whole file: transparent, palette, turned and inverted pictures, too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from maskweave.generate import scenes
from maskweave.generate.scenes import open_plane
from maskweave.modality.entry import Modality
from maskweave.values.files import read_value
from maskweave.values.formats import tiff
from maskweave.values.image import Image
from maskweave.values.map import Map

rasterio = pytest.importorskip("rasterio")
LEVELS = np.random.default_rng(0).integers(0, 256, (40, 24, 4)).astype(np.uint8)
BOX = ((5, 13), (10, 18))
LAYOUTS: dict[str, tuple[Any, ...]] = {
    "RGB": (), "L": (), "RGBA": (), "LA": (), "P": (), "1": (), "CMYK": (), "turned": (274, 6), "mirrored": (274, 2), "white is 0": (262, 0), "premultiplied": ("PREMULTIPLIED",), "fourth": ("UNSPECIFIED",),
}  # fmt: skip


def write(path: Path, layout: str) -> None:
    extra = LAYOUTS[layout]
    if len(extra) == 1:
        shape = {"height": 40, "width": 24, "count": 4, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", photometric="RGB", alpha=extra[0], **shape) as out:
            out.write(np.moveaxis(LEVELS, -1, 0))
        return
    if layout in ("CMYK", "RGBA"):
        picture = Picture.fromarray(LEVELS, layout)
    elif layout == "LA":
        picture = Picture.fromarray(LEVELS[..., :2], "LA")
    else:
        picture = Picture.fromarray(LEVELS[..., :3]).convert("L" if extra[:1] == (262,) else "RGB" if extra else layout)
    picture.save(path, tiffinfo=dict([extra]) if extra else {})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_window_is_a_part_of_the_whole(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene.tif"
    write(path, layout)
    with rasterio.open(path) as dataset:
        bands = dataset.count
    for value in (
        Image((8, 8), 3),
        Image((8, 8), 1),
        Image((8, 8), 3, valid="alpha"),
        Image((8, 8), bands if bands in (1, 3) else 4, bands=tuple(range(1, 1 + (bands if bands in (1, 3) else 4)))),
        Map((8, 8), bands, (0, 255), missing=("nan",)),
    ):
        if value.type == "image" and value.bands and bands not in (1, 3, 4):
            continue
        whole = read_value(path, value, "whole")
        read: list[Any] = []
        monkeypatch.setattr(scenes, "read_value", lambda *given, seen=read: seen.append(given) or read_value(*given))
        plane = open_plane(path, Modality("scene", 1, "patches", value, grid=(2, 2)))
        (y0, y1), (x0, x1) = BOX
        assert plane.shape == whole.shape[:2], value
        found = plane.window(y0, y1, x0, x1)
        np.testing.assert_array_equal(found, whole[y0:y1, x0:x1], str(value))
        if value.type == "map" or layout in ("RGB", "L"):
            assert not read, "read by windows"


def test_plain_photographs_of_both_formats(tmp_path: Path) -> None:
    for big in ("YES", "NO"):
        path = tmp_path / f"{big}.tif"
        shape = {"height": 40, "width": 24, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", photometric="RGB", BIGTIFF=big, **shape) as out:
            out.write(np.moveaxis(LEVELS[..., :3], -1, 0))
        assert tiff.is_plain_photograph(path)
