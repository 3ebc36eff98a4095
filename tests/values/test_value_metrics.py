"""Metrics against values worked out by hand and against scikit-learn and scikit-image; constants against all rivals."""

import dataclasses
import math

import numpy as np
import pytest

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.values.image import Image
from maskweave.values.metrics import Labels, Metric

RNG = np.random.default_rng(0)


def entry(**value):
    grid = {"kind": "grid", "grid": [1] * len(value.get("size", [1]))}
    return catalog_from({"modalities": {"x": {"id": 1, "value": value, **grid}}}, "test")["x"]


def metric(modality, name: str, **options) -> Metric:
    return {m.name: m for m in modality.scores(**options)}[name]


def test_every_entry_has_metrics_and_constants(scenes_catalog: Catalog):
    scenes = pytest.importorskip("maskweave.synthetic.scenes").Scenes(scenes_catalog, 12, seed=0)
    for name, modality in scenes_catalog.items():
        values = [scene[modality.reads] for scene in scenes]
        metrics = modality.scores()
        assert metrics or modality.value.type == "palette"
        for m in metrics:
            perfect = m.score(values, values)
            constant = m.score([m.best_constant(values)] * len(values), values)
            assert perfect < constant if m.better == "lower" else perfect > constant, (name, m.name)


def test_relative_error_and_delta1_by_hand(scenes_catalog: Catalog):
    truth = np.array([[1.0, 2.0], [4.0, 0.0]])  # 0 is no distance: left out
    prediction = np.array([[1.2, 1.0], [np.nan, 3.0]])
    m = metric(scenes_catalog["depth"], "AbsRel")
    assert m.score([prediction], [truth]) == pytest.approx((0.2 + 0.5 + 1) / 3)
    assert m.better == "lower"
    m = metric(scenes_catalog["depth"], "delta1")
    assert m.score([prediction], [truth]) == pytest.approx(1 / 3)
    assert m.score([truth * 1.25], [truth]) == 0 and m.score([truth * 1.249], [truth]) == 1


def test_maps_get_absolute_and_squared_errors_unless_the_entry_says_otherwise():
    plain = entry(type="map", size=[2], range=[0, 5])
    assert [m.name for m in plain.scores()] == ["MAE", "RMSE"]
    chosen = dataclasses.replace(plain, metrics=("delta1", "abs_rel"))
    assert [m.name for m in chosen.scores()] == ["delta1", "AbsRel"]
    truths = [np.array([-1.0, np.nan]), np.array([2.0, 3.0])]
    predictions = [np.array([1.0, 2.0]), np.array([np.nan, 4.0])]  # what is not finite counts as 0
    assert metric(plain, "MAE").scores(predictions, truths) == {"MAE": pytest.approx((2 + 2 + 1) / 3)}
    assert metric(plain, "RMSE").scores(predictions, truths) == {"RMSE": pytest.approx(math.sqrt((4 + 4 + 1) / 3))}


def test_channels_are_scored_by_name():
    wind = entry(type="map", size=[2], channels=2, range=[-9, 9], channel_names=["east", "north"])
    truths = [np.array([[1.0, 0.0], [2.0, np.nan]]), np.array([[0.0, 4.0], [0.0, 4.0]])]
    predictions = [np.array([[2.0, 3.0], [5.0, 9.0]]), np.array([[0.0, 4.0], [0.0, 1.0]])]
    # errors: east 1, 3, 0, 0; north 3, 0, 3, one truth unknown
    assert metric(wind, "MAE").scores(predictions, truths) == pytest.approx(
        {"MAE": 10 / 7, "MAE east": 4 / 4, "MAE north": 6 / 3}
    )
    assert metric(wind, "RMSE").scores(predictions, truths) == pytest.approx(
        {"RMSE": math.sqrt(28 / 7), "RMSE east": math.sqrt(10 / 4), "RMSE north": math.sqrt(18 / 3)}
    )
    unnamed = dataclasses.replace(wind, value=dataclasses.replace(wind.value, channel_names=()))
    assert list(metric(unnamed, "MAE").scores(predictions, truths)) == ["MAE", "MAE 0", "MAE 1"]
    with pytest.raises(MaskweaveError, match="value.channel_names needs 2 names, found 1"):
        entry(type="map", size=[2], channels=2, range=[-9, 9], channel_names=["east"])


