"""GeoTIFF and plain TIFF: bands, nodata, masks, scale tags, damaged files."""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from format_helpers import assert_needs, stored, value
from PIL import Image

from maskweave.errors import BadSample
from maskweave.values.remarks import listening

BANDS = np.random.default_rng(0).integers(1, 60_000, (6, 8, 12), np.uint16)


def tif(
    array: np.ndarray, names: Any = (), scales: Any = (), offsets: Any = (), mask: Any = None, **options: Any
) -> bytes:
    """A GeoTIFF of (height, width, bands)."""
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin

    array = array if array.ndim == 3 else array[..., None]
    shape: dict[str, Any] = dict(zip(("height", "width", "count"), array.shape, strict=True))
    options = {"dtype": array.dtype, "crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 10, 10), **options}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(driver="GTiff", **shape, **options) as dataset:
            dataset.write(np.moveaxis(array, -1, 0))
            if mask is not None:
                dataset.write_mask(mask)
            for name, given in (("descriptions", names), ("scales", scales), ("offsets", offsets)):
                if given:
                    setattr(dataset, name, given)
        return bytes(memory.getbuffer())


def test_bands_are_the_last_axis() -> None:
    found = stored(tif(BANDS), "tif")
    assert found.known is None and found.array.dtype == np.uint16 and found.array.flags.c_contiguous
    np.testing.assert_equal(found.array, BANDS)
    np.testing.assert_equal(stored(tif(BANDS[..., 0]), "tif").array, BANDS[..., 0])


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "deflate", "predictor": 2},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "band"},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
    ],
)
def test_every_layout(options: dict[str, Any]) -> None:
    found = stored(tif(BANDS, **options), "tiff").array
    np.testing.assert_equal(found, BANDS)
    assert found.dtype.isnative


