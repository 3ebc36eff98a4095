"""Values with coordinates: resampled onto the entry's axis, from every kind of file and from Python, and drawn over it."""

import io
from typing import Any

import numpy as np
import pytest

from maskweave.config import build, plain
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import catalog_from
from maskweave.values.axis import CoordinateAxis
from maskweave.values.base import ValueType
from maskweave.values.map import Map
from maskweave.values.remarks import listening
from maskweave.values.series import Series

NAN = np.nan
WAVELENGTH = {"name": "wavelength", "unit": "angstrom", "from": 3600, "to": 9800, "scale": "log"}


def spectrum(**axis: Any) -> Any:
    value = {"type": "series", "size": [64], "mean": 0, "std": 1, "axis": {**WAVELENGTH, **axis}}
    return catalog_from({"modalities": {"a": {"id": 1, "kind": "grid", "grid": [8], "value": value}}}, "c.yaml")[
        "a"
    ].value


def test_points_of_an_axis() -> None:
    assert CoordinateAxis(0, 10).points(6).tolist() == [0, 2, 4, 6, 8, 10]
    assert np.allclose(CoordinateAxis(1, 100, scale="log").points(3), [1, 10, 100])
    assert CoordinateAxis(0, 1, "time", "s").label == "time (s)" and CoordinateAxis(0, 1).label == ""
    assert build(ValueType, plain(spectrum()), "x") == spectrum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"size": [8, 8], "axis": {"from": 0, "to": 1}},
            "value.axis is for values over one axis with two points or more",
        ),
        ({"axis": {"from": 2, "to": 1}}, "value.axis needs from below to, both finite, found 2 and 1"),
        ({"axis": {"from": 0, "to": 1, "scale": "log"}}, "value.axis.scale log needs from above 0, found 0"),
        ({"axis": {"from": 0, "to": 1, "array": "x"}}, "unknown where files do not reach; also set value.missing"),
        ({"axis": {"from": 0}}, "key 'value.axis.to' is missing"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    value = {"type": "map", "size": [8], "range": [0, 9], **settings}
    with pytest.raises(MaskweaveError, match=message):
        catalog_from({"modalities": {"a": {"id": 1, "kind": "patches", "grid": [2], "value": value}}}, "c.yaml")


def test_coarser_axes_take_means_and_keep_the_integral() -> None:
    axis, x = CoordinateAxis(0.5, 9.5), np.arange(0.05, 10, 0.1)
    y = 3 + np.sin(x)
    found = axis.resampled(y, x, 10, "x")
    assert np.allclose(found, y.reshape(10, 10).mean(axis=1)) and found.sum() == pytest.approx(y.sum() * 0.1)
    both = axis.resampled(np.stack([y, 2 * y], 1)[::-1], x[::-1], 10, "x")
    assert np.allclose(both, np.stack([found, 2 * found], 1)), "descending coordinates are turned"


def test_totals_keep_their_sum() -> None:
    counts = np.arange(1.0, 21)
    found = CoordinateAxis(1, 19, resample="sum").resampled(counts, np.arange(0.5, 20), 10, "x")
    assert np.allclose(found, counts.reshape(10, 2).sum(axis=1))
    finer = CoordinateAxis(0.25, 19.75, resample="sum").resampled(counts, np.arange(0.5, 20), 40, "x")
    assert np.allclose(finer, np.repeat(counts, 2) / 2)


def test_finer_axes_interpolate() -> None:
    found = CoordinateAxis(0, 4).resampled(np.array([0.0, 4, 8]), np.array([0, 2, 4]), 9, "x")
    assert np.allclose(found, np.arange(9))


def test_what_files_do_not_know_stays_unknown() -> None:
    x = np.arange(0, 6.01, 0.1)
    y = np.ones_like(x)
    y[(x > 1.75) & (x < 3.25)] = NAN
    found = CoordinateAxis(-1, 8).resampled(y, x, 10, "x")
    assert np.array_equal(np.isnan(found), [1, 0, 0, 1, 1, 0, 0, 0, 1, 1])  # -1, 2 and 3, 7 and 8
    sparse = CoordinateAxis(0, 4).resampled(np.array([0.0, NAN, 8]), np.array([0, 2, 4]), 9, "x")
    assert np.array_equal(np.isnan(sparse), [0, 0, 0, 1, 1, 1, 0, 0, 0]) or np.isnan(sparse[3:6]).sum() >= 2
    assert np.isnan(CoordinateAxis(0, 4).resampled(np.full(3, NAN), np.array([0, 2, 4]), 9, "x")).all()


@pytest.mark.parametrize("count", [71, 24, 141])
def test_wide_gaps_are_unknown(count: int) -> None:
    x = np.r_[1:11, 60:66].astype(float)
    axis = CoordinateAxis(0, 70)
    found, points = axis.resampled(x, x, count, "x"), axis.points(count)
    assert np.isnan(found[(points > 12) & (points < 58)]).all()
    inside = ((points >= 2) & (points <= 9)) | ((points >= 61) & (points <= 64))
    assert np.allclose(found[inside], points[inside], atol=0.05)


@pytest.mark.parametrize("count", [20, 2000])
def test_steps_that_grow_are_no_gaps(count: int) -> None:
    x = np.geomspace(100, 10_000, 300)
    assert np.isfinite(CoordinateAxis(100, 10_000).resampled(x, x, count, "x")).all()


def test_totals_in_gaps_and_at_both_ends_keep_their_sum() -> None:
    x = np.linspace(0, 10, 1001)
    axis = CoordinateAxis(0, 10, resample="sum")
    found = axis.resampled(np.ones(1001), x, 11, "x")
    assert np.allclose(found, [50.5, *[100] * 9, 50.5]) and found.sum() == pytest.approx(1001)
    wide = axis.resampled(np.ones(2001), np.linspace(-5, 15, 2001), 11, "x")
    assert np.allclose(wide, 100), "files that go on fill the outer points"
    rest = (x < 3.5) | (x > 6.5)
    gap = axis.resampled(np.ones(rest.sum()), x[rest], 11, "x")
    assert np.array_equal(np.isnan(gap), [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]) and np.nansum(gap) == pytest.approx(
        701, abs=1
    )


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        ([1, 2], r"x: found the coordinates 'x' of shape \(2,\); expected \(3,\)"),
        ([1, 2, NAN], "found 1 of 3 of the coordinates 'x' not finite"),
        ([1, 2, 2], "found 1 coordinates twice in the coordinates 'x'; expected each coordinate once"),
        ([-1, 2, 3], "found -1 in the coordinates 'x'; expected coordinates above 0, as the axis is logarithmic"),
    ],
)
def test_coordinates_are_checked(coordinates: list[float], message: str) -> None:
    with pytest.raises(BadSample, match=message):
        CoordinateAxis(1, 2, scale="log", array="x").resampled(np.ones(3), np.array(coordinates), 4, "x")


