"""Boxes and masks that are scored where they are."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from maskweave.modality.catalogs import Catalog
from maskweave.synthetic.scenes import Scenes
from maskweave.values.boxes import median_boxes, pair_overlaps
from maskweave.values.instances import Instances, mask_overlaps, typical_masks
from maskweave.values.matching import by_class, matched

CLASSES = ("cat", "dog", "hen")
HALF = {"class": "cat", "box": [0.0, 0.0, 0.5, 1.0]}


def box(name: str, *coordinates: float) -> dict[str, Any]:
    return {"class": name, "box": list(coordinates)}


def masks(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Masks of 12 × 16 points that do not overlap, each of several cells of a board."""
    owner = rng.integers(0, count + 1, (3, 4)).repeat(4, 0).repeat(4, 1)
    found = [{"class": str(rng.choice(CLASSES)), "mask": owner == n} for n in range(count)]
    return [item for item in found if item["mask"].any()]


def moved(rng: np.random.Generator, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same masks with some rows lost, some of another class, some missing."""
    found = []
    for item in items:
        mask = item["mask"].copy()
        mask[: rng.integers(0, 7)] = False
        name = str(rng.choice(CLASSES)) if rng.random() < 0.2 else item["class"]
        if mask.any() and rng.random() < 0.8:
            found.append({"class": name, "mask": mask})
    return found


def test_boxes_are_right_where_they_are(scenes_catalog: Catalog) -> None:
    metric = scenes_catalog["boxes"].value.metrics()["f1_50"]
    third = box("cat", 0, 0, 1 / 3, 1)
    for found, true, counts in (
        ([HALF], [HALF], [1, 0, 0]),
        ([box("cat", 0, 0, 1, 1)], [HALF], [1, 0, 0]),  # an overlap of exactly one half
        ([box("cat", 0, 0, 1, 1)], [third], [0, 1, 1]),
        ([box("dog", 0, 0, 0.5, 1)], [HALF], [0, 1, 1]),
        ([HALF, HALF], [HALF], [1, 1, 0]),  # each true box counts once
        ([], [HALF, third], [0, 0, 2]),
        ([HALF], [], [0, 1, 0]),
    ):
        assert metric.statistics(found, true).tolist() == counts, (found, true)
    assert metric.score([[HALF, third], [HALF]], [[HALF], [third]]) == pytest.approx(2 * 2 / (2 * 2 + 1 + 0))
    assert math.isnan(metric.score([[]], [[]])) and metric.better == "higher"


def test_the_largest_overlap_is_matched_first() -> None:
    near, far = box("cat", 0, 0, 0.5, 0.9), box("cat", 0, 0, 0.5, 0.6)
    assert matched([far, near], [HALF], pair_overlaps, 0.5) == [("cat", pytest.approx(0.9))]
    # The best pair is taken, although two weaker ones would match all.
    found = [box("cat", 0, 0, 1, 0.5), box("cat", 0, 0, 1, 0.9)]
    true = [box("cat", 0, 0, 1, 0.8), box("cat", 0, 0.2, 1, 1)]
    assert [round(overlap, 4) for _, overlap in matched(found, true, pair_overlaps, 0.3)] == [0.8889, 0.3]


def test_a_scene_is_its_own_perfect_prediction_and_classes_alone_are_not(scenes_catalog: Catalog) -> None:
    scenes = [dict(scene) for scene in Scenes(scenes_catalog, 12, seed=3)]
    for name, key, place in (("boxes", "f1_50", "box"), ("instances", "pq", "mask")):
        metrics = scenes_catalog[name].value.metrics()
        truth = [scene[name] for scene in scenes]
        assert metrics[key].score(truth, truth) == pytest.approx(1)
        other = [item[place] for value in [*truth[1:], truth[0]] for item in value]
        cycle = itertools.cycle(other)
        elsewhere = [[{**item, place: next(cycle)} for item in value] for value in truth]
        assert metrics["f1"].score(elsewhere, truth) == 1 and metrics[key].score(elsewhere, truth) < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_is_that_of_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = [masks(rng, 5) for _ in range(6)]
    found = [moved(rng, items) for items in truth]
    reference = PanopticQuality(things={0, 1, 2}, stuffs={9}, return_per_class=True)

    def panoptic(items: list[dict[str, Any]]) -> torch.Tensor:
        points = np.zeros((1, 12, 16, 2), np.int64)
        points[..., 0] = 9
        for n, item in enumerate(items):
            points[0, item["mask"]] = CLASSES.index(item["class"]), n + 1
        return torch.from_numpy(points)

    for a, b in zip(found, truth, strict=True):
        reference.update(panoptic(a), panoptic(b))
    metric = Instances(size=(12, 16), classes=CLASSES).metrics()["pq"]
    things = reference.compute().flatten()[:3]  # without what is nothing, of class 9
    assert 0.2 < things.mean() < 0.95
    assert metric.score(found, truth) == pytest.approx(float(things.mean()), abs=1e-6)


def test_an_overlap_of_one_half_is_no_match_of_the_panoptic_quality() -> None:
    metric = Instances(size=(4, 4), classes=CLASSES).metrics()["pq"]
    whole, half, more = (np.zeros((4, 4), bool) for _ in range(3))
    whole[:], half[:2], more[:3] = True, True, True
    true = [[{"class": "cat", "mask": whole}]]
    assert metric.score([[{"class": "cat", "mask": half}]], true) == 0
    assert metric.score([[{"class": "cat", "mask": more}]], true) == pytest.approx(0.75)
    assert math.isnan(metric.score([[]], [[]])) and metric.score([[]], true) == 0
    two = [[{"class": "cat", "mask": whole}, {"class": "dog", "mask": half}]]
    assert metric.score(true, two) == pytest.approx((1 + 0) / 2), "the mean of the classes that occur"


def placed(kind: str, name: str, low: float) -> dict[str, Any]:
    """A box or mask from a height downwards."""
    if kind == "boxes":
        return box(name, 0.2, low, 0.8, 0.8)
    mask = np.zeros((64, 64), bool)
    mask[int(low * 64) : 51, 12:52] = True
    return {"class": name, "mask": mask}


@pytest.mark.parametrize(("name", "typical"), [("boxes", median_boxes), ("instances", typical_masks)])
def test_no_other_typical_items_are_better_than_the_best_constant(
    scenes_catalog: Catalog, name: str, typical: Callable[[Any], list[dict[str, Any]]]
) -> None:
    value, rng = scenes_catalog[name].value, np.random.default_rng(0)
    metric, kinds = value.metrics()[value.default_metrics[1]], ("red cube", "blue cone")
    truth = [[placed(name, kind, rng.uniform(0.2, 0.25)) for kind in kinds[: 1 + n % 2]] for n in range(12)]
    best = metric.best_constant(truth)
    every = typical([item for items in truth for item in items])
    assert len(best) == 2 and metric.score([best] * 12, truth) > 0.7
    for n in (1, 2):
        for chosen in itertools.combinations(every, n):
            assert metric.score([list(chosen)] * 12, truth) <= metric.score([best] * 12, truth) + 1e-12
    assert metric.best_constant([[], []]) == []


def test_a_rare_class_is_part_of_the_best_constant_of_the_panoptic_quality(scenes_catalog: Catalog) -> None:
    """The quality is the mean of the classes, so that a class in one of ten samples counts as much as one in all."""
    metric = scenes_catalog["instances"].value.metrics()["pq"]
    truth = [[placed("instances", kind, 0.2) for kind in kinds] for kinds in [["red cube"]] * 9 + [["blue cone"]]]
    best = metric.best_constant(truth)
    assert [item["class"] for item in best] == ["blue cone", "red cube"]
    assert metric.score([best] * 10, truth) > metric.score([best[1:]] * 10, truth)
    assert metric.score([best] * 10, truth) == pytest.approx((9 / 9.5 + 1 / 5.5) / 2)


def test_typical_items_are_those_of_each_class() -> None:
    boxes = [box("dog", 0, 0, 0.2, 0.2), box("cat", 0.1, 0, 0.3, 1), box("cat", 0.3, 0, 0.5, 1)]
    assert [*by_class(boxes)] == ["cat", "dog"]
    assert median_boxes(boxes) == [box("cat", 0.2, 0, 0.4, 1), box("dog", 0, 0, 0.2, 0.2)]
    rows = np.arange(4)[:, None] * np.ones((1, 3))
    [cat] = typical_masks([{"class": "cat", "mask": rows < n} for n in (1, 1, 2, 4)])
    assert cat["mask"][:, 0].tolist() == [True, True, False, False]  # covered by 4, 2, 1 and 1 of 4
    assert mask_overlaps([cat], []).shape == (1, 0)
    assert mask_overlaps([cat], [{"class": "hen", "mask": rows < 3}])[0, 0] == pytest.approx(2 / 3)