def test_a_plain_tiff_of_another_program() -> None:
    buffer = io.BytesIO()
    Image.fromarray(BANDS[..., 0]).save(buffer, "TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_equal(stored(buffer.getvalue(), "tif").array, BANDS[..., 0])


def test_bands_by_number_and_description() -> None:
    content = tif(BANDS, names=[f"B{i:02d}" for i in range(1, 13)])
    found = value(type="map", size=[6, 8], channels=3, range=[0, 65535], bands=["B03", 1, "B12"]).read(
        content, "tif", "x"
    )
    np.testing.assert_equal(found, BANDS[..., [2, 0, 11]])
    found = value(type="map", size=[6, 8], range=[0, 65535], bands=[12]).read(content, "tif", "x")
    np.testing.assert_equal(found, BANDS[..., 11])
    with pytest.raises(BadSample, match=r"found 12 bands described as B01, .*; expected band 'B8A'"):
        stored(content, "tif", bands=("B8A",))
    with pytest.raises(BadSample, match=r"found 12 bands described as .*; expected band 13"):
        stored(content, "tif", bands=(13,))
    with pytest.raises(
        BadSample, match="found 12 bands without descriptions, so they have only numbers; expected band 'B02'"
    ):
        stored(tif(BANDS), "tif", bands=("B02",))


def test_nodata_is_missing() -> None:
    holes = BANDS.copy()
    holes[:, :2] = 0
    found = stored(tif(holes, nodata=0), "tif")
    assert found.known is not None and not found.known[:, :2].any() and found.known[:, 2:].all()
    numbers = found.numbers()
    assert numbers.dtype == np.float32 and np.isnan(numbers[:, :2]).all()
    np.testing.assert_equal(numbers[:, 2:], BANDS[:, 2:])
    ids = stored(tif(np.array([[0, 1, 255]], np.uint8), nodata=255), "tif").ids()
    np.testing.assert_equal(ids, [[0, 1, -1]])
    radar = np.array([[np.nan, -12.5]], np.float32)
    np.testing.assert_equal(stored(tif(radar, nodata=np.nan), "tif").numbers(), radar)
    np.testing.assert_equal(stored(tif(radar), "tif").numbers(), radar)
    np.testing.assert_equal(
        stored(tif(np.array([[-9999, 3]], np.float64), nodata=-9999), "tif").numbers(), [[np.nan, 3]]
    )


def test_entries_allow_what_a_file_marks_as_missing() -> None:
    content = tif(np.array([[0, 1000], [2000, 3000]], np.uint16), nodata=0)
    entry: dict[str, Any] = {"type": "map", "size": [2, 2], "range": [1, 3], "scale": 0.001}
    np.testing.assert_allclose(value(**entry, missing="nan").read(content, "tif", "x"), [[np.nan, 1], [2, 3]])
    np.testing.assert_allclose(value(**entry, missing=2000).read(content, "tif", "x"), [[np.nan, 1], [np.nan, 3]])
    with pytest.raises(BadSample, match="1 of 4 values NaN"):
        value(**entry).read(content, "tif", "x")
    ids, classes = (
        tif(np.array([[0, 1], [255, 2]], np.uint8), nodata=255),
        {"type": "classes", "size": [2, 2], "classes": ["a", "b", "c"]},
    )
    np.testing.assert_equal(value(**classes, ignore=254).read(ids, "tif", "x"), [[0, 1], [-1, 2]])
    with pytest.raises(BadSample, match="class ids from -1 to 2"):
        value(**classes).read(ids, "tif", "x")


def test_a_mask_and_an_alpha_band_are_missing_points() -> None:
    mask = np.array([[255, 0, 255]], np.uint8)
    np.testing.assert_equal(
        stored(tif(np.array([[0.5, 1, 2]], np.float32), mask=mask), "tif").numbers(), [[0.5, np.nan, 2]]
    )
    both = np.stack([np.array([[7, 8, 9]], np.uint8), mask], -1)
    content = tif(both, photometric="MINISBLACK", ALPHA="YES")
    np.testing.assert_equal(stored(content, "tif", bands=(1,)).ids(), [[7, -1, 9]])


def test_scale_tags_are_applied_if_the_entry_says_so_and_else_told() -> None:
    content = tif(BANDS[..., :2], scales=(1e-4, 1e-3), offsets=(-0.1, 0))
    entry: dict[str, Any] = {"type": "map", "size": [6, 8], "channels": 2}
    found = value(**entry, range=[-1, 60], use_scale_tags=True).read(content, "tif", "x")
    np.testing.assert_allclose(found, BANDS[..., :2] * [1e-4, 1e-3] + [-0.1, 0], rtol=1e-5)
    said: list[str] = []
    with listening(said.append):
        found = value(**entry, range=[0, 65535]).read(content, "tif", "x")
    np.testing.assert_equal(found, BANDS[..., :2])
    assert said == [
        "scale tags (0.0001, 0.001) and offset tags (-0.1, 0.0) of TIFF files, ignored; use_scale_tags: true applies them"
    ]
    with pytest.raises(BadSample, match="found scale tags 0.0 and offset tags"):
        stored(tif(BANDS[..., 0], scales=(0,), offsets=(1,)), "tif")


def test_photographs_need_no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = BANDS[..., :3].astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "TIFF")
    geo, many = tif(picture), tif(BANDS[..., :5].astype(np.uint8))
    chosen = value(type="image", size=[6, 8], channels=3, bands=[5, 1, 2]).read(many, "tif", "x")
    np.testing.assert_equal(chosen, BANDS[..., [4, 0, 1]].astype(np.uint8))
    assert_needs("rasterio", "geo", geo, "tif", monkeypatch)
    entry = value(type="image", size=[6, 8], channels=3)
    for content in (buffer.getvalue(), geo):
        np.testing.assert_equal(entry.read(content, "tif", "x"), picture)
    with pytest.raises(BadSample, match="8 bits a channel"):
        entry.read(tif_of_16_bits(), "tif", "x")


def tif_of_16_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(BANDS[..., 0]).save(buffer, "TIFF")
    return buffer.getvalue()


