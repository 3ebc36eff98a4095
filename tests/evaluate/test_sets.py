"""Scores of sets of features, against torchmetrics and brute force."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from small_bundle import scenes, small_bundle
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from maskweave.evaluate.sets import SetFeatures, frechet_distance, identified, joined, kernel_distance, set_scores


class Flat(torch.nn.Module):
    """Pictures whose 12 numbers are their features."""

    num_features = 12

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(80, 12)) @ rng.normal(size=(12, 12))
    return truth + 2.0 * rng.normal(size=(80, 12)) + 0.3, truth


def as_pictures(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).double().reshape(-1, 3, 2, 2)


def test_the_frechet_distance_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = features
    theirs = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    theirs.update(as_pictures(truth), real=True)
    theirs.update(as_pictures(found), real=False)
    assert frechet_distance(found, truth) == pytest.approx(float(theirs.compute()), rel=1e-6)
    assert frechet_distance(truth, truth) == pytest.approx(0, abs=1e-6)


def test_the_kernel_distance_is_that_of_torchmetrics(features: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = features
    theirs = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=80)
    theirs.update(as_pictures(truth), real=True)
    theirs.update(as_pictures(found), real=False)
    assert kernel_distance(found, truth) == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_identification_by_brute_force(features: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = features
    center = truth.mean(axis=0)
    angles = [
        [np.dot(f - center, t - center) / np.linalg.norm(f - center) / np.linalg.norm(t - center) for t in truth]
        for f in found
    ]
    expected = np.argmax(angles, axis=1) == np.arange(80)
    assert identified(found, truth).tolist() == expected.tolist() and 0 < expected.mean() <= 1
    assert not identified(np.ones((3, 2)), np.ones((3, 2))).any(), "ties are wrong"


def test_the_frechet_distance_is_the_same_with_few_samples(features: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = (x[:7] for x in features)
    c, d = (np.cov(x, rowvar=False) for x in (found, truth))
    root = scipy.linalg.sqrtm(c @ d + 1e-12 * np.eye(12)).real
    expected = np.square(found.mean(axis=0) - truth.mean(axis=0)).sum() + np.trace(c + d - 2 * root)
    assert frechet_distance(found, truth) == pytest.approx(expected, rel=1e-3)


def test_scores_have_intervals_and_bounds(features: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = features
    empty = truth.copy()
    empty[3] = np.nan
    names: list[Any] = ["frechet", "kernel", "identification", "similarity"]
    for scored in set_scores(names, np.stack([found, truth, truth + 0.01])):
        low, high = scored.interval
        assert low <= scored.value <= high and scored.samples == 80
        assert (scored.bound > scored.value) == (scored.better == "higher")
    (one,) = set_scores(["identification"], np.stack([found, empty, truth]))
    assert one.chance == 1 / 79 and one.bound == 1 and one.samples == 79, "what has no features is left out"
    assert set_scores(["kernel"], np.full((3, 2, 4), np.nan)) == []


def test_chunks_without_a_known_target_are_left_out() -> None:
    encode = SetFeatures(small_bundle(), lambda samples: np.ones((len(samples), 5)))
    picture = np.zeros((64, 64, 3), np.uint8)
    parts = [encode("rgb", [(picture, picture, picture)] * 2), encode("rgb", []), None, np.full((3, 4, 1), np.nan)]
    assert joined(parts).shape == (3, 2, 5)
    assert set_scores(["kernel"], joined(parts[1:])) == []


def test_failed_values_count(features: tuple[np.ndarray, np.ndarray]) -> None:
    truth = features[1][:50]
    failed = np.where(np.arange(50)[:, None] < 45, np.nan, truth)
    names: list[Any] = ["frechet", "kernel", "identification", "similarity"]
    frechet, kernel, identification, similarity = set_scores(names, np.stack([failed, truth, truth]))
    assert identification.value == pytest.approx(0.1) and similarity.value == pytest.approx(0.1)
    assert identification.samples == similarity.samples == 50 and identification.bound == 1
    assert frechet.value == pytest.approx(frechet_distance(truth[45:], truth)) and frechet.samples == 5
    assert kernel.value == pytest.approx(kernel_distance(truth[45:], truth)) and kernel.samples == 5
    rows = set_scores(names, np.stack([np.full_like(truth, np.nan), truth, truth]))
    assert [np.isnan(row.value) for row in rows] == [True, True, False, False] and rows[2].value == rows[3].value == 0


def test_similarities_are_those_of_torch(features: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = (torch.from_numpy(x) for x in features)
    (scored,) = set_scores(["similarity"], np.stack([features[0], features[1], features[1]]))
    all_pairs = torch.nn.functional.cosine_similarity(found[:, None], truth[None], dim=-1)
    assert scored.value == pytest.approx(float(all_pairs.diag().mean())) and scored.bound == pytest.approx(1)
    assert scored.chance == pytest.approx(float(all_pairs[~torch.eye(80, dtype=torch.bool)].mean()))


def test_features_are_those_of_the_encoder_or_of_another_network() -> None:
    bundle = small_bundle()
    pictures = [scene["rgb"] for scene in scenes(2)]
    triples = [(picture, picture, np.zeros_like(picture)) for picture in pictures]
    own = SetFeatures(bundle)("rgb", triples)
    expected = bundle.encoder(["rgb"])([{"rgb": picture} for picture in pictures]).pooled.numpy()
    assert own.shape == (3, 2, 32) and own[0] == pytest.approx(expected, abs=1e-5)
    other = SetFeatures(bundle, lambda samples: np.stack([s["rgb"].mean(axis=(0, 1)) for s in samples]))("rgb", triples)
    assert other[0] == pytest.approx(np.stack([p.mean(axis=(0, 1)) for p in pictures])) and not other[2].any()
    bad = SetFeatures(bundle)("rgb", [(np.zeros((3, 3)), *triples[0][1:]), triples[1]])
    assert np.isnan(bad[0, 0]).all() and np.isfinite(bad[0, 1]).all()
