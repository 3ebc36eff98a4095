"""Ensembles: averages, majorities, and instances found several times."""

import numpy as np
import pytest
from value_helpers import merge, value_of

from maskweave.errors import MaskweaveError
from maskweave.generate.ensemble import check_ensemble
from maskweave.modality.entry import Modality
from maskweave.values.boxes import Boxes
from maskweave.values.boxes3d import Boxes3D
from maskweave.values.instances import Instances
from maskweave.values.text import Text


def grid(**value) -> Modality:
    return Modality("thing", 1, "grid", value_of(size=(2, 2), **value), grid=(2, 2))


def test_averages() -> None:
    values = [np.full((2, 2), x, np.float32) for x in (1, 2, 6)]
    found = merge(grid(type="map", range=(0, 10)), values)
    assert found.dtype == np.float32 and (found == 3).all()
    features = [np.full((2, 2, 5), x, np.float32) for x in (-1, 4)]
    assert (merge(grid(type="features", channels=5), features) == 1.5).all()
    pictures = [np.full((2, 2, 3), x, np.uint8) for x in (200, 255, 255)]
    found = merge(grid(type="image", channels=3), pictures)
    assert found.dtype == np.uint8 and (found == 237).all(), "no overflow, rounded"


def test_directions_have_length_one() -> None:
    a, b = np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 3), np.float32)
    a[..., 0], b[..., 1] = 1, 1
    np.testing.assert_allclose(
        merge(grid(type="direction", channels=3), [a, b])[0, 0], [0.5**0.5, 0.5**0.5, 0], atol=1e-6
    )
    np.testing.assert_array_equal(merge(grid(type="direction", channels=3), [a, -a]), a)  # opposite ones cancel


def test_majorities() -> None:
    votes = [
        np.array([[0, 1], [2, 2]], np.uint8),
        np.array([[0, 2], [2, 1]], np.uint8),
        np.array([[1, 2], [0, 1]], np.uint8),
    ]
    found = merge(grid(type="classes", classes=("a", "b", "c")), votes)
    assert found.tolist() == [[0, 2], [2, 1]] and found.dtype == np.uint8
    edges = [np.array([[True, False], [True, False]]), np.array([[True, True], [False, False]])]
    found = merge(grid(type="binary"), edges)
    assert found.dtype == bool and found.tolist() == [[True, False], [False, False]]


def mask(left: int, right: int, name: str = "cube") -> dict:
    drawn = np.zeros((4, 10), bool)
    drawn[:, left:right] = True
    return {"class": name, "mask": drawn}


def test_instances_found_in_many_passes_are_kept_once() -> None:
    entry = Modality("things", 1, "sequence", Instances(size=(4, 10), classes=("cube", "cone")), max_tokens=60)
    a, again, other, cone, rare = mask(0, 4), mask(0, 5), mask(5, 9), mask(0, 4, "cone"), mask(9, 10)
    found = merge(entry, [[rare, a], [again, other], [a, cone, other]])
    assert [(i["class"], int(i["mask"].sum())) for i in found] == [
        ("cube", 16),
        ("cube", 16),
        ("cube", 4),
        ("cone", 16),
    ]
    assert np.array_equal(found[0]["mask"], a["mask"]) and np.array_equal(found[1]["mask"], other["mask"])
    assert len(merge(entry, [[a], [again]], overlap=0.9)) == 2, "they overlap by 0.8"
    assert merge(entry, [[], []]) == []


def test_boxes_are_pooled_alike() -> None:
    entry = Modality("boxes", 1, "sequence", Boxes(classes=("cube",)), max_tokens=60)
    a, b = ({"class": "cube", "box": box} for box in ([0, 0, 0.5, 0.5], [0.6, 0, 1, 0.5]))
    near = {"class": "cube", "box": [0, 0, 0.5, 0.45]}
    assert merge(entry, [[a, b], [near]]) == [a, b]


def test_boxes_in_space_are_pooled_and_their_cameras_averaged() -> None:
    entry = Modality("solids", 1, "sequence", Boxes3D(classes=("cube",)), max_tokens=60)
    a, b, near = (
        {"class": "cube", "center": [x, 0.0, 5.0], "size": [1.0, 1.0, 1.0], "yaw": 0.0} for x in (0.0, 2.0, 0.2)
    )
    cameras = [{"focal": [f, 1.0], "center": [0.5, 0.5], "pitch": f / 4, "roll": 0.0} for f in (1.0, 1.2, 3.0)]
    values = [{"camera": camera, "boxes": boxes} for camera, boxes in zip(cameras, ([a, b], [near], []), strict=True)]
    assert merge(entry, values) == {"camera": cameras[1], "boxes": [a, b]}
    assert merge(entry, values, overlap=0.9)["boxes"] == [a, b, near], "they overlap by 2/3"


def test_what_gives_no_values_cannot_be_an_ensemble() -> None:
    entry = grid(type="map", range=(0, 10))
    check_ensemble([entry], {"thing"}, samples=2)
    with pytest.raises(MaskweaveError, match="'thing': this bundle has no tokenizer for it"):
        check_ensemble([entry], {}, samples=2)


def test_texts_cannot_be_averaged() -> None:
    entry = Modality("caption", 1, "sequence", Text(), max_tokens=60)
    with pytest.raises(MaskweaveError, match="'caption': values of type 'text' cannot be merged"):
        check_ensemble([entry], {"caption"}, samples=2)
