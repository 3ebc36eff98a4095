"""npz with several arrays, and rows of numbers in csv and txt."""

import io
from typing import Any

import numpy as np
import pytest
from format_helpers import stored, value

from maskweave.errors import BadSample


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


SPECTRUM = npz(flux=np.arange(3.0), ivar=np.full(3, 9.0))


def test_several_arrays_are_refused_by_name() -> None:
    with pytest.raises(BadSample) as caught:
        stored(SPECTRUM, "npz")
    assert str(caught.value) == (
        "in/x.npz: found 2 arrays: flux, ivar; expected one; name the one to read in the entry: value: {array: flux}"
    )


def test_the_entry_names_the_array() -> None:
    entry: dict[str, Any] = {"type": "map", "size": [3], "range": [0, 10]}
    np.testing.assert_equal(value(**entry, array="ivar").read(SPECTRUM, "npz", "x"), np.full(3, 9, np.float32))
    np.testing.assert_equal(value(**entry, array="flux").read(SPECTRUM, "npz", "x"), np.arange(3, dtype=np.float32))
    with pytest.raises(BadSample, match=r"x: found the arrays flux, ivar; expected 'flxu', the entry's value.array"):
        value(**entry, array="flxu").read(SPECTRUM, "npz", "x")


@pytest.mark.parametrize("kind", ["image", "map", "features", "direction", "classes", "binary"])
def test_every_dense_type_names_its_array(kind: str) -> None:
    truth = {"direction": np.eye(3, dtype=np.float32)[None]}.get(kind, np.ones((1, 3), np.uint8))
    settings = {"map": {"range": [0, 1]}, "classes": {"classes": ["a", "b"]}, "direction": {"channels": 3}}.get(
        kind, {}
    )
    found = value(type=kind, size=[1, 3], array="a", **settings).read(npz(b=[9], a=truth), "npz", "x")
    np.testing.assert_equal(np.asarray(found).reshape(truth.shape), truth)


def test_one_array_needs_no_name_and_an_npy_has_none() -> None:
    np.testing.assert_equal(stored(npz(anything=np.arange(3)), "npz").array, np.arange(3))
    np.testing.assert_equal(stored(npz(arr_0=np.arange(3)), "npz", array="arr_0").array, np.arange(3))
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3, dtype=">i4"))
    array = stored(buffer.getvalue(), "npy", array="flux").array
    assert array.dtype == np.int32 and array.dtype.isnative and array.flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_of_npy_are_read(version: tuple[int, int]) -> None:
    buffer, truth = io.BytesIO(), np.arange(6, dtype=np.float32).reshape(2, 3)
    np.lib.format.write_array(buffer, truth, version=version)
    np.testing.assert_equal(stored(buffer.getvalue(), "npy").array, truth)


def test_vectors_in_rows_and_columns() -> None:
    for content, ending in (
        (b"1.5,2,-3\n", "csv"),
        (b"1.5\n2\n-3\n", "csv"),
        (b"1.5 2\t-3", "txt"),
        (b"1.5\r\n2\r\n-3\r\n", "txt"),
    ):
        found = value(type="vector", channels=3).read(content, ending, "x")
        np.testing.assert_equal(found, np.array([1.5, 2, -3], np.float32))


def test_rows_of_several_numbers() -> None:
    table = b"# from the arm\ntime;elbow;wrist\n0;1.5;2\n\n1;2.5;3\n"
    np.testing.assert_equal(stored(table, "csv", axes=1, channels=3).array, [[0, 1.5, 2], [1, 2.5, 3]])
    np.testing.assert_equal(stored(table, "csv", axes=1, array="Wrist").array, [2, 3])
    assert stored(b"1,2\n3,4", "csv").array.dtype == np.int64
    np.testing.assert_equal(stored(b"1 nan\n3 4", "txt").array, [[1, np.nan], [3, 4]])
    np.testing.assert_equal(stored(b"1,,2", "csv").array, [[1, np.nan, 2]])
    rows = value(type="map", size=[2], channels=3, range=[0, 9]).read(table, "csv", "x")
    assert rows.shape == (2, 3)


def test_one_row_is_a_series_of_one_channel_or_one_vector() -> None:
    assert value(type="map", size=[3], range=[0, 9]).read(b"1,2,3", "csv", "x").shape == (3,)
    assert value(type="map", size=[1], channels=3, range=[0, 9]).read(b"1,2,3", "csv", "x").shape == (1, 3)
    assert value(type="map", size=[2, 3], range=[0, 9]).read(b"1,2,3\n4,5,6", "csv", "x").shape == (2, 3)


def test_one_row_of_a_set_of_vectors_stays_a_row() -> None:
    from maskweave.values.vectors import Vectors

    assert Vectors(3).read(b"1,2,3", "csv", "x").shape == (1, 3)


@pytest.mark.parametrize(
    ("content", "selected", "message"),
    [
        (b"1,2\n3\n", {}, "line 2 has 1 cells; expected 2, as in line 1"),
        (b"a,b\n1,2\n3,x\n", {}, "line 3 holds 'x'; expected a number"),
        (b"1,2\n1_000,2\n", {}, "line 2 holds '1_000'; expected a number"),
        (b"a,b\n", {}, "found only the column names a, b"),
        (b"# nothing\n\n", {}, "found no numbers"),
        (b"a,b\n1,2\n", {"array": "c"}, "found the arrays a, b; expected 'c'"),
        (b"a,a\n1,2\n", {"array": "a"}, "found 2 arrays for value.array 'a'"),
        (b"1,2\n", {"array": "a"}, "found 2 columns without names; expected a first line with their names"),
        (b"\xff\xfe1", {}, "not UTF-8"),
    ],
)
def test_bad_tables(content: bytes, selected: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSample, match=f"in/x.csv: {message}"):
        stored(content, "csv", **selected)


def test_tables_hold_no_pictures() -> None:
    assert {"csv", "txt"} <= set(value(type="vector", channels=2).endings)
    assert not {"csv", "txt"} & set(value(type="image", size=[2, 2]).endings)
    assert not {"csv", "txt"} & set(value(type="map", size=[2, 2], channels=3, range=[0, 1]).endings)
