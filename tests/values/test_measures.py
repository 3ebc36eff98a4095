import numpy as np
import pytest

from maskweave.errors import BadSample
from maskweave.values import measures
from maskweave.values.geometry import box_around, corner_first


def flat(*colors, width=10):
    """Stripes of equal width, (20, width · n, 3)."""
    return np.repeat(np.broadcast_to(np.array(colors, np.uint8), (20, len(colors), 3)), width, axis=1)


def test_palette_of_stripes():
    picture = np.concatenate([flat((250, 10, 10), width=30), flat((10, 10, 250), width=20), flat((240, 240, 240))], 1)
    assert measures.palette(picture) == [[250, 10, 10], [10, 10, 250], [240, 240, 240]]
    assert measures.palette(picture, most=1) != [] and len(measures.palette(picture, most=1)) == 1


def test_palette_merges_shades_and_keeps_its_length():
    noisy = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert len(measures.palette(noisy)) == 7
    assert measures.palette(noisy) == measures.palette(noisy.copy())
    shades = flat((100, 50, 50), (110, 55, 50), (120, 60, 50))
    assert measures.palette(shades) == [[110, 55, 50]]
    assert measures.palette(flat((0, 0, 0), width=1)) == [[0, 0, 0]]


def test_palette_is_that_of_a_strided_view():
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    view = picture[:, ::2]
    assert measures.palette(view) == measures.palette(view.copy())


def test_statistics_of_known_pictures():
    gray = measures.statistics(flat((128, 128, 128)))
    assert gray["brightness"] == pytest.approx(128, abs=0.01)
    for name in ("contrast", "colorfulness", "saturation", "entropy"):
        assert gray[name] == pytest.approx(0, abs=1e-2)
    halves = measures.statistics(flat((0, 0, 0), (255, 255, 255)))
    assert halves["contrast"] == 127.0 and halves["entropy"] == pytest.approx(1.0)
    red = measures.statistics(flat((255, 0, 0)))
    assert red["saturation"] == pytest.approx(255)
    # Hasler and Süsstrunk: no spread, so 0.3 · |(255, 127.5)|
    assert red["colorfulness"] == pytest.approx(0.3 * np.hypot(255, 127.5), rel=1e-4)
    assert red["brightness"] == pytest.approx(0.299 * 255, abs=0.01)


def test_edges_follow_a_step():
    edges = measures.canny(flat((20, 20, 20), (220, 220, 220)))
    assert edges.dtype == bool and edges.shape == (20, 20)
    assert edges[:, 9:11].any(1).all() and not edges[:, :8].any() and not edges[:, 12:].any()


def test_edges_between_colors_of_equal_gray():
    assert measures.canny(flat((200, 0, 0), (0, 102, 0))).any()


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ],
)
@pytest.mark.parametrize("measure", [measures.canny, measures.palette, measures.statistics])
def test_wrong_pictures_are_refused(measure, bad):
    with pytest.raises(BadSample, match="uint8"):
        measure(bad)


def test_the_box_around_a_mask():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:15] = True
    assert box_around(mask) == [0.2, 0.2, 0.75, 0.5]
    with pytest.raises(BadSample, match="empty"):
        box_around(np.zeros((3, 3), bool))


def test_corner_first_is_stable():
    boxes = [[0.5, 0.5, 1, 1], [0.0, 0.3, 1, 1], [0.3, 0.0, 1, 1], [0.1, 0.1, 1, 1]]
    assert corner_first(boxes, lambda box: box) == [boxes[3], boxes[1], boxes[2], boxes[0]]
