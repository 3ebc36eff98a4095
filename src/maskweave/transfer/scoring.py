"""Scores of a transferred model on held-out examples, next to the best constant answer."""

import contextlib
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import read
from maskweave.data.weights import scaled_together
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow
from maskweave.progress import progress
from maskweave.transfer.build import Transferred
from maskweave.transfer.data import Examples
from maskweave.transfer.shares import weighted_answers
from maskweave.transfer.target import Target
from maskweave.values.metrics import Metric, Weights


class Scored(NamedTuple):
    """A metric of predictions beside that of the best constant."""

    metric: str
    better: str
    value: float
    constant: float
    part: bool = False
    """Whether it is the score of a single channel, key or class."""


BATCH = 64
CONSTANT_SAMPLES = 500
"""Training examples that the best constants are fitted to."""


def score_transfer(
    model: Transferred, train: Examples, held_out: Examples, seed: int, limit: float = 0.01, workers: int = 0
) -> list[EvaluationRow]:
    """Returns one row for every metric of the task.

    Labels: accuracy (and top 5), macro F1. Tags and dense values: the metrics of their entry. Boxes: COCO's AP and AP50.

    Raises:
        MaskweaveError: too many examples are unusable, or a library of the extra `eval` is missing.
    """
    found: list[Any] = []
    truth: list[Any] = []
    raw_weights: list[np.ndarray] = []
    skips = ErrorBudget(limit)
    with progress("evaluate", len(held_out)) as bar:
        for numbers, samples in _batches(held_out, skips, workers):
            output = model.outputs(samples).float().cpu()
            # All scores of labels are kept, for the top 5; the logits of dense values would not fit in memory.
            found += list(output) if model.target.kind == "label" else model.answers(output, least=0.0, whole=True)
            truth += [held_out.answer(i, sample) for i, sample in zip(numbers, samples, strict=True)]
            raw_weights += held_out.raw_weights(samples) or []
            bar.advance(len(numbers))
        if skips.summary():
            bar.say(skips.summary())
    skips.check(finished=True)
    if not truth:
        raise MaskweaveError("no held-out example is usable; check the data")
    names, target = list(model.encoder.names), model.target
    weights = scaled_together(raw_weights, held_out.weighted)
    seen, seen_weights = weighted_answers(train, CONSTANT_SAMPLES)
    return [
        EvaluationRow(names, target.name, *score[:4], math.nan, len(truth), seed, score.part)
        for score in _metrics(target, found, truth, seen, weights, seen_weights)
        if not (math.isnan(score.value) and math.isfinite(score.constant))  # it needs distributions, and there are none
    ]


def _batches(examples: Examples, skips: ErrorBudget, workers: int) -> Any:
    numbers: list[int] = []
    samples: list[dict[str, Any]] = []
    for i, item in enumerate(read(examples, range(len(examples)), workers)):
        if not skips.take(item):
            skips.check()
            continue
        numbers.append(i)
        samples.append(item.sample)
        if len(samples) == BATCH:
            yield numbers, samples
            numbers, samples = [], []
    if samples:
        yield numbers, samples


def _metrics(
    target: Target, found: list[Any], truth: list[Any], seen: list[Any], weights: Weights, seen_weights: Weights
) -> list[Scored]:
    """Returns the scores of predictions, and of the best constants on the training values `seen`."""
    if target.kind == "label":
        logits_SK, truth_S = torch.stack(found), torch.tensor(truth)
        return _accuracies(logits_SK, truth_S, seen) + _class_scores(target, logits_SK.argmax(dim=1), truth_S, seen)
    if target.kind == "boxes":
        named = coco_average_precision(found, truth, target)
        return [Scored(name, "higher", value, math.nan) for name, value in named.items()]
    assert target.modality is not None
    return score_values(target.scores(), found, truth, seen, weights, seen_weights)


def score_values(
    metrics: Sequence[Metric],
    found: Sequence[Any],
    truth: Sequence[Any],
    seen: Sequence[Any],
    weights: Weights = None,
    seen_weights: Weights = None,
) -> list[Scored]:
    """Returns the scores of predictions by each metric and its parts, and those of the best constants on the training values `seen`."""
    rows = []
    for metric in metrics:
        constant = metric.scores([metric.best_constant(seen, seen_weights)] * len(truth), truth, weights)
        scores = metric.scores(found, truth, weights)
        rows += [
            Scored(name, metric.better, value, constant[name], name != metric.name) for name, value in scores.items()
        ]
    return rows


def _class_scores(target: Target, found_S: torch.Tensor, truth_S: torch.Tensor, seen: Sequence[int]) -> list[Scored]:
    """The metrics of a label's entry except the accuracy, which is scored already; none for labels that are a part of another value."""
    if target.modality is None or target.label:
        return []
    found, truth, known = (
        [target.classes[i] for i in indices] for indices in (found_S.tolist(), truth_S.tolist(), seen)
    )
    others = [metric for metric in target.modality.scores() if metric.name != "accuracy"]
    return score_values(others, found, truth, known)


def _accuracies(logits_SK: torch.Tensor, truth_S: torch.Tensor, seen: Sequence[int]) -> list[Scored]:
    common = [label for label, _ in Counter(seen).most_common(5)]
    rows = []
    for k in (1, 5):
        if k < logits_SK.shape[1]:
            best = logits_SK.topk(k, dim=-1).indices
            right = (best == truth_S[:, None]).any(dim=-1).float().mean().item()
            constant = float(np.mean([label in common[:k] for label in truth_S.tolist()]))
            rows.append(Scored("accuracy" if k == 1 else "top-5 accuracy", "higher", right, constant))
    return rows


def coco_average_precision(
    found: Sequence[Any], truth: Sequence[Any], target: Target, side: int = 1000
) -> dict[str, float]:
    """Returns COCO's average precision, over IoU thresholds from 0.5 to 0.95 (`AP`) and at 0.5 (`AP50`).

    Args:
        found: predicted boxes `{"class", "box", "score"}` of each picture.
        truth: true boxes `{"class", "box"}` of each picture.
        side: width and height of a picture in pixels; COCO measures in pixels.

    Raises:
        MaskweaveError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MaskweaveError(
            "average precision needs pycocotools; install it with: pip install 'maskweave[eval]'"
        ) from error

    category_ids = {name: k + 1 for k, name in enumerate(target.classes)}

    def entries(pictures: Sequence[Any]) -> list[dict[str, Any]]:
        items = [(i + 1, item) for i, boxes in enumerate(pictures) for item in boxes]
        corners = [[side * x for x in item["box"]] for _, item in items]
        return [
            {
                "id": n + 1, "image_id": i, "category_id": category_ids[item["class"]], "iscrowd": 0, "score": item.get("score", 1.0),
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
            }
            for n, ((i, item), (x0, y0, x1, y1)) in enumerate(zip(items, corners, strict=True))
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        true, guessed = COCO(), COCO()
        for dataset, pictures in ((true, truth), (guessed, found)):
            dataset.dataset = {
                "images": [{"id": i + 1} for i in range(len(truth))],
                "categories": [{"id": category} for category in category_ids.values()],
                "annotations": entries(pictures),
            }
            dataset.createIndex()
        evaluation = COCOeval(true, guessed, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": float(evaluation.stats[0]), "AP50": float(evaluation.stats[1])}
