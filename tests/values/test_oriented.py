"""Overlaps of turned boxes: known cases, what must hold for all, and an independent measurement by sampling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskweave.values.oriented import common_area, contain, corners, footprints, overlaps, paired_overlaps, same_yaw

side = st.floats(0.1, 3)
place = st.floats(-2, 2)
box = st.tuples(place, place, place, side, side, side, st.floats(-7, 7)).map(lambda numbers: np.array([numbers]))


def moved_by(boxes: np.ndarray, *numbers: float) -> np.ndarray:
    return boxes + np.array(numbers)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(overlaps(a, b)[0, 0])


def flat_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Of boxes that are not turned, from their intervals along each axis."""
    low = np.maximum(a[0, :3] - a[0, 3:6] / 2, b[0, :3] - b[0, 3:6] / 2)
    high = np.minimum(a[0, :3] + a[0, 3:6] / 2, b[0, :3] + b[0, 3:6] / 2)
    common = (high - low).clip(min=0).prod()
    return float(common / (a[0, 3:6].prod() + b[0, 3:6].prod() - common))


def sampled_overlap(a: np.ndarray, b: np.ndarray, side: int = 120) -> float:
    """The share of the points of a box's own grid that another one contains, by rotating points into both."""
    middles = (np.arange(side) + 0.5) / side - 0.5
    u, v = (grid.ravel() for grid in np.meshgrid(middles * a[0, 3], middles * a[0, 5]))
    turn = complex(math.cos(a[0, 6]), math.sin(a[0, 6]))
    points = (u + 1j * v) * turn + complex(a[0, 0], a[0, 2])
    inside = (points - complex(b[0, 0], b[0, 2])) * complex(math.cos(b[0, 6]), -math.sin(b[0, 6]))
    area = ((np.abs(inside.real) <= b[0, 3] / 2) & (np.abs(inside.imag) <= b[0, 5] / 2)).mean() * a[0, 3] * a[0, 5]
    height = min(a[0, 1] + a[0, 4] / 2, b[0, 1] + b[0, 4] / 2) - max(a[0, 1] - a[0, 4] / 2, b[0, 1] - b[0, 4] / 2)
    common = area * max(height, 0)
    return float(common / (a[0, 3:6].prod() + b[0, 3:6].prod() - common))


def test_known_overlaps() -> None:
    unit = np.array([[0, 0, 0, 1, 1, 1, 0.0]])
    turned = np.array([[0, 0, 0, 1, 1, 1, math.pi / 4]])
    octagon = 2 * (math.sqrt(2) - 1)
    assert overlap(unit, turned) == pytest.approx(octagon / (2 - octagon))
    assert overlap(unit, moved_by(unit, 0.5, 0, 0, 0, 0, 0, 0)) == pytest.approx(1 / 3)
    assert overlap(unit, moved_by(unit, 0, 0.5, 0, 0, 0, 0, 0)) == pytest.approx(1 / 3)
    assert overlap(unit, moved_by(unit, 1, 0, 0, 0, 0, 0, 0)) == 0 == overlap(unit, moved_by(unit, 0, 3, 0, 0, 0, 0, 0))
    inner = np.array([[0.1, 0.1, 0, 0.2, 0.3, 0.4, 0.7]])
    assert overlap(unit, inner) == pytest.approx(0.2 * 0.3 * 0.4)
    many = np.concatenate([unit, turned, inner])
    assert overlaps(many, many[:2]).shape == (3, 2) and overlaps(many[:0], many).shape == (0, 3)
    assert np.allclose(np.diag(overlaps(many, many)), 1)
    assert overlap(unit * [[1, 1, 1, 0, 1, 1, 1]], unit * [[1, 1, 1, 0, 1, 1, 1]]) == 0, "boxes without volume"


@settings(max_examples=150, deadline=None)
@given(box, box)
def test_overlaps_agree_with_sampling(a: np.ndarray, b: np.ndarray) -> None:
    assert overlap(a, b) == pytest.approx(sampled_overlap(a, b), abs=0.02)


@settings(max_examples=150, deadline=None)
@given(box, box, st.floats(-4, 4), place, place)
def test_overlaps_are_symmetric_and_move_along(a: np.ndarray, b: np.ndarray, turn: float, x: float, z: float) -> None:
    found = overlap(a, b)
    assert 0 <= found <= 1 and overlap(b, a) == pytest.approx(found, abs=1e-9)
    assert overlap(a, a) == pytest.approx(1)

    def moved(one: np.ndarray) -> np.ndarray:
        at = complex(one[0, 0], one[0, 2]) * complex(math.cos(turn), math.sin(turn)) + complex(x, z)
        return np.array([[at.real, one[0, 1], at.imag, *one[0, 3:6], one[0, 6] + turn]])

    assert overlap(moved(a), moved(b)) == pytest.approx(found, abs=1e-7)
    mirrored = [one * [[-1, 1, 1, 1, 1, 1, -1]] for one in (a, b)]
    assert overlap(*mirrored) == pytest.approx(found, abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(box, box)
def test_boxes_that_are_not_turned_and_other_descriptions(a: np.ndarray, b: np.ndarray) -> None:
    found = overlap(a, b)
    for turned in (
        moved_by(a, 0, 0, 0, 0, 0, 0, math.pi),
        moved_by(a[:, [0, 1, 2, 5, 4, 3, 6]], 0, 0, 0, 0, 0, 0, math.pi / 2),
        np.array([[*a[0, :6], same_yaw(a[0, 6])]]),
    ):
        assert overlap(turned, b) == pytest.approx(found, abs=1e-7) and overlap(turned, a) == pytest.approx(1, abs=1e-7)
    assert -math.pi / 2 <= same_yaw(a[0, 6]) < math.pi / 2
    level = [np.array([[*one[0, :6], 0.0]]) for one in (a, b)]
    assert overlap(*level) == pytest.approx(flat_overlap(*level), abs=1e-9)


def test_areas_of_many_polygons_at_once() -> None:
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    others = np.stack([square + 0.5, square + 2, square, square[[1, 2, 3, 0]] * 0.5])
    assert common_area(np.stack([square] * 4), others) == pytest.approx([0.25, 0, 1, 0.25])
    a, b = moved_by(np.random.default_rng(0).random((2, 50, 7)), 0, 0, 0, 0.2, 0.2, 0.2, 0)
    assert np.allclose(paired_overlaps(a, b), np.diag(overlaps(a, b)))


def test_corners_and_points_inside() -> None:
    one = np.array([[1.0, -1, 5, 4, 2, 2, math.pi / 2]])  # its width of 4 lies along z
    found = corners(one)[0]
    assert np.allclose(found.min(axis=0), [0, -2, 3]) and np.allclose(found.max(axis=0), [2, 0, 7])
    assert np.allclose(found[:4, 1], -2), "the top comes first"
    assert np.allclose(footprints(one)[0, 0], [0, 7]), "half a width along z and half a depth along -x"
    points = np.array([[1, -1, 6.9], [1, -1, 7.1], [2.05, -1, 5], [1, 0.1, 5]])
    assert contain(one, points).tolist() == [[True, False, False, False]]
    assert contain(one, points, margin=0.2).all()
