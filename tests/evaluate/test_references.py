"""Simple references: what they find where the truth is simple, and where there are none."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from maskweave.evaluate.references import LOGISTIC, NEAREST, RIDGE, Reference, simple_references
from maskweave.modality.catalogs import catalog_from
from maskweave.values.distribution import point

CATALOG = catalog_from(
    {
        "modalities": {
            "photo": {"id": 1, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}},
            "height": {"id": 2, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [8, 8], "range": [0, 2]}, "tokenizer": {}},
            "cover": {"id": 3, "kind": "grid", "grid": [2, 2], "value": {"type": "classes", "size": [8, 8], "classes": ["a", "b", "c"]}, "tokenizer": {}},
            "light": {"id": 4, "kind": "grid", "grid": [1], "value": {"type": "scalar"}},
            "time": {"id": 5, "kind": "grid", "grid": [1], "value": {"type": "label", "classes": ["day", "night"]}},
        }
    },
    "test",
)  # fmt: skip


def samples(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        photo = (rng.integers(0, 256, (8, 8, 3)) * rng.uniform(0.3, 1)).astype(np.uint8)
        r, g, b = np.moveaxis(photo / 255, -1, 0)
        light = float(photo.mean())
        found.append(
            {
                "photo": photo,
                "height": (0.5 * r + 0.9 * g + 0.1).astype(np.float32),
                "cover": np.argmax([r, g, b], axis=0).astype(np.uint8),
                "light": light,
                "time": "day" if light > 80 else "night",
            }
        )
    return found


def fitted(inputs: list[str], target: str, count: int = 60) -> dict[str, Reference]:
    return {r.name: r for r in simple_references(CATALOG, {}, inputs, target, samples(count, 0))}


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, Any]]:
    return samples(20, 1)


def truth(held_out: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([s[name] for s in held_out])


def test_ridge_finds_what_is_linear_at_each_point(held_out: list[dict[str, Any]]) -> None:
    found = np.stack(fitted(["photo"], "height")[RIDGE].predict(held_out))
    assert found.shape == (20, 8, 8) and np.abs(found - truth(held_out, "height")).max() < 2e-3


def test_logistic_regression_of_points_is_as_good_as_that_of_scikit_learn(held_out: list[dict[str, Any]]) -> None:
    found = np.stack(fitted(["photo"], "cover")[LOGISTIC].predict(held_out))
    known = samples(60, 0)
    theirs = LogisticRegression(C=1.0, max_iter=500).fit(
        truth(known, "photo").reshape(-1, 3) / 255, truth(known, "cover").ravel()
    )
    cover = truth(held_out, "cover")
    accuracy = theirs.score(truth(held_out, "photo").reshape(-1, 3) / 255, cover.ravel())
    assert (found == cover).mean() > accuracy - 0.02 > 0.9


def test_numbers_and_labels_of_the_whole_input(held_out: list[dict[str, Any]]) -> None:
    numbers = fitted(["photo"], "light")[RIDGE].predict(held_out)
    error = np.abs([point(n) for n in numbers] - truth(held_out, "light"))
    assert error.max() < 0.02 * truth(held_out, "light").std(), "the mean of the picture is a feature"
    labels = fitted(["photo"], "time")[LOGISTIC].predict(held_out)
    assert (np.array(labels) == truth(held_out, "time")).mean() >= 0.9


def test_the_nearest_neighbor_is_the_training_sample_itself() -> None:
    known = samples(60, 0)
    for target in ("photo", "height", "light", "time"):
        found = fitted(["photo"], target)[NEAREST].predict(known[7:12])
        assert all(np.array_equal(one, s[target]) for one, s in zip(found, known[7:12], strict=True))


def test_class_maps_and_numbers_are_inputs_too(held_out: list[dict[str, Any]]) -> None:
    found = np.stack(fitted(["cover"], "height")[RIDGE].predict(held_out))
    means = {k: truth(samples(60, 0), "height")[truth(samples(60, 0), "cover") == k].mean() for k in range(3)}
    assert found == pytest.approx(np.vectorize(means.get)(truth(held_out, "cover")), abs=0.06)
    labels = fitted(["light"], "time")[LOGISTIC].predict(held_out)
    assert (np.array(labels) == truth(held_out, "time")).mean() >= 0.9


def test_none_without_inputs_or_with_few_samples() -> None:
    assert fitted([], "height") == {} and fitted(["photo"], "height", count=9) == {}
