"""Inception score, CLIP score and the judges' handling of values, against torchmetrics and brute force."""

from typing import Any

import numpy as np
import pytest
import torch
from small_bundle import scenes, small_bundle
from torchmetrics.image.inception import InceptionScore

from maskweave.evaluate.judges import ClipJudge, InceptionJudge, PerceptualJudge, clip_scores, inception_score, unjudged
from maskweave.evaluate.sets import joined
from maskweave.training.recipe import EvaluationRequest


class Logits(torch.nn.Module):
    """Pictures whose 12 numbers are their logits."""

    num_features = 12

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_the_inception_score_is_that_of_torchmetrics() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 12)) * 3
    theirs = InceptionScore(feature=Logits(), splits=1).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(logits).reshape(-1, 3, 2, 2))
    assert inception_score(logits) == pytest.approx(float(theirs.compute()[0]), rel=1e-6)
    assert inception_score(np.eye(5) * 1000) == pytest.approx(5), "sure, and of all classes alike"
    assert inception_score(np.ones((7, 4))) == pytest.approx(1)
    assert np.isnan(inception_score(np.zeros((0, 4))))


def test_clip_scores_by_hand() -> None:
    pictures, texts = np.array([[3.0, 4], [1, 0], [1, 0], [0, 0]]), np.array([[4.0, 3], [2, 0], [-1, 1], [1, 1]])
    assert clip_scores(pictures, texts) == pytest.approx([96, 100, 0, 0])


def triples(count: int) -> list[tuple[Any, Any, Any]]:
    pictures = [sample["rgb"] for sample in scenes(count)]
    return [(255 - p, p, p) for p in pictures]


def brightness(samples: Any) -> np.ndarray:
    return np.stack([s["rgb"].mean(axis=(0, 1)) / 25.0 for s in samples])


def test_pictures_are_judged_by_their_classes() -> None:
    judge = InceptionJudge(small_bundle(), brightness)
    assert judge.reads(["caption"], "rgb") and not judge.reads(["rgb"], "depth")
    values = triples(6)
    parts = [judge.measured([], "rgb", values[:4], []), judge.measured([], "rgb", values[4:], [])]
    (row,) = judge.scores(joined(parts))
    assert row.value == pytest.approx(inception_score(brightness([{"rgb": v[0]} for v in values])))
    assert row.bound == pytest.approx(inception_score(brightness([{"rgb": v[1]} for v in values])))
    assert (row.name, row.better, row.chance, row.samples) == ("Inception score", "higher", 1.0, 6)
    assert row.interval[0] <= row.value <= row.interval[1]
    damaged = judge.measured([], "rgb", [(np.zeros((2, 2)), *values[0][1:]), *values[1:]], [])
    assert judge.scores(damaged)[0].samples == 5
    assert judge.scores(joined([])) == []


def letters(samples: Any) -> np.ndarray:
    """Features of pictures by their colors, of texts by their letters."""
    return np.stack(
        [brightness([s])[0] if "rgb" in s else [s["caption"].count(x) for x in "rgb"] for s in samples]
    ).astype(np.float64)


def test_a_picture_is_judged_by_its_text_and_a_text_by_its_picture() -> None:
    judge, samples = ClipJudge(small_bundle(), letters), list(scenes(5))
    assert judge.reads(["caption"], "rgb") and judge.reads(["depth", "rgb"], "caption")
    assert not judge.reads(["depth"], "rgb") and not judge.reads(["rgb"], "depth")
    values = triples(5)
    (row,) = judge.scores(judge.measured(["caption"], "rgb", values, samples))
    texts = letters([{"caption": s["caption"]} for s in samples])
    expected = clip_scores(brightness([{"rgb": v[0]} for v in values]), texts)
    assert row.value == pytest.approx(expected.mean()) and row.samples == 5 and row.interval[0] <= row.value
    shuffled = clip_scores(brightness([{"rgb": v[0]} for v in values])[[4, 0, 1, 2, 3]], texts)
    assert row.chance == pytest.approx(shuffled.mean())
    written = [(sample["caption"], sample["caption"], sample["caption"]) for sample in samples]
    failed = [(7, *written[0][1:]), *written[1:]]
    parts = [judge.measured(["rgb"], "caption", [one], [sample]) for one, sample in zip(failed, samples, strict=True)]
    (other,) = judge.scores(joined(parts))
    each = clip_scores(texts, brightness(samples))
    assert other.bound == pytest.approx(each.mean()) and other.value == pytest.approx(each[1:].sum() / 5)


def test_distances_stand_beside_those_of_other_pictures() -> None:
    far = lambda a, b: np.array([np.abs(x["rgb"].astype(float) - y["rgb"]).mean() for x, y in zip(a, b, strict=True)])  # noqa: E731
    judge, values = PerceptualJudge(small_bundle(), far, "distance"), triples(4)
    (row,) = judge.scores(judge.measured([], "rgb", values, []))
    truth = np.stack([v[1] for v in values]).astype(float)
    assert row.value == pytest.approx(np.abs(255 - 2 * truth).mean()) and row.bound == 0
    assert row.chance == pytest.approx(np.abs(truth - np.roll(truth, -1, axis=0)).mean())
    (one,) = judge.scores(judge.measured([], "rgb", values[:1], []))
    assert np.isnan(one.chance) and one.samples == 1
    (none,) = judge.scores(judge.measured([], "rgb", [(np.zeros((2, 2)), *values[0][1:])], []))
    assert np.isnan(none.value) and none.samples == 0 and none.bound == 0
    assert judge.scores(joined([])) == []


def test_what_a_judge_cannot_score_is_told() -> None:
    bundle = small_bundle()
    judges = [InceptionJudge(bundle, brightness), ClipJudge(bundle, letters)]
    requests = [EvaluationRequest(["rgb"], ["depth", "caption"]), EvaluationRequest(["rgb"], ["depth"], read=["rgb"])]
    assert unjudged(judges, requests) == [
        "no Inception score for depth, caption: it is for pictures",
        "no CLIP score for depth: it compares a picture with a text, one generated from the other",
    ]