def test_vectors_get_absolute_errors():
    assert [m.name for m in entry(type="vector", channels=3).scores()] == ["MAE"]


def test_angles_by_hand(scenes_catalog: Catalog):
    truth = np.array([[[0, 0, 1.0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]]])  # the last has no direction
    prediction = np.array([[[0, 0, 5.0], [0, 1, 1]], [[0, -1, 0], [1, 0, 0]]])
    assert metric(scenes_catalog["normal"], "angle").score([prediction], [truth]) == pytest.approx((0 + 45 + 180) / 3)


def test_miou_by_hand_and_against_scikit_learn(scenes_catalog: Catalog):
    m = metric(scenes_catalog["semseg"], "mIoU")
    truth, prediction = np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]])
    assert m.score([prediction], [truth]) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert m.score([np.array([[0, 0, 77, 0]])], [truth]) == pytest.approx(
        (1 + 0) / 2
    )  # no class: wrong for class 1 alone
    sklearn = pytest.importorskip("sklearn.metrics")
    truths = RNG.integers(0, 5, (6, 8, 8))  # class 5 occurs nowhere
    predictions = np.where(RNG.random((6, 8, 8)) < 0.6, truths, RNG.integers(0, 5, (6, 8, 8)))
    assert m.score(predictions, truths) == pytest.approx(
        sklearn.jaccard_score(truths.ravel(), predictions.ravel(), average="macro")
    )


def test_every_class_has_an_iou():
    m = metric(entry(type="classes", size=[4], classes=["floor", "wall", "cube", "cone"]), "mIoU")
    truths, predictions = [np.array([0, 0, 1, 255])], [np.array([0, 1, 1, 1])]
    found = m.scores(predictions, truths)
    assert found == pytest.approx(
        {"mIoU": 1 / 2, "IoU floor": 1 / 2, "IoU wall": 1 / 2, "IoU cube": math.nan, "IoU cone": math.nan}, nan_ok=True
    )
    # summed over the samples before it is divided: floor 3 of 4, wall 1 of 3, cube predicted once and never there
    found = m.scores([*predictions, np.array([0, 0, 2, 0])], [*truths, np.array([0, 0, 1, 255])])
    assert found == pytest.approx(
        {"mIoU": (3 / 4 + 1 / 3 + 0) / 3, "IoU floor": 3 / 4, "IoU wall": 1 / 3, "IoU cube": 0, "IoU cone": math.nan},
        nan_ok=True,
    )


def test_binary_f1_against_scikit_learn_and_its_tolerance(scenes_catalog: Catalog):
    sklearn = pytest.importorskip("sklearn.metrics")
    truths, predictions = RNG.random((2, 5, 8, 8)) < 0.3
    edges = scenes_catalog["edges"]
    strict = metric(dataclasses.replace(edges, value=dataclasses.replace(edges.value, tolerance=0)), "F1")
    assert strict.score(predictions, truths) == pytest.approx(sklearn.f1_score(truths.ravel(), predictions.ravel()))
    line, off, far = (np.zeros((8, 8), bool) for _ in range(3))
    line[3], off[4], far[6] = True, True, True
    loose = metric(scenes_catalog["edges"], "F1")
    assert strict.score([off], [line]) == 0 and loose.score([off], [line]) == 1 and loose.score([far], [line]) == 0
    assert math.isnan(loose.score([np.zeros((8, 8))], [np.zeros((8, 8))]))