def test_pages_of_a_photograph_are_refused_but_not_its_overviews(tmp_path: Path) -> None:
    pages, buffer = [Image.fromarray(np.full((8, 8, 3), i, np.uint8)) for i in range(3)], io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    entry = value(type="image", size=[8, 8], channels=3)
    with pytest.raises(BadSample, match="found 3 pictures in one file"):
        entry.read(buffer.getvalue(), "tif", "x")
    (tmp_path / "x.tif").write_bytes(tif(np.full((64, 64, 3), 9, np.uint8)))
    with rasterio.open(tmp_path / "x.tif", "r+") as dataset:
        dataset.build_overviews([2, 4])
    content = (tmp_path / "x.tif").read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == 3
    assert entry.read(content, "tif", "x").shape == (64, 64, 3)


def test_one_class_per_point() -> None:
    entry = value(type="classes", size=[2, 2], classes=["a", "b", "c"])
    ids = np.array([[0, 1], [2, 2]], np.uint8)
    np.testing.assert_equal(entry.read(tif(ids), "tif", "x"), ids)
    with pytest.raises(BadSample, match=r"found shape \(6, 8, 12\); expected \(height, width\)"):
        entry.read(tif(BANDS), "tif", "x")


def lying(content: bytes, tag: int, number: int) -> bytes:
    """A little-endian TIFF whose first folder states another number for a tag."""
    start = struct.unpack_from("<I", content, 4)[0]
    for i in range(struct.unpack_from("<H", content, start)[0]):
        at = start + 2 + 12 * i
        if struct.unpack_from("<H", content, at)[0] == tag:
            return content[: at + 2] + struct.pack("<HII", 4, 1, number) + content[at + 12 :]
    raise AssertionError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<VRTDataset rasterXSize='1' rasterYSize='1'/>", "found no TIFF"),
        (b"II*\0" + b"\0" * 40, "corrupt or truncated TIFF"),
        (tif(BANDS)[:400], "corrupt or truncated TIFF"),
        (tif(BANDS, compress="deflate")[:-100], "corrupt or truncated TIFF"),
        (
            lying(lying(tif(BANDS[..., 0]), 256, 100_000), 257, 100_000),
            "100000 × 100000 pixels; expected at most 64,000,000",
        ),
        (lying(tif(BANDS[..., 0]), 256, 30_000_000), "30000000 × 6 pixels; expected at most"),
        (tif(np.ones((2, 2), np.complex64)), "found bands of complex64; expected real numbers"),
    ],
)
def test_bad_files(content: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=f"in/x.tif: {message}"):
        stored(content, "tif")


def test_a_large_array_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskweave.values.files.MAX_ARRAY_BYTES", 1000)
    with pytest.raises(BadSample, match=r"shape \(6, 8, 12\) of uint16 takes 1,152 bytes; expected at most 1,000"):
        stored(tif(BANDS), "tif")


@pytest.mark.parametrize(("dtype", "is_read"), [("uint16", True), ("float32", False)])
def test_blocks_are_refused_by_their_bytes(dtype: str, is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one point decodes a block of 16 × 16 points: 512 or 1,024 bytes."""
    monkeypatch.setattr("maskweave.values.files.max_value_bytes", lambda: 1000)
    content = tif(np.ones((4, 4), dtype), tiled=True, blockxsize=16, blockysize=16)
    if is_read:
        assert stored(content, "tif").array.sum() == 16
        return
    with pytest.raises(BadSample, match=r"found blocks of 16 × 16 pixels; expected at most 1,000 bytes"):
        stored(content, "tif")


def test_settings_of_bands() -> None:
    from maskweave.errors import MaskweaveError

    with pytest.raises(MaskweaveError, match=r"value.bands needs one band per channel \(3\), found 2"):
        value(type="map", size=[6, 8], channels=3, range=[0, 1], bands=[1, 2])
    with pytest.raises(MaskweaveError, match=r"value.bands are those of TIFF files.*found value.size \[6\]"):
        value(type="map", size=[6], range=[0, 1], bands=[1])
    with pytest.raises(
        MaskweaveError, match=r"modality 'thing': 'value.bands.0' expects a whole number or text, found 1.5"
    ):
        value(type="map", size=[6, 8], range=[0, 1], bands=[1.5])
