"""Zarr in zip files, of both versions."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from format_helpers import assert_needs, stored, value

from maskweave.errors import BadSample

GRID = np.arange(12, dtype=np.int16).reshape(3, 4)


def written(folder: Path, version: int = 3, attributes: Any = None, **arrays: np.ndarray) -> bytes:
    """A zipped group of arrays."""
    path = folder / "x.zip"
    path.unlink(missing_ok=True)
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.create_group(store, zarr_format=version)
        for name, array in arrays.items():
            made = group.create_array(
                name, shape=array.shape, dtype=array.dtype, chunks=tuple(max(1, n // 2) for n in array.shape)
            )
            made[...] = array
            made.attrs.update((attributes or {}).get(name, {}))
    return path.read_bytes()


@pytest.mark.parametrize("version", [2, 3])
def test_the_entry_names_the_array(tmp_path: Path, version: int) -> None:
    content = written(tmp_path, version, flux=GRID, ivar=GRID * 2.5)
    np.testing.assert_equal(stored(content, "zarr.zip", array="ivar").array, GRID * 2.5)
    with pytest.raises(BadSample, match="found 2 arrays: flux, ivar; expected one"):
        stored(content, "zarr.zip")
    single = written(tmp_path, version, flux=GRID)
    found = stored(single, "zarr.zip").array
    np.testing.assert_equal(found, GRID)
    assert found.flags.writeable and found.dtype == np.int16
    np.testing.assert_equal(value(type="map", size=[3, 4], range=[0, 11]).read(single, "zarr.zip", "x"), GRID)


@pytest.mark.parametrize("version", [2, 3])
def test_an_array_alone_or_in_a_folder(tmp_path: Path, version: int) -> None:
    for prefix in ("", "scene.zarr/"):
        zarr.create_array(tmp_path / f"s{version}{len(prefix)}", data=GRID, chunks=(2, 2), zarr_format=version)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in (tmp_path / f"s{version}{len(prefix)}").rglob("*"):
                if path.is_file():
                    archive.write(path, prefix + path.relative_to(tmp_path / f"s{version}{len(prefix)}").as_posix())
        np.testing.assert_equal(stored(buffer.getvalue(), "zarr.zip").array, GRID)


@pytest.mark.parametrize("version", [2, 3])
def test_packed_numbers(tmp_path: Path, version: int) -> None:
    packed = {"_FillValue": 5, "scale_factor": 0.5, "add_offset": 100}
    content = written(tmp_path, version, {"x": packed}, x=GRID)
    np.testing.assert_equal(stored(content, "zarr.zip").numbers(), np.where(GRID == 5, np.nan, GRID * 0.5 + 100))


def test_coordinates_do_not_count(tmp_path: Path) -> None:
    attributes = {"lat": {"_ARRAY_DIMENSIONS": ["lat"]}, "flux": {"_ARRAY_DIMENSIONS": ["lat", "lon"]}}
    content = written(tmp_path, 2, attributes, lat=np.arange(3.0), flux=GRID, crs=np.array(0))
    np.testing.assert_equal(stored(content, "zarr.zip").array, GRID)


def zipped(**members: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, (bytes, str)) else json.dumps(content))
    return buffer.getvalue()


V2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [2],
    "chunks": [2],
    "dtype": "<f4",
    "compressor": None,
    "filters": None,
    "fill_value": 0,
    "order": "C",
}
V3: dict[str, Any] = {
    "zarr_format": 3, "node_type": "array", "shape": [2], "data_type": "float32", "fill_value": 0, "attributes": {},
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}  # fmt: skip
NUMBERS = np.array([1, 2], "<f4").tobytes()


def v2(**changed: Any) -> bytes:
    return zipped(**{".zarray": V2 | changed, "0": NUMBERS})


def v3(**changed: Any) -> bytes:
    return zipped(**{"zarr.json": V3 | changed, "c/0": NUMBERS})


def test_the_plain_files_of_the_tests_below_are_read() -> None:
    for content in (v2(), v3()):
        np.testing.assert_equal(stored(content, "zarr.zip").array, [1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (v2(filters=[{"id": "pickle", "protocol": 4}]), "found the codec 'pickle'; expected one of"),
        (v2(compressor={"id": "json2"}), "found the codec 'json2'"),
        (v3(codecs=[*V3["codecs"], {"name": "numcodecs.pickle", "configuration": {}}]), "found the codec 'numcodecs.pickle'"),
        (v3(codecs=[{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "my.codec"}]}}]), "found the codec 'my.codec'"),
        (v2(dtype="|O"), "found no array of numbers in the file"),
        (v2(shape=[10**12]), r"shape \(1000000000000,\) of float32 takes 4,000,000,000,000 bytes"),
        (v3(shape=[10**6, 10**6]), "takes 4,000,000,000,000 bytes"),
        (v2(chunks=[10**9]), "a chunk: shape .* takes 4,000,000,000 bytes"),
        (v3(shape=["two"]), "corrupt or truncated zipped Zarr"),
        (zipped(**{".zarray": V2, "0": NUMBERS[:-1]}), "corrupt or truncated zipped Zarr"),
        (zipped(**{".zarray": b"{"}), "corrupt or truncated zipped Zarr"),
        (zipped(**{".zarray": b"[]"}), "holds no keys and values"),
        (zipped(readme=b"x"), "found no array of numbers"),
        (v2()[:-30], "corrupt or truncated zipped Zarr"),
        (b"hello", "corrupt or truncated zipped Zarr"),
    ],
)  # fmt: skip
def test_bad_files(content: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=f"in/x.zarr.zip.*{message}"):
        stored(content, "zarr.zip")


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped(**{".zarray": V2, "0": b"\0" * 10_000_000})
    assert len(content) < 50_000
    monkeypatch.setattr("maskweave.values.files.MAX_ARRAY_BYTES", 1_000_000)
    with pytest.raises(BadSample, match=r"takes 10,000,\d{3} bytes; expected at most 1,000,000"):
        stored(content, "zarr.zip")


def test_without_zarr(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_needs("zarr", "hdf", v3(), "zarr.zip", monkeypatch)
