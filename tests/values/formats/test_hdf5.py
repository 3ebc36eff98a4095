"""HDF5 and NetCDF4."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from format_helpers import assert_needs, stored, value

from maskweave.errors import BadSample

GRID = np.arange(12, dtype=np.int16).reshape(3, 4)


def written(fill: Any, **options: Any) -> bytes:
    """An HDF5 file that a function fills."""
    import io

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def netcdf(file: Any) -> None:
    """As netCDF4 and xarray write it: coordinates are dimension scales, and a single number describes the projection."""
    for name, axis in (("lat", 3), ("lon", 4)):
        file[name] = np.arange(axis, dtype=np.float64)
        file[name].make_scale(name)
    file["crs"] = 0
    packed = file.create_dataset("elevation", data=GRID, chunks=(2, 2), compression="gzip", shuffle=True)
    packed.attrs["_FillValue"] = np.array([5], np.int16)
    packed.attrs["scale_factor"], packed.attrs["add_offset"] = 0.5, 100.0
    packed.attrs["units"] = "m"
    for i, name in enumerate(("lat", "lon")):
        packed.dims[i].attach_scale(file[name])


def test_packed_numbers_of_netcdf() -> None:
    found = stored(written(netcdf), "nc")
    numbers = found.numbers()
    expected = np.where(GRID == 5, np.nan, GRID * 0.5 + 100)
    np.testing.assert_equal(numbers, expected.astype(np.float32))
    assert numbers.dtype == np.float32
    assert stored(written(netcdf), "nc", array="lat").array.shape == (3,)


def test_fill_values_of_floats_and_ids() -> None:
    def fill(file: Any) -> None:
        for name, array in (("far", np.array([[1e20, 2]], np.float32)), ("what", np.array([[255, 2]], np.uint8))):
            file[name] = array
            file[name].attrs["missing_value"] = array[0, 0]

    np.testing.assert_equal(stored(written(fill), "h5", array="far").numbers(), [[np.nan, 2]])
    np.testing.assert_equal(stored(written(fill), "h5", array="what").ids(), [[-1, 2]])


def test_unsigned_numbers_stored_as_signed_ones() -> None:
    def fill(file: Any) -> None:
        file["x"] = np.array([-1, 1], np.int8)
        file["x"].attrs["_Unsigned"] = "true"

    np.testing.assert_equal(stored(written(fill), "nc").array, [255, 1])


def groups(file: Any) -> None:
    file["train/flux"], file["test/flux"], file["train/ivar"] = GRID, GRID * 2, GRID * 3
    file["names"] = np.array([b"a", b"b"])


def test_the_entry_names_the_dataset() -> None:
    content = written(groups)
    np.testing.assert_equal(stored(content, "hdf5", array="/test/flux").array, GRID * 2)
    np.testing.assert_equal(stored(content, "hdf5", array="ivar").array, GRID * 3)
    np.testing.assert_equal(
        value(type="map", size=[3, 4], range=[0, 99], array="ivar").read(content, "h5", "x"), GRID * 3
    )
    with pytest.raises(
        BadSample, match="found 3 arrays: test/flux, train/flux, train/ivar; expected one; name the one to read"
    ):
        stored(content, "h5")
    with pytest.raises(
        BadSample, match="found 2 arrays for value.array 'flux': test/flux, train/flux; expected the full name"
    ):
        stored(content, "h5", array="flux")
    with pytest.raises(BadSample, match="expected 'names'"):
        stored(content, "h5", array="names")


@pytest.mark.parametrize("dtype", ["?", "u1", ">i2", "<i8", "f2", ">f8"])
def test_every_type_of_number(dtype: str) -> None:
    array = np.array([[0, 1]], dtype)
    found = stored(written(lambda file: file.__setitem__("x", array)), "h5").array
    np.testing.assert_equal(found, array)
    assert found.dtype.isnative and found.flags.writeable


def test_nothing_outside_of_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\1" * 24)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = GRID

    def linked(file: Any) -> None:
        file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")

    def external(file: Any) -> None:
        file.create_dataset("x", (3, 4), np.int16, external=[(str(tmp_path / "secret.bin"), 0, 24)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((3, 4), np.int16)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3, 4))
        file.create_virtual_dataset("x", layout)

    with pytest.raises(BadSample, match="found no array of numbers in the file"):
        stored(written(linked), "h5")
    for fill in (external, virtual):
        with pytest.raises(BadSample, match=r"\(/x\): its numbers are in other files, which are not read"):
            stored(written(fill), "h5")


def test_a_large_array_is_refused_before_it_is_read() -> None:
    def sparse(file: Any) -> None:
        file.create_dataset("x", (10**6, 10**6), np.float32, chunks=(1000, 1000))

    def chunk(file: Any) -> None:
        file.create_dataset("x", (1,), np.float32, chunks=(500_000_000,), maxshape=(None,), compression="gzip")

    with pytest.raises(
        BadSample, match=r"in/x.h5 \(/x\): shape \(1000000, 1000000\) of float32 takes 4,000,000,000,000 bytes"
    ):
        stored(written(sparse), "h5")
    with pytest.raises(BadSample, match=r"\(/x\): a chunk: shape \(500000000,\) of float32 takes 2,000,000,000 bytes"):
        stored(written(chunk), "h5")


def test_objects_are_not_read() -> None:
    def fill(file: Any) -> None:
        file.create_dataset("x", (2,), h5py.vlen_dtype(np.float32))

    with pytest.raises(BadSample, match="found no array of numbers"):
        stored(written(fill), "h5")


WHOLE = written(
    lambda file: file.create_dataset("x", data=np.random.default_rng(0).normal(size=(50, 50)), compression="gzip")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "corrupt or truncated HDF5 file"),
        (WHOLE[:-2000], "corrupt or truncated HDF5 file"),
        (WHOLE[:3000] + b"\7" * 12_000 + WHOLE[15_000:], "corrupt or truncated HDF5 file"),
        (b"CDF\x01" + b"\0" * 99, "found classic NetCDF; expected NetCDF4; convert it: nccopy -k nc4"),
    ],
)
def test_bad_files(content: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=f"in/x.h5: {message}"):
        stored(content, "h5")


def test_bad_attributes() -> None:
    def fill(file: Any) -> None:
        file["x"] = GRID
        file["x"].attrs["scale_factor"] = "0.1"

    with pytest.raises(BadSample, match="found the attribute scale_factor '0.1'; expected one finite number"):
        stored(written(fill), "nc")


def test_without_h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_needs("h5py", "hdf", WHOLE, "h5", monkeypatch)
