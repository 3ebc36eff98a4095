"""Parts of npy files are what NumPy has at the same indices."""

from pathlib import Path

import numpy as np
import pytest

from maskweave.errors import BadSample
from maskweave.values.formats.numpy_rows import NpyRows


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 5, 3)])
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "?", "u1"])
def test_parts_are_those_of_the_array(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    found = NpyRows(tmp_path / "x.npy")
    few = np.array([3, 0, 3])
    for at in (slice(None), slice(2, 4), slice(-3, None), few, 2, np.int64(6)):
        assert np.array_equal(found[at], array[at]) and found[at].dtype == array.dtype
    part = found.part(2, 6)
    assert np.array_equal(part[1:3], array[2:6][1:3]) and part.shape == (4, *shape[1:])
    assert np.array_equal(part.part(1, 3)[np.array([1])], array[2:6][1:3][[1]])
    for y, x in (slice(1, 4), slice(2, 4)), (slice(5, 90), slice(-2, None)), (slice(0, 2), slice(3, 3)):
        assert len(shape) == 1 or np.array_equal(found[y, x], array[y, x])


def test_arrays_that_have_no_rows_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for array, says in ((np.array(1.0), "shape ()"), (np.array(["a"]), "<U1"), (np.zeros(2, "f4,f4"), "expected rows")):
        np.save(path, array)
        with pytest.raises(BadSample) as caught:
            NpyRows(path)
        assert says in str(caught.value)
    np.save(path, np.zeros((3, 4)).T)
    with pytest.raises(BadSample, match="found an array in Fortran's order; expected C's"):
        NpyRows(path)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadSample, match="truncated: 95 bytes cannot hold"):
        NpyRows(path)
    with pytest.raises(BadSample, match="cannot be read"):
        NpyRows(tmp_path / "nothing.npy")
