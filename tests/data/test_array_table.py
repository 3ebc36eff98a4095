"""One npz, HDF5 or NetCDF4 file with all samples as a data set: rows are read one by one, as they are, within limits."""

import io
import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from maskweave.data import array_table
from maskweave.data.array_files import NpzFile
from maskweave.data.array_table import ArrayTable, find_array_table
from maskweave.data.import_source import import_data
from maskweave.data.opening import is_importable, open_data
from maskweave.data.reading import read
from maskweave.data.shards import Shards
from maskweave.errors import BadSample, MaskweaveError
from maskweave.limits import VALUE_SETTING
from maskweave.modality.catalogs import Catalog, catalog_from

COUNT = 9
RNG = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "images": RNG.integers(0, 255, (COUNT, 8, 8, 3), np.uint8),
    "depth": RNG.random((COUNT, 8, 8), np.float32),
    "labels": np.arange(COUNT, dtype=np.int64) % 3,
    "mass": np.linspace(1, 2, COUNT),
    "caption": np.array([f"a dög {i}" for i in range(COUNT)]),
    "wave": np.arange(5.0),
}
ENTRIES = {
    "images": {"id": 1, "kind": "grid", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
    "depth": {"id": 2, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 1]}},
    "labels": {"id": 3, "kind": "grid", "grid": [1], "value": {"type": "label", "classes": ["a", "b", "c"]}},
    "mass": {"id": 4, "kind": "grid", "grid": [1], "value": {"type": "scalar", "bins": 8}},
    "caption": {"id": 5, "kind": "sequence", "vocabulary": "text", "max_tokens": 30, "value": {"type": "text"}},
}
KINDS = ("stored.npz", "packed.npz", "plain.h5", "packed.h5", "data.nc")


@pytest.fixture
def catalog() -> Catalog:
    return catalog_from({"vocabularies": {"text": {"size": 600}}, "modalities": ENTRIES}, "own.yaml")


