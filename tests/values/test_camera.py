"""Cameras: where points appear, depth back to points, and what crops and flips do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskweave.errors import BadSample
from maskweave.values.camera import (
    check_camera,
    direction,
    move_camera,
    project,
    rectangle,
    rotation,
    segments,
    unproject,
    within_picture,
)
from maskweave.values.geometry import Geometry

LEVEL = {"focal": [1.0, 2.0], "center": [0.5, 0.5], "pitch": 0.0, "roll": 0.0}
TILTED = {"focal": [1.1, 1.3], "center": [0.45, 0.6], "pitch": 0.5, "roll": -0.2}


def test_where_points_appear() -> None:
    assert np.allclose(project(np.array([[0, 0, 5], [1, 0, 2], [0, 1, 4]]), LEVEL), [[0.5, 0.5], [1, 0.5], [0.5, 1]])
    down = {**LEVEL, "pitch": 0.3}  # what lies that far below the horizon is in the middle
    assert np.allclose(project(np.array([[0, 3 * math.sin(0.3), 3 * math.cos(0.3)]]), down), [[0.5, 0.5]])
    above = project(np.array([[0.0, 0, 3]]), down)
    assert above[0, 1] == pytest.approx(0.5 - 2 * math.tan(0.3)), "the horizon lies above the middle"
    clockwise = {**LEVEL, "focal": [1.0, 1.0], "roll": math.pi / 2}  # the picture then turns counterclockwise
    assert np.allclose(project(np.array([[1.0, 0, 4]]), clockwise), [[0.5, 0.25]])
    assert np.allclose(rotation(TILTED) @ rotation(TILTED).T, np.eye(3))


def test_depth_back_to_points() -> None:
    depth = np.full((6, 8), np.nan, np.float32)
    depth[2, 3], depth[5, 7], depth[0, 0] = 4.0, 2.5, 0.0
    points = unproject(depth, TILTED)
    assert np.allclose(project(points, TILTED), [[3.5 / 8, 2.5 / 6], [7.5 / 8, 5.5 / 6]])
    assert np.allclose((points @ rotation(TILTED).T)[:, 2], [4, 2.5]), "depth is measured along the axis"
    ray = direction(3.5 / 8, 2.5 / 6, TILTED)
    assert np.allclose(np.cross(ray, points[0]), 0) and ray @ points[0] > 0


crops = st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.6, 1), st.booleans())


@given(crops, st.floats(-1, 1), st.floats(-1, 1), st.floats(3, 9))
def test_crops_and_flips_move_the_picture_of_a_point(crop: tuple, x: float, y: float, z: float) -> None:
    geometry = Geometry(crop[:4], crop[4])
    [[u, v]] = project(np.array([[x, y, z]]), TILTED)
    [found] = project(np.array([[-x if geometry.flip else x, y, z]]), move_camera(TILTED, geometry))
    u, v = (u - crop[0]) / (crop[2] - crop[0]), (v - crop[1]) / (crop[3] - crop[1])
    assert np.allclose(found, [1 - u if geometry.flip else u, v])


def test_lines_are_cut_at_the_camera_and_at_the_picture() -> None:
    ends = np.array([[[0, 0, 1], [0, 0, -1]], [[-1, 0, 2], [1, 0, 2]], [[0, 0, -1], [1, 1, -2.0]]])
    found = segments(ends, LEVEL)
    assert len(found) == 2, "the last one is behind the camera"
    assert np.allclose(found[0], 0.5) and np.allclose(found[1], [[0, 0.5], [1, 0.5]])
    lines = np.array([[[-1, 0.5], [2, 0.5]], [[0.2, 0.2], [0.4, 0.4]], [[-1, 0.5], [0.5, 2.5]], [[2, 0], [2, 1.0]]])
    kept = within_picture(lines)
    assert np.allclose(kept[0], [[0, 0.5], [1, 0.5]]) and np.allclose(kept[1], lines[1]) and len(kept) == 2
    assert rectangle(lines[:2]) == [0, 0.2, 1, 0.5] and rectangle(lines[3:]) is None
    assert rectangle(np.empty((0, 2, 2))) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"focal": [0, 1]}, "focal from 0.001 to 100"),
        ({"focal": [1.0]}, "expected"),
        ({"pitch": 2}, "pitch from -1.571 to 1.571"),
        ({"roll": "left"}, "roll 'left'"),
        ({"center": [math.nan, 0]}, "center"),
    ],
)
def test_wrong_cameras_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        check_camera({**LEVEL, **changes}, "here")
    with pytest.raises(BadSample, match="focal lengths|picture widths"):
        check_camera({"focal": [1, 1]}, "here")
    assert check_camera({**LEVEL, "focal": np.array([1, 2])}, "here") == LEVEL
