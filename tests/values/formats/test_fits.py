"""FITS images and tables."""

import io
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from format_helpers import assert_needs, stored, value

from maskweave.errors import BadSample, MaskweaveError

RNG = np.random.default_rng(0)
FLUX = RNG.normal(size=40).astype(np.float32)
FLUX[7] = np.nan


def written(*hdus: Any) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer)
    return buffer.getvalue()


def table(name: str = "", rows: int = 40, **columns: Any) -> Any:
    """A table with columns of (format, values)."""
    made = [
        fits.Column(key, form, array=array[:rows], **more)
        for key, (form, array, *rest) in columns.items()
        for more in [rest[0] if rest else {}]
    ]
    return fits.BinTableHDU.from_columns(made, name=name)


SPECTRUM = written(
    table(
        "COADD",
        loglam=("E", np.linspace(3.5, 4, 40)),
        flux=("E", FLUX),
        ivar=("D", np.ones(40)),
        mask=("J", np.arange(40)),
        tag=("3A", np.full(40, "abc")),
    )
)


def test_the_entry_names_the_column() -> None:
    for name in ("flux", "FLUX", "COADD/flux"):
        found = stored(SPECTRUM, "fits", axes=1, array=name).array
        np.testing.assert_equal(found, FLUX)
        assert found.dtype == np.float32 and found.dtype.isnative and found.flags.writeable
    with pytest.raises(
        BadSample, match=r"found 4 arrays: COADD/loglam, COADD/flux, COADD/ivar, COADD/mask; expected one; name the one"
    ):
        stored(SPECTRUM, "fits")
    with pytest.raises(BadSample, match="expected 'tag'"):
        stored(SPECTRUM, "fits", array="tag")
    found = value(type="map", size=[40], range=[0, 40], array="mask").read(SPECTRUM, "fits", "x")
    np.testing.assert_equal(found, np.arange(40))


def test_a_name_in_two_tables_needs_its_table() -> None:
    content = written(table("B", flux=("E", FLUX)), table("R", flux=("E", FLUX * 2)))
    with pytest.raises(
        BadSample, match="found 2 arrays for value.array 'flux': B/flux, R/flux; expected the full name of one"
    ):
        stored(content, "fits", array="flux")
    np.testing.assert_equal(stored(content, "fits", array="R/flux").array, FLUX * 2)


def test_cells_of_several_numbers() -> None:
    rows = RNG.normal(size=(5, 4))
    np.testing.assert_equal(stored(written(table(c=("4D", rows))), "fits", axes=1).array, rows)
    np.testing.assert_equal(stored(written(table(c=("4D", rows), rows=1)), "fits", axes=1).array, rows[0])
    uneven = fits.Column("c", "PE()", array=np.array([np.ones(2), np.ones(3)], dtype=object))
    with pytest.raises(BadSample, match="found no array of numbers in the file"):
        stored(written(fits.BinTableHDU.from_columns([uneven])), "fits")


def test_null_and_blank_are_missing() -> None:
    numbers = np.array([3, -999, 5])
    found = stored(written(table(c=("J", numbers, {"null": -999}))), "fits", axes=1)
    np.testing.assert_equal(found.numbers(), [3, np.nan, 5])
    for blank in (0, -1):
        image = fits.ImageHDU(np.array([[1, blank]], np.int16))
        image.header["BLANK"] = blank
        np.testing.assert_equal(stored(written(image), "fits").ids(), [[1, -1]])
        np.testing.assert_equal(stored(written(image), "fits").numbers(), [[1, np.nan]])
    scaled = fits.ImageHDU(np.array([[1, 7]], np.int16))
    scaled.header["BLANK"], scaled.header["BSCALE"], scaled.header["BZERO"] = 7, 0.5, 1.0
    np.testing.assert_equal(stored(written(scaled), "fits").numbers(), [[1.5, np.nan]])


def test_images_and_the_planes_of_a_cube() -> None:
    plane, cube = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=(3, 4, 6)).astype(np.float32)
    content = written(fits.ImageHDU(plane, name="SCI"), fits.ImageHDU(cube, name="BANDS"))
    np.testing.assert_equal(stored(content, "fit", array="sci").array, plane)
    found = stored(content, "fits", array="BANDS", channels=3).array
    np.testing.assert_equal(found, np.moveaxis(cube, 0, -1))
    assert found.flags.c_contiguous
    np.testing.assert_equal(stored(content, "fits", array="BANDS", axes=3).array, cube)
    with pytest.raises(BadSample, match="found 2 arrays: SCI, BANDS"):
        stored(content, "fits")
    buffer = io.BytesIO()
    fits.PrimaryHDU(plane).writeto(buffer)
    np.testing.assert_equal(stored(buffer.getvalue(), "fits").array, plane)
    bands = value(type="map", size=[4, 6], channels=3, range=[-9, 9], array="BANDS").read(content, "fits", "x")
    assert bands.shape == (4, 6, 3)