@pytest.mark.parametrize("coordinates", [["a", "b", "c"], [[1], [2, 3], [4]], [None, 1, 2]])
def test_coordinates_are_numbers(coordinates: Any) -> None:
    with pytest.raises(BadSample, match="^x: the coordinates: found .*; expected an array of numbers"):
        CoordinateAxis(1, 2).resampled(np.ones(3), coordinates, 4, "x")


def files_with(x: np.ndarray, y: np.ndarray) -> dict[str, bytes]:
    """A spectrum as users have it, with coordinates `loglam` and a second array `ivar`, by ending."""
    import h5py
    from astropy.io import fits

    npz, hdf, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    arrays = {"loglam": x, "flux": y, "ivar": np.ones_like(y)}
    np.savez(npz, **arrays)
    with h5py.File(hdf, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    columns = [fits.Column(name, "D", array=array) for name, array in arrays.items()]
    fits.BinTableHDU.from_columns(columns).writeto(table)
    rows = "\n".join(",".join(map(repr, map(float, row))) for row in zip(*arrays.values(), strict=True))
    csv = f"loglam,flux,ivar\n{rows}\n".encode()
    return {"npz": npz.getvalue(), "h5": hdf.getvalue(), "fits": table.getvalue(), "csv": csv}


@pytest.mark.parametrize("ending", ["npz", "h5", "fits", "csv"])
def test_files_with_coordinates(ending: str) -> None:
    value = build(ValueType, {**plain(spectrum(array="loglam", array_scale="log10")), "array": "flux"}, "x")
    wavelength = np.geomspace(3800, 9000, 900)
    content = files_with(np.log10(wavelength), wavelength / 1000)[ending]
    told: list[str] = []
    with listening(told.append):
        found = value.read(content, ending, "x")
    points = np.geomspace(3600, 9800, 64)
    known = np.isfinite(found)
    assert found.shape == (64,) and np.array_equal(known, (points > 3800 * 0.999) & (points < 9000 * 1.001))
    assert np.allclose(found[known][1:-1], points[known][1:-1] / 1000, rtol=2e-3)
    assert told == ["values resampled onto 64 points of the axis wavelength"]
    again = value.read(*value.write(found), "x")
    assert np.array_equal(again, found, equal_nan=True), "results lie on the axis"


def test_the_only_other_array_is_the_value() -> None:
    x, y = np.linspace(4000, 9000, 50), np.arange(50.0)
    file = io.BytesIO()
    np.savez(file, x=x, y=y)
    table = "\n".join(f"{a} {b}" for a, b in zip(x, y, strict=True))
    first = spectrum(array="x").read(file.getvalue(), "npz", "x")
    second = spectrum(array="1").read(table.encode(), "txt", "x")
    assert np.array_equal(first, second, equal_nan=True) and np.isfinite(first).sum() > 40
    with pytest.raises(BadSample, match="found the arrays x, y; expected 'wave', the entry's value.axis.array"):
        spectrum(array="wave").read(file.getvalue(), "npz", "x")
    with pytest.raises(BadSample, match="found one column; expected coordinates, value.axis.array 'x'"):
        spectrum(array="x").read(b"1\n2\n", "csv", "x")


def test_columns_of_a_table_are_chosen_by_the_names_of_channels() -> None:
    text = "time,elbow,note,shoulder\n0,1,7,10\n1,2,7,20\n2,3,7,30\n"
    axis = CoordinateAxis(0, 2, "time", "s", array="time")
    value = Series((5,), 2, channel_names=("shoulder", "elbow"), axis=axis, mean=(0,), std=(1,))
    found = value.read(text.encode(), "csv", "x")
    assert np.allclose(found, [[10, 1], [15, 1.5], [20, 2], [25, 2.5], [30, 3]])
    plain_columns = Series((5,), 2, channel_names=("shoulder", "elbow"), mean=(0,), std=(1,))
    assert plain_columns.read(text.encode(), "csv", "x").tolist() == [[10, 1], [20, 2], [30, 3]]


def test_columns_of_only_some_channels_are_refused() -> None:
    value = Series((5,), 2, channel_names=("shoulder", "elbow"), mean=(0,), std=(1,))
    with pytest.raises(BadSample, match="x: has the column 'elbow', but not shoulder; found elbow, hip; expected all"):
        value.read(b"elbow,hip\n1,2\n3,4\n", "csv", "x")
    assert value.read(b"a,b\n1,2\n3,4\n", "csv", "x").tolist() == [[1, 2], [3, 4]]


def test_python_passes_coordinates_and_values() -> None:
    value, x = spectrum(), np.linspace(3600, 9800, 300)
    found = value.check_batch([(x, x)], "a")[0]
    assert found.shape == (64,) and np.allclose(found, np.geomspace(3600, 9800, 64), rtol=5e-3)
    on_axis = value.fit_sizes(np.ones(64, np.float32), "x")
    assert len(on_axis) == 64
    with pytest.raises(
        BadSample, match=r"x: found a series of 50 points without coordinates; expected 64, the points of"
    ):
        value.fit_sizes(np.ones(50, np.float32), "x")


def test_predictions_stay_on_the_axis() -> None:
    import torch

    value = spectrum()
    logits = torch.ones(1, 1, 64)
    logits[..., :5] = logits[..., 60:] = -1
    found = value.with_unknown(np.ones((1, 64), np.float32), logits)
    assert found.shape == (1, 64) and np.isnan(found).sum() == 9
    assert [*value.metrics()] == ["mae", "rmse"], "they have no length"
    assert value.merge([found[0], np.ones(64), np.full(64, NAN)], 0.5).shape == (64,)


def test_figures_use_the_axis() -> None:
    array = np.sin(np.arange(64) / 9)
    bare = Series((64,), mean=(0,), std=(1,)).draw(array, (96, 144))
    drawn = spectrum().draw(array, (96, 144))
    other = Map((64,), range=(-1, 1), axis=CoordinateAxis(0, 5, "time", "s")).draw(array, (96, 144))
    assert bare.shape == drawn.shape == other.shape == (96, 144, 3)
    assert not np.array_equal(bare, drawn) and not np.array_equal(drawn, other)
