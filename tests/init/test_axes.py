"""An axis from the coordinates of files."""

import numpy as np
import pytest

from maskweave.init.axes import set_axis
from maskweave.init.finding import Finding


def found(array: str, *coordinates: np.ndarray, type: str = "map", points: int | None = None) -> Finding:
    finding = Finding("light", len(coordinates), type=type, grid=(4,), value={"size": [16], "fit": "resize"})
    return set_axis(finding, array, coordinates, [np.zeros(points or len(c)) for c in coordinates])


def test_the_axis_reaches_from_where_half_have_begun_to_where_half_have_ended() -> None:
    finding = found("x", np.linspace(1, 101, 101), np.linspace(2, 102, 101), np.linspace(3, 103, 101))
    assert finding.value["axis"] == {"from": 2.0, "to": 102.0, "array": "x"} and "fit" not in finding.value
    assert finding.value["missing"] == "nan" and not finding.doubts
    series = found("x", np.linspace(1, 101, 101), type="series")
    assert "missing" not in series.value


def test_coordinates_called_log_are_logarithms() -> None:
    axis = found("a/logx", np.linspace(1, 3, 50)).value["axis"]
    assert axis == {"from": 10.0, "to": 1000.0, "scale": "log", "array": "a/logx", "array_scale": "log10"}


@pytest.mark.parametrize(
    ("coordinates", "points", "said"),
    [
        ([np.arange(5.0)], 6, "x does not hold one coordinate for each point"),
        ([np.ones(5)], None, "x holds no coordinates"),
        ([np.full(5, np.nan)], None, "x holds no coordinates"),
        ([np.arange(3.0), np.arange(5.0, 8.0)], None, "the files share no range of x; they reach from 2.5 to 4.5"),
        ([np.arange(3.0), np.arange(8.0, 5.0, -1.0)], None, "the files share no range of x; they reach from 3 to 5"),
    ],
)
def test_coordinates_that_are_none(coordinates: list[np.ndarray], points: int | None, said: str) -> None:
    finding = found("x", *coordinates, points=points)
    assert "axis" not in finding.value and finding.doubts == [f"--axis: {said}"]


def test_pictures_have_no_single_axis() -> None:
    finding = set_axis(Finding("photo", 1, type="image", grid=(4, 4)), "x", [np.arange(3.0)], [np.zeros(3)])
    assert finding.doubts == ["--axis: values of type image have no single axis that x could be"]
