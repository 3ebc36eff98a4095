"""Tiles of scenes: at their edges, tiles are filled up."""

import numpy as np

from maskweave.generate.scenes import open_plane
from maskweave.modality.entry import Modality
from maskweave.values.image import Image
from maskweave.values.map import Map


def test_tiles_beyond_the_edge_have_the_size_of_the_entry() -> None:
    picture = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    plane = open_plane(picture, Modality("scene", 1, "patches", Image(size=(4, 4), channels=3), grid=(2, 2)))
    assert plane.shape == (5, 6) and plane.size == (4, 4)
    np.testing.assert_array_equal(plane.tile(1, 2), picture[1:5, 2:6])
    tile = plane.tile(3, 4)  # two rows and two columns are left; the last ones are repeated
    np.testing.assert_array_equal(tile, picture[[3, 4, 4, 4]][:, [4, 5, 5, 5]])


def test_points_beyond_the_edge_are_unknown() -> None:
    heights = np.arange(30, dtype=np.float32).reshape(5, 6)
    value = Map(size=(4, 4), range=(0, 100), missing=("nan",))
    plane = open_plane(heights, Modality("scene", 1, "patches", value, grid=(2, 2)))
    tile = np.asarray(plane.tile(3, 4)).reshape(4, 4)
    np.testing.assert_array_equal(tile[:2, :2], heights[3:, 4:])
    assert np.isnan(tile[2:]).all() and np.isnan(tile[:, 2:]).all()
    known = plane.known(plane.tile(3, 4))
    assert known.shape == (4, 4) and known.sum() == 4 and known[:2, :2].all()
    assert plane.tile(0, 0) is not None and not plane.known(None).any()
