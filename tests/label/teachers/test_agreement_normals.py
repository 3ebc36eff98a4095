"""Agreement of two teachers, and normals of depth, against scenes whose answer is known."""

import numpy as np
import pytest
from teacher_helpers import entries, grid

from maskweave.errors import BadSample, MaskweaveError
from maskweave.label.teachers.normals import normals_of
from maskweave.label.teachers.opening import open_teacher

WEIGHT = grid(type="map", range=[0, 1])
DEPTH = grid(type="map", range=[0, 100], missing="nan")


def opened(value: dict, label: dict, **derive):
    catalog = entries(one=value, other=value, label={**label, "derive": {"from": "one", **derive}})
    return open_teacher(catalog, catalog["label"])


def test_numbers_that_differ_as_much_as_they_vary_weigh_one_half() -> None:
    teacher = opened(DEPTH, WEIGHT, by="agreement", **{"with": "other"})
    a = np.array([[0, 1, 2, 3, 4]], np.float32)  # the median distance from the median, 2, is 1
    b = np.array([[0, 2, 0, np.nan, 7]], np.float32)
    (found,) = teacher([{"one": a, "other": b}])
    np.testing.assert_allclose(found.value, [[1, 1 / 2, 1 / 5, 0, 1 / 10]])


@pytest.mark.filterwarnings("error")
def test_where_nothing_is_known_nothing_agrees() -> None:
    teacher = opened(DEPTH, WEIGHT, by="agreement", **{"with": "other"})
    nothing = np.full((2, 3), np.nan, np.float32)
    (found,) = teacher([{"one": nothing, "other": np.ones((2, 3), np.float32)}])
    assert found.value.shape == (2, 3) and not found.value.any()


def test_relative_numbers_are_aligned_first() -> None:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    plain, aligned = (
        opened(DEPTH, WEIGHT, by="agreement", align=align, **{"with": "other"}) for align in (False, True)
    )
    assert plain([{"one": a, "other": 5 - 2 * a}])[0].value.mean() < 0.5
    np.testing.assert_allclose(aligned([{"one": a, "other": 5 - 2 * a}])[0].value, 1, atol=1e-6)
    # Maps of other sizes are compared at the nearest points.
    doubled = np.repeat(np.repeat(a, 2, 0), 2, 1)
    np.testing.assert_allclose(plain([{"one": a, "other": doubled}])[0].value, 1)


def test_classes_agree_where_they_are_equal_and_known() -> None:
    value = grid(type="classes", classes=["a", "b"], ignore=255)
    teacher = opened(value, grid(type="binary"), by="agreement", **{"with": "other"})
    a, b = np.array([[0, 1, -1, 1]], np.int16), np.array([[0, 0, -1, 1]], np.int16)
    assert teacher([{"one": a, "other": b}])[0].value.tolist() == [[True, False, False, True]]


def test_directions_agree_by_the_cosine() -> None:
    teacher = opened(grid(type="direction", channels=3), WEIGHT, by="agreement", **{"with": "other"})
    a = np.array([[[0, 0, 1], [0, 0, 1], [1, 0, 0]]], np.float32)
    b = np.array([[[0, 0, 1], [0, 0.6, 0.8], [-1, 0, 0]]], np.float32)
    np.testing.assert_allclose(teacher([{"one": a, "other": b}])[0].value, [[1, 0.8, 0]], atol=1e-6)


def test_labels_that_cannot_be_compared() -> None:
    with pytest.raises(MaskweaveError, match="agreement compares two planes of maps, classes or directions"):
        opened(DEPTH, grid(type="direction", channels=3), by="agreement", **{"with": "other"})


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.6, 0, 0.8), (0, -0.6, 0.8), (-0.48, 0.36, 0.8)])
def test_the_normals_of_a_plane(normal: tuple[float, float, float]) -> None:
    # The plane n · p = −5 seen by a camera with a field of view of 60 degrees along its 40 columns; the ray of a pixel is (x, y, −1) · depth.
    height, width = 30, 40
    focal = 20 / np.tan(np.radians(30))
    x = (np.arange(width) + 0.5 - 20) / focal
    y = -(np.arange(height)[:, None] + 0.5 - 15) / focal
    n = np.array(normal)
    depth = -5 / (n[0] * x + n[1] * y - n[2])
    np.testing.assert_allclose(normals_of(depth, 60), np.broadcast_to(n, (height, width, 3)), atol=1e-5)


def test_normals_are_unknown_beside_unknown_depth() -> None:
    known, whole = grid(type="direction", channels=3, missing="nan"), grid(type="direction", channels=3)
    depth = np.full((8, 8), 3, np.float32)
    depth[2, 2] = np.nan
    (found,) = opened(DEPTH, known, by="normals")([{"one": depth}])
    assert np.isnan(found.value[2, 1:3]).all() and np.allclose(found.value[6, 6], (0, 0, 1), atol=1e-6)
    (refused,) = opened(DEPTH, whole, by="normals")([{"one": depth}])
    assert isinstance(refused, BadSample) and "have no normal" in str(refused)
    relative = grid(type="map", trim_quantile=0.1)
    with pytest.raises(MaskweaveError, match="from a map of one channel in metric units"):
        opened(relative, known, by="normals")