def test_labels_f1_by_hand(scenes_catalog: Catalog):
    boxes = metric(scenes_catalog["boxes"], "F1")
    found = [[{"class": "a", "box": [0, 0, 1, 1]}, {"class": "a", "box": [0, 0, 1, 1]}], []]
    truth = [
        [{"class": "a", "box": [0, 0, 0, 0]}, {"class": "b", "box": [0, 0, 1, 1]}],
        [{"class": "c", "box": [0, 0, 1, 1]}],
    ]
    assert boxes.score(found, truth) == pytest.approx(2 * 1 / (2 * 1 + 1 + 2))
    words = metric(scenes_catalog["caption"], "F1")
    assert words.score(["A red cube"], ["a blue cube"]) == pytest.approx(2 / 3)
    counted = metric(scenes_catalog["caption"], "F1", parse=lambda text: text.split(","))
    assert counted.score(["x,x,y"], ["x,x,z"]) == pytest.approx(4 / 6)  # the second x counts too


def test_psnr_against_scikit_image(scenes_catalog: Catalog):
    skimage = pytest.importorskip("skimage.metrics")
    truth, prediction = RNG.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    m = metric(scenes_catalog["rgb"], "PSNR")
    assert m.score([prediction], [truth]) == pytest.approx(skimage.peak_signal_noise_ratio(truth, prediction))
    assert m.score([truth], [truth]) == math.inf


def test_metadata_by_hand(scenes_catalog: Catalog):
    m = metric(scenes_catalog["metadata"], "MAE")
    truth = {"object_count": 3, "brightness": 100.0, "contrast": 20.0}
    prediction = {"object_count": 1, "brightness": 151.0, "camera_height": 2.0}
    assert m.score([prediction], [truth]) == pytest.approx((2 / 4 + 51 / 255 + 1) / 3)


def test_keys_are_scored_in_their_units(scenes_catalog: Catalog):
    m = metric(scenes_catalog["metadata"], "MAE")
    truths = [{"object_count": 3, "brightness": 100.0, "contrast": 20.0}, {"brightness": 10.0}]
    predictions = [{"object_count": 1, "brightness": 151.0, "camera_height": 2.0}, {"brightness": 0.0, "contrast": 9.0}]
    found = m.scores(predictions, truths)
    assert found["MAE object_count"] == 2 and found["MAE brightness"] == pytest.approx((51 + 10) / 2)
    low, high = scenes_catalog["metadata"].value.keys["contrast"].range
    assert found["MAE contrast"] == high - low  # it was not predicted
    assert math.isnan(found["MAE camera_height"])  # no truth has it
    assert list(found) == ["MAE", *(f"MAE {key}" for key in scenes_catalog["metadata"].value.keys)]
    assert found["MAE"] == pytest.approx((2 / 4 + (51 + 10) / 255 + 1) / 4)


def test_scores_add_up_over_samples_and_refuse_other_shapes(scenes_catalog: Catalog):
    m = metric(scenes_catalog["depth"], "AbsRel")
    assert math.isnan(m.score([], [])) and m.scores([], []).keys() == {"AbsRel"}
    predictions, truths = [np.full((1, 1), 2.0), np.full((1, 3), 1.0)], [np.full((1, 1), 1.0), np.full((1, 3), 1.0)]
    assert m.score(predictions, truths) == 0.25
    with pytest.raises(MaskweaveError, match=r"shape \(2, 2\) against a truth of shape \(1, 3\)"):
        m.score([np.ones((2, 2))], [np.ones((1, 3))])


@pytest.mark.parametrize("name", ["AbsRel", "delta1"])
def test_constants_of_positive_maps_beat_every_rival(scenes_catalog: Catalog, name: str):
    m = metric(scenes_catalog["depth"], name)
    values = list(RNG.gamma(2, 3, (15, 2, 2)))
    values[3][0, 0], values[4][0, 1] = np.nan, 0
    best = m.best_constant(values)
    sign = 1 if m.better == "higher" else -1
    score = sign * m.score([best] * 15, values)
    for y, x, rival in [(y, x, c) for y in range(2) for x in range(2) for c in np.linspace(0.1, 20, 150)]:
        other = best.copy()
        other[y, x] = rival
        assert sign * m.score([other] * 15, values) <= score + 1e-12
    assert (m.best_constant([np.zeros((2, 2))]) == 1).all()  # nothing valid