def write(path: Path, arrays: dict[str, Any] = ARRAYS) -> Path:
    """A file of arrays; those with names that begin with `packed` are compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        (np.savez_compressed if path.name.startswith("packed") else np.savez)(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            packed = {"compression": "gzip", "chunks": (2, *array.shape[1:])} if path.name.startswith("packed") else {}
            is_text = array.dtype.kind == "U"
            data = array.astype(object) if is_text else array
            file.create_dataset(name, data=data, dtype=h5py.string_dtype() if is_text else None, **packed)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_rows_are_samples_with_the_arrays_values(name: str, tmp_path: Path, catalog: Catalog) -> None:
    place = write(tmp_path / "in" / name)
    for opened in (place, place.parent):
        source = open_data(str(opened), catalog)
        assert is_importable(str(opened), catalog) and len(source) == COUNT and source.key(3) == "row-00000003"
        for i in (COUNT - 1, 0, 4):
            sample = source[i]
            np.testing.assert_array_equal(sample["images"], ARRAYS["images"][i])
            np.testing.assert_array_equal(sample["depth"], ARRAYS["depth"][i])
            assert sample["labels"] == "abc"[i % 3] and sample["mass"] == pytest.approx(ARRAYS["mass"][i])
            assert sample["caption"] == f"a dög {i}"
    report = import_data(str(place), tmp_path / "out", catalog, shard_size=4)
    assert report.samples == COUNT and "array wave: (5,) of float64; expected 9 rows" in str(report)
    shards = Shards(tmp_path / "out", catalog)
    np.testing.assert_array_equal(shards[7]["depth"], ARRAYS["depth"][7])
    assert import_data(str(place), tmp_path / "out", catalog, shard_size=4).kept == 3
    place.unlink()
    write(place, ARRAYS | {"mass": ARRAYS["mass"] + 1})
    assert import_data(str(place), tmp_path / "out", catalog, shard_size=4).kept == 0


def test_columns_have_other_names_and_names_of_samples(tmp_path: Path, catalog: Catalog) -> None:
    ids = np.array([f"obj{i}" for i in range(COUNT)])
    place = write(tmp_path / "a.npz", {"X": ARRAYS["images"], "y": ARRAYS["labels"], "id": ids})
    source = open_data(str(place), catalog, fields={"images": "X", "labels": "y", "name": "id"})
    assert source.key(4) == "obj4" and source.names == ("images", "labels") and source[4]["labels"] == "b"
    with pytest.raises(MaskweaveError, match="there is no column 'Z'; found X, y, id"):
        open_data(str(place), catalog, fields={"images": "Z"})


def test_groups_attributes_encoded_files_and_ragged_rows(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(ARRAYS["images"][0]).save(picture, "PNG")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("train")
        packed = group.create_dataset("temperature", data=np.int16([[1, 2], [-99, 4], [5, 6]]))
        packed.attrs["_FillValue"], packed.attrs["scale_factor"] = np.int16(-99), 0.5
        group.create_dataset("jpeg", 3, dtype=h5py.vlen_dtype(np.uint8))[:] = [
            np.frombuffer(picture.getvalue(), np.uint8)
        ] * 3
        ragged = group.create_dataset("wave", 3, dtype=h5py.vlen_dtype(np.float32))
        ragged[0], ragged[1], ragged[2] = np.float32([1, 2]), np.float32([3]), np.float32([])
        group["fixed"] = np.array([b"\xc3\xa4", b"b", b"c"])
        group["tags"] = np.array([["x", "y"], ["x", ""], ["z", "y"]], object)
        group["mask"], group["day"] = np.array([[True, False]] * 3), np.float32([[1], [np.nan], [3]])
        group["day"].make_scale("day")
        group["mass"] = np.float32([[1], [np.nan], [3]])
        group["other"] = h5py.ExternalLink("b.h5", "/x")
        group.create_dataset("outside", (3,), np.uint8, external=[(str(tmp_path / "secret"), 0, 3)])
    table = ArrayTable(tmp_path / "a.h5")
    assert set(table.columns) == {
        f"train/{n}" for n in ("temperature", "jpeg", "wave", "fixed", "tags", "mask", "mass")
    }
    assert "array train/outside: its numbers are in other files, which are not read" in table.left_out
    assert "array train/day: holds the coordinates of an axis" in table.left_out
    row: dict[str, Any] = {name.removeprefix("train/"): cell for name, cell in table.row(1, table.columns).items()}
    np.testing.assert_array_equal(row["temperature"], [np.nan, 2])
    assert row["jpeg"] == picture.getvalue() and row["wave"].tolist() == [3] and row["fixed"] == "b"
    assert row["tags"] == ["x", ""] and row["mask"].tolist() == [1, 0] and row["mass"] is None
    assert list(table.column("train/fixed")) == ["ä", "b", "c"]
    assert table.is_text("train/fixed") and not table.is_text("train/tags") and not table.is_text("train/mass")


@pytest.mark.parametrize("order", ["C", "F"])
def test_orders_of_memory_and_of_bytes(order: Any, tmp_path: Path) -> None:
    x = np.array(np.arange(24).reshape(4, 3, 2), ">i4", order=order)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(4, dtype=">f8"))
    table = ArrayTable(tmp_path / "a.npz")
    row = table.row(2, ["x", "y"])
    np.testing.assert_array_equal(row["x"], x[2])
    assert row["x"].dtype.isnative and row["y"] == 2.0
    assert [cell.sum() for cell in table.column("x")] == x.sum(axis=(1, 2)).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_worker_processes_and_copies_read_the_same(name: str, tmp_path: Path, catalog: Catalog) -> None:
    source = open_data(str(write(tmp_path / name)), catalog)
    first = [source[i] for i in range(COUNT)]
    copies = [item.sample for item in read(source, range(COUNT), workers=2)], [*pickle.loads(pickle.dumps(source))]
    for found in copies:
        assert all(np.array_equal(a["depth"], b["depth"]) for a, b in zip(found, first, strict=True))


def test_a_stored_array_is_read_by_rows_and_a_packed_one_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.zeros((64, 2**16), np.uint8)
    for name, most in (("stored.npz", 2**20), ("packed.npz", 2**23)):
        table = ArrayTable(write(tmp_path / name, {"x": big, "y": np.arange(64)}))
        tracemalloc.start()
        assert table.row(63, ["x"])["x"].shape == (2**16,)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most
    monkeypatch.setattr(zipfile, "ZipFile", None)  # not opened again
    assert not table.row(3, ["x"])["x"].any()
    assert not pickle.loads(pickle.dumps(table))._file._whole


def test_other_files_are_no_tables(tmp_path: Path, catalog: Catalog) -> None:
    one = write(tmp_path / "one/a.npz", {"wave": np.zeros(5), "image": np.zeros((8, 8))})
    assert find_array_table(one.parent) is None and not is_importable(str(one.parent), catalog)
    with pytest.raises(
        MaskweaveError,
        match=r"found the arrays wave \(5,\) of float64, image \(8, 8\) of float64; expected arrays whose first axes",
    ):
        open_data(str(one), catalog)
    many = tmp_path / "many"
    for name in "ab":
        write(many / f"{name}.npz")
    assert find_array_table(many) is None
    aligned = write(tmp_path / "aligned/images/a.npz").parent.parent
    assert find_array_table(aligned) is None and not is_importable(str(aligned), catalog)
    alone = write(tmp_path / "alone/a.npz", {"x": np.zeros((3, 4))})
    (alone.parent / "README.md").write_text("what it is", encoding="utf-8")
    table = find_array_table(alone.parent)
    assert table is not None and len(table) == 3
    (alone.parent / "a.png").write_bytes(b"")
    assert find_array_table(alone.parent) is None


def test_the_most_frequent_length_counts_and_of_equal_ones_the_largest(tmp_path: Path) -> None:
    arrays = {
        "x_train": np.zeros((6, 4)),
        "y_train": np.zeros(6),
        "x_test": np.zeros((2, 4)),
        "y_test": np.zeros(2),
        "w": np.float32(1),
    }
    table = ArrayTable(write(tmp_path / "a.npz", arrays))
    assert list(table.columns) == ["x_train", "y_train"] and len(table) == 6
    assert table.left_out[0] == "array x_test: (2, 4) of float64; expected 6 rows" and len(table.left_out) == 3


def test_objects_are_refused(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, {"b": 2}], object)
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)), o=objects)
    table = ArrayTable(tmp_path / "a.npz")
    assert list(table.columns) == ["x"] and "objects are never unpickled" in table.left_out[0]
    np.savez(tmp_path / "b.npz", o=objects)
    with pytest.raises(MaskweaveError, match="found the arrays none; o is of object.*never unpickled"):
        ArrayTable(tmp_path / "b.npz")


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name: str, tmp_path: Path, catalog: Catalog) -> None:
    place = write(tmp_path / name)
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
    with pytest.raises(MaskweaveError, match="corrupt or truncated (npz archive|HDF5 file).*replace the file"):
        open_data(str(place), catalog)
    place.write_bytes(b"")
    with pytest.raises(MaskweaveError, match="corrupt or truncated"):
        open_data(str(place), catalog)


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_damaged_chunk_drops_its_rows(chunk: int, tmp_path: Path, catalog: Catalog) -> None:
    place = write(tmp_path / "packed.h5")
    with h5py.File(place) as file:
        at = file["depth"].id.get_chunk_info(chunk).byte_offset
    with open(place, "r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 16)
    report = import_data(str(place), tmp_path / "out", catalog, limit=1.0)
    assert (
        report.samples == COUNT and report.per_modality["depth"] == COUNT - 2 and report.per_modality["images"] == COUNT
    )
    assert f"row {2 * chunk}: " in str(report) and "(depth): corrupt or truncated HDF5 file" in str(report)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    table = ArrayTable(write(tmp_path / "stored.npz"))
    (tmp_path / "stored.npz").write_bytes(b"PK")
    with pytest.raises(BadSample, match=r"row 5: .*stored.npz \(depth\): truncated"):
        table.row(5, ["depth"])["depth"]


def test_a_bomb_stays_within_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VALUE_SETTING, "8")
    place = tmp_path / "bomb.npz"
    np.savez_compressed(
        place, x=np.zeros((16, 2**19), np.uint8), y=np.zeros((16, 2**18), np.uint8), z=np.zeros((16, 2**19), np.uint8)
    )
    assert place.stat().st_size < 100_000
    table = ArrayTable(place)
    tracemalloc.start()
    assert not table.row(0, ["x"])["x"].any()
    with pytest.raises(
        MaskweaveError,
        match=r"\(z\): compressed arrays are unpacked as a whole and take 16,777,216 bytes together; .*numpy.savez",
    ):
        table.row(0, ["z"])["z"]
    assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    tracemalloc.stop()
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("x", (4, 2**24), np.uint8, chunks=(1, 2**24), compression="gzip")
        file.create_dataset("y", (4, 2), np.uint8)
        file.create_dataset("z", (4, 2), np.uint8)
    assert (
        "array x: takes 16,777,216 bytes for one row or chunk; expected at most 8,388,608"
        in ArrayTable(tmp_path / "bomb.h5").left_out[0]
    )


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 4)})
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
            archive.writestr("x.npy", header.getvalue() + bytes(64))
        with pytest.raises(BadSample, match=r"\(x\): truncated: .* cannot hold shape \(1000000000, 4\)"):
            NpzFile(tmp_path / "a.npz")


def test_without_h5py_and_classic_netcdf(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x01" + bytes(100))
    with pytest.raises(MaskweaveError, match="found classic NetCDF; expected NetCDF4"):
        open_data(str(tmp_path / "a.nc"), catalog)
    write(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    with pytest.raises(MaskweaveError, match=r"needs h5py.*pip install 'maskweave\[hdf\]'"):
        open_data(str(tmp_path / "a.h5"), catalog)


def test_a_pickle_is_not_read_but_converted_by_hand(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "data.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        MaskweaveError, match=r"never read.*one line of Python: from torch import load.*weights_only=True.*numpy.savez"
    ):
        open_data(str(tmp_path / "data.pt"), catalog)
    (tmp_path / "data.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(
        MaskweaveError, match=r"never read; if you trust it, load it in Python and save its arrays with numpy.savez"
    ):
        open_data(str(tmp_path / "data.pkl"), catalog)


def test_columns_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ArrayTable(write(tmp_path / "a.h5"))
    monkeypatch.setattr(array_table, "MOST_AT_ONCE", 4)
    assert list(table.column("labels")) == ARRAYS["labels"].tolist()