def test_scaled_unsigned_and_compressed_images() -> None:
    for name in ("u2", "u4", "u8", "i1"):  # stored with BZERO
        info = np.iinfo(name)
        shifted = np.array([[info.min, 1, info.max]], name)
        found = stored(written(fits.ImageHDU(shifted)), "fits").array
        assert found.dtype == shifted.dtype
        np.testing.assert_equal(found, shifted)
    scaled = fits.ImageHDU(np.array([[0.5, 1.0]], np.float32))
    scaled.scale("int16", bscale=0.5, bzero=0.5)
    np.testing.assert_equal(stored(written(scaled), "fits").array, [[0.5, 1.0]])
    for plain in (RNG.integers(0, 99, (16, 16), np.int16), RNG.integers(0, 60_000, (16, 16), np.uint16)):
        found = stored(written(fits.CompImageHDU(plain)), "fits").array
        assert found.dtype == plain.dtype
        np.testing.assert_equal(found, plain)


def lying(content: bytes, key: str, number: int) -> bytes:
    card, new = f"{key:<8}= ".encode(), f"{number:>20}".encode()
    at = content.rindex(card) + len(card)
    return content[:at] + new + content[at + 20 :]


IMAGE = written(fits.ImageHDU(RNG.normal(size=(40, 40))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "found no FITS file"),
        (b"\x1f\x8b" + b"\0" * 99, "found no FITS file; expected one that starts with SIMPLE; unpack"),
        (b"SIMPLE  = T", "(corrupt or truncated FITS file|found no array)"),
        (IMAGE[: len(IMAGE) // 2], "truncated after HDU 1: the file has 10,080 bytes, expected 18,560 or more"),
        (SPECTRUM[:6000], "truncated after HDU 1: "),
        (SPECTRUM[:5000], "truncated after HDU 0: "),
        (lying(IMAGE, "NAXIS1", 1_000_000_000), "truncated after HDU 1: "),
        (written(), "found no array of numbers in the file"),
    ],
)
def test_bad_files(content: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=f"in/x.fits: {message}"):
        stored(content, "fits")


def test_compressed_images_are_refused_by_their_own_size() -> None:
    content = written(fits.CompImageHDU(np.zeros((16, 16), np.int16)))
    with pytest.raises(BadSample, match="takes 128,000,000,000 bytes; expected at most|corrupt"):
        stored(lying(content, "ZNAXIS1", 1_000_000_000), "fits")


def test_without_astropy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_needs("astropy", "astro", IMAGE, "fits", monkeypatch)


def test_several_columns_are_channels() -> None:
    one = {"type": "series", "size": [40], "missing": "nan", "mean": 0, "std": 1}
    entry = value(**one, channels=["flux", "sky"], array=["flux", "COADD/mask"])
    found = entry.read(SPECTRUM, "fits", "x")
    np.testing.assert_equal(found, np.stack([FLUX, np.arange(40)], axis=1).astype(np.float32))
    content, ending = entry.write(found)
    np.testing.assert_equal(entry.read(content, ending, "x"), found)
    on_axis = value(
        type="series", size=[20], missing="nan", mean=0, std=1, channels=2, array=["mask", "ivar"],
        axis={"from": 3.5, "to": 4, "array": "loglam"},
    )  # fmt: skip
    resampled = on_axis.read(SPECTRUM, "fits", "x")
    assert resampled.shape == (20, 2) and resampled[-2, 0] > 35 and (resampled[2:-2, 1] == 1).all()
    image = written(fits.ImageHDU(np.ones((4, 6), np.int16), name="SKY"), fits.ImageHDU(np.ones((4, 5)), name="SCI"))
    planes = value(type="map", size=[4, 6], range=[0, 9], channels=2, array=["sci", "sky"])
    with pytest.raises(BadSample, match=r"arrays of the shapes sci \(4, 5\), sky \(4, 6\); expected one shape"):
        planes.read(image, "fits", "x")
    for wrong in ({**one, "channels": 3}, {**one, "channels": 1}, {"type": "vector", "channels": 2}):
        with pytest.raises(MaskweaveError, match="value.array may list one array for each channel"):
            value(**wrong, array=["flux", "sky"]).check_settings("grid")
