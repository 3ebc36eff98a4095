"""Average precision against pycocotools, and known cases."""

import math

import numpy as np
import pytest

from maskweave.values.average_precision import average_precisions, coco_average_precision, match, precisions
from maskweave.values.bootstrap import interval, sample_counts
from maskweave.values.boxes import Boxes, pair_overlaps
from maskweave.values.boxes3d import Boxes3D, item_overlaps

CLASSES = ("a", "b", "c")


def in_space(item: dict, height: float = 2.0) -> dict:
    """A box of a picture as a box in space of the same overlaps: the picture lies on the ground, 10 m wide, and all boxes are equally high."""
    x0, y0, x1, y1 = (10 * x for x in item["box"])
    center = [(x0 + x1) / 2, 0.0, (y0 + y1) / 2]
    return {**item, "center": center, "size": [x1 - x0, height, y1 - y0], "yaw": 0.0}


def random_boxes(rng: np.random.Generator, count: int) -> list[dict]:
    low = rng.random((count, 2)) * 0.6
    boxes = np.concatenate([low, low + rng.random((count, 2)) * 0.3 + 0.05], axis=1)
    return [{"class": str(rng.choice(CLASSES)), "box": box.tolist()} for box in boxes]


def random_detections(seed: int) -> tuple[list[list[dict]], list[list[dict]]]:
    """Boxes that were found, and the true ones, of 12 pictures."""
    rng = np.random.default_rng(seed)
    truth = [random_boxes(rng, int(rng.integers(0, 5))) for _ in range(12)]
    found = []
    for items in truth:
        near = [
            {**item, "box": (np.array(item["box"]) + rng.normal(0, 0.02, 4)).tolist()} for item in items for _ in "12"
        ]
        near = [item for item in near if item["box"][0] < item["box"][2] and item["box"][1] < item["box"][3]]
        found.append([{**item, "score": float(rng.random())} for item in near + random_boxes(rng, 2)])
    return found, truth


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_pycocotools_computes(seed: int) -> None:
    pytest.importorskip("pycocotools")
    found, truth = random_detections(seed)
    thresholds = np.linspace(0.5, 0.95, 10).tolist()
    lifted = [[[in_space(item) for item in items] for items in samples] for samples in (found, truth)]
    precisions = average_precisions(*lifted, item_overlaps, thresholds)
    expected = coco_average_precision(found, truth, CLASSES)
    assert 0.1 < expected["AP"] < 0.9
    assert np.mean(precisions) == pytest.approx(expected["AP"], abs=1e-9)
    assert precisions[0] == pytest.approx(expected["AP50"], abs=1e-9)


def test_known_precisions() -> None:
    item = in_space({"class": "a", "box": [0.1, 0.1, 0.5, 0.5]})
    right, wrong = {**item, "score": 0.9}, {**item, "center": [9.0, 0, 9], "score": 0.95}

    def precision(found: list, truth: list) -> float:
        return average_precisions(found, truth, item_overlaps, [0.5])[0]

    assert precision([[right]], [[item]]) == 1
    assert precision([[wrong, right]], [[item]]) == pytest.approx(0.5), "a false one comes first"
    assert precision([[{**wrong, "score": 0.1}, right]], [[item]]) == 1, "a false one comes last"
    assert precision([[right, right]], [[item]]) == 1, "found twice, the second time after all are found"
    assert precision([[right], [right]], [[item], []]) == pytest.approx(1), "ties keep their order"
    assert precision([[right], []], [[item], [item]]) == pytest.approx(51 / 101), "recalls up to one half"
    assert precision([[{**right, "class": "b"}]], [[item]]) == 0 == precision([[]], [[item]])
    assert math.isnan(precision([[right]], [[]]))


def test_scores_of_boxes_in_space() -> None:
    value = Boxes3D(classes=CLASSES)
    item = in_space({"class": "a", "box": [0.1, 0.1, 0.5, 0.5]})
    camera = {"focal": [1.0, 1.0], "center": [0.5, 0.5], "pitch": 0.0, "roll": 0.0}
    truth = [{"camera": camera, "boxes": [item]}]
    aside = {**item, "center": [item["center"][0] + 1.8, *item["center"][1:]], "score": 1.0}  # 2.2 of 4 m overlap
    overlap = 2.2 / (8 - 2.2)
    assert value.detection_scores([{"boxes": [aside]}], truth) == {
        "AP3D": pytest.approx(np.mean(np.arange(1, 11) * 0.05 <= overlap)),
        "AP3D@25": 1.0,
        "AP3D@50": 0.0,
    }


def test_coco_boxes_by_hand() -> None:
    pytest.importorskip("pycocotools")
    classes = ("red cube", "blue cone", "red cone")
    truth = [
        [{"class": "red cube", "box": [0.1, 0.1, 0.5, 0.5]}, {"class": "blue cone", "box": [0.6, 0.6, 0.9, 0.9]}],
        [],
    ]
    right = [[{**item, "score": 0.9} for item in boxes] for boxes in truth]
    assert coco_average_precision(right, truth, classes) == {"AP": pytest.approx(1.0), "AP50": pytest.approx(1.0)}
    wrong_class = [[{**right[0][0], "class": "red cone"}, right[0][1]], []]
    assert coco_average_precision(wrong_class, truth, classes)["AP50"] == pytest.approx(0.5)
    # overlaps by 0.6: right at 0.5, 0.55 and 0.6 alone
    shifted = [[{**right[0][0], "box": [0.2, 0.1, 0.6, 0.5]}, right[0][1]], []]
    assert coco_average_precision(shifted, truth, classes) == {
        "AP": pytest.approx((1 + 0.3) / 2, abs=0.01),
        "AP50": pytest.approx(1.0),
    }
    assert coco_average_precision([[], []], truth, classes)["AP"] == 0


def test_intervals_repeat_samples() -> None:
    found, truth = random_detections(4)
    counts = sample_counts(range(12), 7)
    repeated = [np.repeat(np.arange(12), row) for row in counts]
    flat = Boxes(classes=CLASSES)
    scores = [flat.detection_scores([found[i] for i in some], [truth[i] for i in some]) for some in repeated[:40]]
    matches = match(found, truth, pair_overlaps, np.linspace(0.5, 0.95, 10).tolist())
    each = np.array([precisions(matches, row) for row in counts])
    assert each[:40].mean(axis=1) == pytest.approx([one["AP"] for one in scores], abs=1e-6)
    assert each[:40, 0] == pytest.approx([one["AP50"] for one in scores], abs=1e-6)
    intervals, value = flat.detection_intervals(found, truth, 7), flat.detection_scores(found, truth)
    assert intervals["AP"] == pytest.approx(interval(each.mean(axis=1).tolist()))
    assert intervals["AP50"][0] < value["AP50"] < intervals["AP50"][1]
    space = Boxes3D(classes=CLASSES)
    deep = [[{"boxes": [in_space(item) for item in items]} for items in samples] for samples in (found, truth)]
    assert {name for name, (low, high) in space.detection_intervals(*deep).items() if 0 < low < high < 1} == {
        "AP3D",
        "AP3D@25",
        "AP3D@50",
    }
    assert pair_overlaps(found[0], []).shape == (len(found[0]), 0)
    nothing = space.detection_intervals([{"boxes": []}], [{"boxes": []}])
    assert all(math.isnan(low) for low, _ in nothing.values())