def test_constant_direction_beats_the_mean(scenes_catalog: Catalog):
    m = metric(scenes_catalog["normal"], "angle")
    values = [np.array([[[0.0, 1, 0]]])] * 6 + [np.array([[[0.0, 0, 1]]])] * 4
    best = m.best_constant(values)
    assert np.allclose(best, [[[0, 1, 0]]], atol=1e-2) and m.score([best] * 10, values) == pytest.approx(36, abs=0.5)
    cloud = list(RNG.normal((0, 0, 1), size=(20, 4, 4, 3)))
    cloud = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in cloud]
    mean = np.mean(cloud, axis=0)
    best = m.best_constant(cloud)
    assert np.allclose(np.linalg.norm(best, axis=-1), 1)
    assert m.score([best] * 20, cloud) <= m.score([mean] * 20, cloud) + 1e-9


def test_constants_of_the_rest_by_hand(scenes_catalog: Catalog):
    m = metric(scenes_catalog["semseg"], "mIoU")
    assert m.best_constant([np.array([[0, 2]]), np.array([[0, 1]]), np.array([[3, 1]])]).tolist() == [[0, 1]]
    m = metric(scenes_catalog["rgb"], "PSNR")
    assert m.best_constant([np.uint8([[[0, 0, 10]]]), np.uint8([[[255, 1, 10]]])]).tolist() == [[[127.5, 0.5, 10]]]
    m = metric(scenes_catalog["metadata"], "MAE")
    assert m.best_constant([{"contrast": 1}, {"contrast": 9, "brightness": 5}, {"contrast": 2}]) == {
        "contrast": 2,
        "brightness": 5,
    }


def test_constant_marks_beat_all_and_none(scenes_catalog: Catalog):
    m = metric(scenes_catalog["edges"], "F1")
    often = RNG.random((8, 8))
    values = [RNG.random((8, 8)) < often**3 for _ in range(12)]
    best = m.score([m.best_constant(values)] * 12, values)
    assert best >= m.score([np.ones((8, 8), bool)] * 12, values) and best > 0.5
    assert not m.best_constant([np.zeros((8, 8), bool)]).any()


def test_constant_labels_beat_every_multiset(scenes_catalog: Catalog):
    m = metric(scenes_catalog["caption"], "F1")
    values = [" ".join(RNG.choice(list("abc"), p=[0.6, 0.3, 0.1], size=RNG.integers(1, 5))) for _ in range(15)]
    score = m.score([m.best_constant(values)] * 15, values)
    rivals = [Labels("a" * i + "b" * j + "c" * k) for i in range(4) for j in range(4) for k in range(3)]
    assert score == pytest.approx(max(m.score([rival] * 15, values) for rival in rivals))
    assert m.best_constant([""]) == []


def test_standardized_maps_are_scored_in_relative_units():
    modality = entry(type="map", size=[8, 8], trim_quantile=0.1, unit="m")
    truth = RNG.random((8, 8)) * 40
    mae = metric(modality, "MAE")
    assert mae.score([truth * 3 - 7], [truth]) == pytest.approx(0, abs=1e-4)
    assert mae.score([-truth], [truth]) > 0.5


def test_ssim_against_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 24, 20, 3)).astype(np.uint8)
    found = np.clip(truth + rng.normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    expected = [
        structural_similarity(
            f, t, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for f, t in zip(found, truth, strict=True)
    ]
    metric = Image((24, 20), 3).metrics()["ssim"]
    # The published window; the two treat the border differently.
    assert metric.score(found, truth) == pytest.approx(np.mean(expected), abs=0.02)
    assert metric.score(truth, truth) == pytest.approx(1)
    with pytest.raises(MaskweaveError, match="ssim needs pictures of 11 × 11 pixels or more"):
        Image((8, 8), 3).metrics()["ssim"].score(truth[:, :8, :8], truth[:, :8, :8])
